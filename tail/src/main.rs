//! `narrows-tail`: the command line of the server.

use std::{
    ffi::OsString,
    io::{IsTerminal, stderr},
    process::ExitCode,
};

use clap::{CommandFactory, error::ErrorKind};
use narrows_service::{Origin, ParseError, Parsed, Settings, sample};
use narrows_tail::{
    Error,
    certs::{self, Issued, Key},
    check,
    config::{BundleCommand, Certs, Cli, Command, EnrolCommand, LogFormat, Serve},
    enrol, serve, settings, signing,
};
use tracing_subscriber::{filter::Targets, prelude::*};

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let Parsed { cli, settings } = match parsed(&argv) {
        Ok(parsed) => parsed,
        Err(ParseError::Usage(error)) => error.exit(),
        Err(ParseError::Settings(error)) => {
            eprintln!("narrows-tail: {:#}", anyhow::Error::new(error));
            return ExitCode::from(2);
        }
    };
    let format = match &cli.command {
        Command::Serve(config) => config.log_format,
        _ => LogFormat::Text,
    };
    begin_log(format);
    let result = match &cli.command {
        Command::Serve(config) => {
            if let Err((flag, text)) = config.check() {
                let text = settings::placed(settings.as_ref(), flag, &text);
                Cli::command().error(ErrorKind::ValueValidation, text).exit();
            }
            serve(config, settings.clone().map(|settings| origin(argv, settings)))
        }
        Command::Check(flags) => {
            let checks = check::check(&flags.serve, settings.as_ref(), flags.networks);
            let unwritten = |source| Error::Io { what: "cannot write standard output".into(), source };
            match checks.print(flags.json) {
                Ok(()) => return ExitCode::from(u8::from(checks.failed())),
                Err(error) => Err(unwritten(error)),
            }
        }
        Command::Config => {
            let keys = sample(&Cli::command(), "serve", &settings::LAYOUT, settings::INTRO);
            print(&(keys + settings::DEVICES))
        }
        Command::Manual(folders) => {
            let what = format!("cannot write man pages and completions into {}", folders.man.display());
            narrows_service::manual(&Cli::command(), folders).map_err(|source| Error::Io { what, source })
        }
        Command::Certs(command) => make_certificates(command),
        Command::Enrol(command) => let_in(command),
        Command::Bundle(command) => sign(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let exit_code = error.exit_code();
            eprintln!("narrows-tail: {}", settings::describe(settings.as_ref(), &error));
            ExitCode::from(exit_code)
        }
    }
}

/// Parses the command line, with the configuration file that it names.
fn parsed(argv: &[OsString]) -> Result<Parsed<Cli>, ParseError> {
    narrows_service::parse(argv, &settings::LAYOUT, "serve", &["serve", "check"])
}

/// How the settings of a running server are read again.
fn origin(argv: Vec<OsString>, settings: Settings) -> Origin<Serve> {
    Origin::new(settings, move || {
        let Parsed { cli, settings } = parsed(&argv).map_err(|error| error.reason())?;
        match (cli.command, settings) {
            (Command::Serve(config), Some(settings)) => Ok((*config, settings)),
            _ => Err("the command line is none of a server with a file".to_owned()),
        }
    })
}

/// Writes the log to standard error from now on, at the levels that `RUST_LOG` asks for.
fn begin_log(format: LogFormat) {
    let requested = std::env::var_os("RUST_LOG");
    let parsed = requested.as_ref().and_then(|filter| filter.to_str()?.parse::<Targets>().ok());
    let unknown = requested.filter(|_| parsed.is_none());
    let filter = parsed.unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(stderr)
        .with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(stderr().is_terminal()).finish().with(filter).init(),
        LogFormat::Json => log.json().finish().with(filter).init(),
    }
    if let Some(requested) = unknown {
        tracing::warn!(
            "RUST_LOG={requested:?} is no list of levels such as info,narrows_tail=debug; it is not used"
        );
    }
}

/// Makes, renews, revokes or lists certificates, and prints the folder or the files that were written, or the list.
fn make_certificates(command: &Certs) -> Result<(), Error> {
    let key = |new: bool| if new { Key::New } else { Key::Keep };
    match command {
        Certs::Init { dir, names } => print_identity(&certs::init(dir, names)?),
        Certs::Device { name, dir } => print_identity(&certs::device(dir, name)?),
        Certs::Server { dir, names, new_key } => print_identity(&certs::server(dir, names, key(*new_key))?),
        Certs::Renew { name, dir, new_key } => print_identity(&certs::renew(dir, name, key(*new_key))?),
        Certs::Revoke { name, dir } => {
            let done = certs::revoke(dir, name)?;
            let files: Vec<String> = done.files.iter().map(|file| file.display().to_string()).collect();
            print(&(files.join("\n") + "\n"))?;
            eprintln!(
                "revoked {} of {name}; a server reads crl.pem in its identity folder, at once when it changes",
                match done.certificates {
                    1 => "1 certificate".to_owned(),
                    count => format!("{count} certificates"),
                }
            );
            Ok(())
        }
        Certs::List { dir, json } => {
            let entries = certs::list(dir)?;
            print(&match json {
                // Every entry is text.
                true => serde_json::to_string_pretty(&entries).unwrap_or_default() + "\n",
                false => certs::table(&entries),
            })
        }
    }
}

/// Makes a key, or signs or verifies a bundle.
fn sign(command: &BundleCommand) -> Result<(), Error> {
    match command {
        BundleCommand::Key { file } => {
            let (public, hint) = signing::key(file)?;
            print(&format!("{}\n", public.display()))?;
            eprintln!("the key {hint}; keep {} where bundles are signed, and nowhere else", file.display());
            Ok(())
        }
        BundleCommand::Sign { dir, key } => {
            let hint = signing::sign(dir, key)?;
            print(&format!("{}\n", dir.join("model.sig").display()))?;
            eprintln!("signed by the key {hint}");
            Ok(())
        }
        BundleCommand::Verify { dir, key } => {
            let files = signing::verify(dir, key)?;
            print(&format!("{}: {files} files are as they were signed\n", dir.display()))
        }
    }
}

/// Makes a token, lists tokens and devices, or decides on a device that waits.
fn let_in(command: &EnrolCommand) -> Result<(), Error> {
    match command {
        EnrolCommand::Token { names, dir, valid } => {
            let made = enrol::token(dir, names, *valid)?;
            print(&format!("{}\n", made.token))?;
            eprintln!(
                "token {} lets one device in as {names}, once, until {}; it is not shown again. On the device:\n  \
                 narrows-head enrol --server HOST --token TOKEN --identity DIR\n\
                 the device believes a server alone whose CA has the key {}",
                made.token.id(),
                made.ends,
                made.token.ca()
            );
            Ok(())
        }
        EnrolCommand::List { dir, json } => {
            let (tokens, requests) = enrol::list(dir)?;
            print(&match json {
                true => {
                    let all = serde_json::json!({ "tokens": tokens, "requests": requests });
                    format!("{all:#}\n")
                }
                false => enrol::table(&tokens, &requests),
            })
        }
        EnrolCommand::Approve { which, dir, valid } => {
            let done = enrol::approve(dir, which, *valid)?;
            print(&format!("{}\n", done.name))?;
            eprintln!(
                "approved {} with the key {}; it fetches its certificate within seconds",
                done.name, done.key
            );
            Ok(())
        }
        EnrolCommand::Reject { which, dir } => {
            let done = enrol::reject(dir, which)?;
            print(&format!("{}\n", done.name))?;
            eprintln!("rejected {} with the key {}", done.name, done.key);
            Ok(())
        }
    }
}

fn print_identity(issued: &Issued) -> Result<(), Error> {
    print(&format!("{}\n", issued.folder.display()))?;
    if !issued.has_key {
        eprintln!("key.pem is not in this folder: copy cert.pem beside the key.pem that it is for");
    }
    Ok(())
}

fn print(text: &str) -> Result<(), Error> {
    narrows_service::print(text)
        .map_err(|source| Error::Io { what: "cannot write standard output".into(), source })
}
