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
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(false);
    log.with_ansi(stderr().is_terminal()).init();
    let done = match &cli.command {
        Command::Serve(config) => serve(config),
        Command::Certs(command) => make(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("narrows-tail: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn make(command: &Certs) -> Result<(), Error> {
    let folder = match command {
        Certs::Init { dir, names } => certs::init(dir, names)?,
        Certs::Device { name, dir } => certs::device(dir, name)?,
    };
    println!("{}", folder.display());
    Ok(())
}
