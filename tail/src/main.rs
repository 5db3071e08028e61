//! `narrows-tail`: the command line of the server.

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
};

use clap::Parser;
use narrows_tail::{
    Error, certs,
    config::{Certs, Cli, Command},
    serve,
};
use tracing_subscriber::{filter::Targets, prelude::*};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let requested = std::env::var_os("RUST_LOG");
    let parsed = requested.as_ref().and_then(|filter| filter.to_str()?.parse::<Targets>().ok());
    let unknown = requested.filter(|_| parsed.is_none());
    let filter = parsed.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(stderr);
    log.with_target(false).with_ansi(stderr().is_terminal()).finish().with(filter).init();
    if let Some(requested) = unknown {
        tracing::warn!(
            "RUST_LOG={requested:?} is no list of levels such as info,narrows_tail=debug; it is not used"
        );
    }
    let result = match &cli.command {
        Command::Serve(config) => serve(config),
        Command::Certs(command) => make_certificates(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let exit_code = error.exit_code();
            // The alternate form prints the error and all its sources.
            eprintln!("narrows-tail: {:#}", anyhow::Error::new(error));
            ExitCode::from(exit_code)
        }
    }
}

/// Makes certificates and prints the folder of the new identity.
fn make_certificates(command: &Certs) -> Result<(), Error> {
    let folder = match command {
        Certs::Init { dir, names } => certs::init(dir, names)?,
        Certs::Device { name, dir } => certs::device(dir, name)?,
    };
    println!("{}", folder.display());
    Ok(())
}
