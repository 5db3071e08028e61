//! `narrows-bench`: measures a bundle, its head and its server.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use narrows_bench::{
    arm::Arm, codec::Codec, compare::Compare, frame::Frame, load::Load, machines::Machines, micro::Micro,
    policy::Policy, rate::Rate, schedule::Schedule,
};
use narrows_eval::Evaluate;

const EXAMPLES: &str = "\
Examples:
  Local network, image offload and split network over a ladder of links:
    narrows-bench compare --bundle models/bundles/lite2 --out bench-out";

/// Measure narrows: latency, accuracy and bytes, kernels and coders, many heads at once, rate control
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Instructions of the networks and of a camera's frame on emulated 64-bit ARM, by class
    Arm(Arm),
    /// Local, offload or split: latency, bytes, accuracy and joules on the same frames over a ladder of links
    Compare(Compare),
    /// Bytes and speed of the codec and of other coders, on one thread in one run
    Codec(Codec),
    /// Accuracy and bytes on labelled data, compared with JPEG, the unsplit network and the local one
    Evaluate(Evaluate),
    /// A camera's frame from its bytes to the packet, stage by stage: time, instructions, sustained rate
    Frame(Frame),
    /// Many heads at once against one server: throughput, latency, refusals
    Load(Load),
    /// A table of reports of micro and arm, one row for each kind of machine
    Machines(Machines),
    /// Speed of the int8 networks, of ONNX Runtime and of JPEG encoders, on one thread in one run
    Micro(Micro),
    /// Rate control over recorded links, compared with the most that any sender could earn
    Policy(Policy),
    /// Frames a second that a head sustains of one camera, next to other heads
    Rate(Rate),
    /// Recorded arrivals at a server, replayed in virtual time: waiting, deadlines met, refusals by device
    Schedule(Schedule),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare(compare) => return compare.run(),
        Command::Arm(arm) => arm.run(),
        Command::Codec(codec) => codec.run(),
        Command::Evaluate(evaluate) => evaluate.run(),
        Command::Frame(frame) => frame.run(),
        Command::Load(load) => return load.run(),
        Command::Machines(machines) => machines.run(),
        Command::Micro(micro) => micro.run(),
        Command::Policy(policy) => policy.run(),
        Command::Rate(rate) => rate.run(),
        Command::Schedule(schedule) => schedule.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("narrows-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
