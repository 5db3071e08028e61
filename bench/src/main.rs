//! `narrows-bench`: measures a bundle, its head and its server.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use narrows_bench::{
    codec::Codec, compare::Compare, links::Links, load::Load, loopback::Loopback, micro::Micro,
};
use narrows_eval::Evaluate;

const EXAMPLES: &str = "\
Examples:
  Local network, image offload and split network over a ladder of links:
    narrows-bench compare --bundle models/bundles/lite2 --out bench-out";

/// Measure narrows: accuracy and bytes, kernels and coders, head and server on loopback, links, many heads at once
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Local, offload or split: latency, bytes, accuracy and joules on the same frames over a ladder of links
    Compare(Compare),
    /// Bytes and speed of the codec and of other coders, on one thread in one run
    Codec(Codec),
    /// Accuracy and bytes on labelled data, compared with JPEG, the unsplit network and the local one
    Evaluate(Evaluate),
    /// Rate, delay and loss of the emulated links, compared with the kernel's own shaping
    Links(Links),
    /// Many heads at once against one server: throughput, latency, refusals, highest sustained rate
    Load(Load),
    /// The time that the runtime adds to the stages of a frame, one frame at a time over loopback
    Loopback(Loopback),
    /// Speed of the int8 head, of other implementations and of JPEG encoders, on one thread in one run
    Micro(Micro),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compare(compare) => return compare.run(),
        Command::Codec(codec) => codec.run(),
        Command::Evaluate(evaluate) => evaluate.run(),
        Command::Links(links) => return links.run(),
        Command::Load(load) => return load.run(),
        Command::Loopback(loopback) => loopback.run(),
        Command::Micro(micro) => micro.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("narrows-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
