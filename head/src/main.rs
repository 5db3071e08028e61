//! `narrows-head`: the device's command line.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use narrows_head::{Error, Kind, Ran, Stop, config::Flags, run};
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "\
Examples:
  One photo, classes and class map, pictures in out/:
    narrows-head run --bundle models/bundles/lite2 --server tail.local:7461 \\
        --identity certs/pi --source cat.jpg --out out

  A folder at the coarsest level, only classes:
    narrows-head run … --source photos/ --tasks classify --level 4

  Without a server, the bundle's local network:
    narrows-head run --bundle models/bundles/lite2 --path local --source cat.jpg

  Latency of one frame at a time, a hundred rounds:
    narrows-head run … --source cat.jpg --in-flight 1 --repeat 100 | jq .ms.total

Standard output holds one JSON line per frame, in the order of the answers; everything else goes to standard error.

Exit codes:
    0  every frame was answered, by the server or on this device, or nobody reads standard output any more
    1  some frames got no answer: no image, refused, or out of time
    2  a flag cannot be understood
    3  the bundle is missing, damaged, or not the server's
    4  the identity is missing, damaged, or not trusted
    5  the source holds no images
    6  the server could not be reached, was lost for good, or refused
    7  this device failed: a result could not be written, or no socket was to be had
  130  interrupted (SIGINT); 143 terminated (SIGTERM)";

/// Runs the head of a bundle on images and asks the tail what is in them
#[derive(Parser)]
#[command(name = "narrows-head", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// More on standard error; RUST_LOG, if set, says exactly what
    #[arg(long, short, global = true, display_order = 100, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Work through images and print one JSON line per frame
    #[command(after_help = EXAMPLES)]
    Run(Box<Flags>),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => "warn",
        1 => "warn,narrows_head=debug,narrows_wire=debug",
        _ => "debug",
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level)))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    let Command::Run(flags) = cli.command;
    match run(&flags) {
        Ok(ran) => finish(&ran),
        Err(error) => {
            say(&error);
            ExitCode::from(code(&error))
        }
    }
}

fn finish(ran: &Ran) -> ExitCode {
    if ran.stop == Some(Stop::Unread) {
        return ExitCode::SUCCESS;
    }
    // Standard error may be closed as well; the exit code still tells.
    let _ = writeln!(std::io::stderr(), "{}", ran.summary);
    if let Some(error) = &ran.error {
        say(error);
    }
    ExitCode::from(match (ran.stop, &ran.error) {
        (Some(Stop::Interrupt), _) => 130,
        (Some(_), _) => 143,
        (None, Some(error)) => code(error),
        (None, None) if ran.summary.complete() => 0,
        (None, None) => 1,
    })
}

fn say(error: &Error) {
    let _ = writeln!(std::io::stderr(), "narrows-head: {error}");
}

fn code(error: &Error) -> u8 {
    match error.kind() {
        Kind::Frame => 1,
        Kind::Usage => 2,
        Kind::Bundle => 3,
        Kind::Identity => 4,
        Kind::Source => 5,
        Kind::Server => 6,
        _ => 7,
    }
}
