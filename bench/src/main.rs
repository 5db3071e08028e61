//! `narrows-bench`: measure a bundle and the two halves, or just see them work.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use narrows_bench::{
    codec::Codec, compare::Compare, links::Links, load::Load, loopback::Loopback, micro::Micro,
};
use narrows_eval::Evaluate;

const EXAMPLES: &str = "\
Examples:
  Whether splitting pays, and on which link:
    narrows-bench compare --bundle models/bundles/lite2 --out bench-out";

/// Measure narrows: accuracy and bytes, kernels and coders, the pair on loopback, links, many heads at once
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
    /// The codec against every coder one could pick: bytes and speed, one thread, one run
    Codec(Codec),
    /// Accuracy and bytes of the shipped path on labelled data, beside JPEG, the unsplit network and the local one
    Evaluate(Evaluate),
    /// What the named links really do to datagrams, beside the kernel's own shaping
    Links(Links),
    /// Many heads at once against one tail: throughput, latency, refusals, and where it breaks
    Load(Load),
    /// What the runtime adds to the work itself, one frame at a time over loopback
    Loopback(Loopback),
    /// Head, coder and JPEG against their peers, one thread, as ratios of one run
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
