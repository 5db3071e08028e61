//! `narrows-head`: the command line of the device.

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use clap::{CommandFactory, Parser, Subcommand};
use narrows_head::{
    Chain, Error, ErrorKind, RunReport, Stop, board, check,
    config::Flags,
    doctor,
    enrol::{self, EnrolFlags, RenewFlags},
    power, run, settings, status,
};
use narrows_service::{ManualFlags, Origin, ParseError, Parsed, Settings, sample};
use tracing_subscriber::{filter::Targets, prelude::*};

const EXAMPLES: &str = "\
Examples:
  Classify and segment one photo, with pictures in out/:
    narrows-head run --bundle models/bundles/lite2 --server tail.local:7461 \\
        --identity certs/pi --source cat.jpg --out out

  Classify a folder of photos at the coarsest level:
    narrows-head run … --source photos/ --tasks classify --level 4

  Let the server run the whole network, on a JPEG of the network's input:
    narrows-head run … --source photos/ --path image --quality 50

  Answer without a server, with the bundle's local network:
    narrows-head run --bundle models/bundles/lite2 --path local --source cat.jpg

  Answer here what the local network is sure of, and send the rest:
    narrows-head run … --source photos/ --tasks classify --exit auto

  Send nothing while the picture stands still:
    narrows-head run … --source frames/ --gate auto

  Measure latency one frame at a time, a hundred times:
    narrows-head run … --source cat.jpg --in-flight 1 --repeat 100 | jq .ms.total

  Publish answers to a broker, where Home Assistant finds the device, and keep them in a file:
    narrows-head run … --lines answers.jsonl --mqtt mqtt://broker.local --mqtt-user gate \\
        --mqtt-password-file password

  Show live pictures, answers and figures to a browser on this device, at http://127.0.0.1:8080/:
    narrows-head run … --page 127.0.0.1:8080

  Run without end on photos that another program writes into a FIFO, one for each time that it opens it:
    mkfifo photos.fifo
    narrows-head run … --source photos.fifo --repeat 0

  A camera of the Raspberry Pi, two frames a second, and one on the network (docs/cameras.md has every kind):
    narrows-head run … --fps 2 --source 'front=rpicam:--width 1280 --height 720' \\
        --source 'yard=ffmpeg:rtsp://192.168.1.20/stream1'

  All of it from a file, as a service does:
    narrows-head run --config head.toml

  A stream of JPEG pictures from another program:
    another-program | narrows-head run … --source -

Standard output has one JSON line for each frame, in the order of the answers (see --lines).
Everything else goes to standard error.
In names of files a backslash is written as \\\\, and bytes that are not UTF-8 and control
characters as \\xNN.

Exit codes:
    0  every frame was answered, by the server or on this device, or the reader of standard output closed it
    1  some frames got no answer: not an image, refused, or out of time
    2  a flag has a wrong value
    3  the bundle is missing, damaged, or not the server's
    4  the identity is missing, damaged, or not trusted
    5  the source holds no images
    6  the server could not be reached, was lost for good, or refused
    7  this device failed: a result could not be written, or no socket could be opened
  130  interrupted (SIGINT); 143 terminated (SIGTERM)";

const POWER_EXAMPLES: &str = "\
Examples:
  What can be measured on this device, and what permissions are missing:
    narrows-head power

  The joules of a run, net of what the device takes when idle:
    narrows-head power -- narrows-head run --bundle lite2 --server tail.local:7461 \\
        --identity pi --source photos/

  Half a minute of whatever runs, as JSON:
    narrows-head power --seconds 30 --json | jq .total

  A USB meter that records to a CSV file: start its recording, then
    narrows-head power --marker --json -- COMMAND > run.json
    narrows-head power --meter recording.csv --run run.json

Joules of a rail are those of the time that readings cover; what is missing is named. Figures of estimated rails are sums
or fits, not measurements.

Exit codes:
    0  everything was measured
    1  nothing can be measured, part of the run is missing, or the command failed
    2  a flag or a recording cannot be understood
    7  this device failed
  130  interrupted (SIGINT), 143 terminated (SIGTERM): what was measured until then is printed, marked interrupted";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  This device and its bundle:
    narrows-head doctor --bundle lite2

  And the way to the tail:
    narrows-head doctor --bundle lite2 --server tail.local:7461 --identity pi

  What is not ok, for a script:
    narrows-head doctor … --json | jq '.checks[] | select(.state != \"ok\")'

Exit codes:
    0  nothing failed
    1  something failed
    2  a flag cannot be understood";

const BOARD_EXAMPLES: &str = "\
Examples:
  What a frame costs on this device, in three minutes:
    narrows-head board --bundle lite2

  An hour, to see what heat does to it, and the answers of a server:
    narrows-head board --bundle lite2 --seconds 3600 --server tail.local:7461 --identity pi

board.json has every figure, board.html shows them. Neither names this device or its user; with --server
the address is in them.

Exit codes:
    0  everything was measured
    1  a check failed; both files say which
    2  a flag cannot be understood
    3  the bundle is missing or damaged
    7  this device failed
  130  interrupted (SIGINT), 143 terminated (SIGTERM): what was measured until then is written, marked interrupted";

const CHECK_EXAMPLES: &str = "\
Examples:
  Before a service is started:
    narrows-head check --config head.toml && systemctl restart narrows-head

  What is wrong, for a script:
    narrows-head check --config head.toml --json | jq '.checks[] | select(.state == \"failed\")'

Nothing is started and nobody is connected to; `narrows-head doctor` looks for the server.

Exit codes:
    0  a run with these settings can begin
    1  something would keep it from beginning; each line says what and what to do
    2  the file or a flag cannot be understood; each line names file, line and key";

const STATUS_EXAMPLES: &str = "\
Examples:
  How the service is doing:
    narrows-head status

  Whether it has worked on a frame in the last minute, for a script:
    narrows-head status --max-age 60 --json > status.json || systemctl restart narrows-head

Exit codes:
    0  it runs and answers
    1  it does not run, does not answer within two seconds, or its last outcome is older than --max-age
    2  a flag cannot be understood";

const ENROL_EXAMPLES: &str = "\
Examples:
  On the server:
    narrows-tail enrol token pi-kitchen --dir certs

  Here, with the token that was printed:
    narrows-head enrol --server tail.local --token narrows1_… --identity pi

  The same without the token in the list of processes, on a device with the package:
    sudo -u narrows-head narrows-head enrol --server tail.local --token-file - \\
        --identity /var/lib/narrows-head/identity

The private key is made here and never leaves this device. Its fingerprint is printed, for the operator to compare. By the token this
device knows the server: nobody in between can pose as it.

Exit codes:
    0  the identity is complete
    2  a flag or the token cannot be understood
    4  there is an identity, or the server is not the one that the token is of
    6  the server cannot be reached, or gives no certificate
    7  the folder cannot be written";

const RENEW_EXAMPLES: &str = "\
Examples:
  Now, and not when a third of the certificate's life is left:
    narrows-head renew --identity pi

  A device whose identity was copied:
    narrows-head renew --identity pi --server tail.local

A new private key is made here. A head that runs takes the new identity within half a minute, for its next connection.

Exit codes:
    0  the identity was renewed
    2  a flag cannot be understood
    4  the identity is missing, damaged, revoked or not trusted
    6  the server cannot be reached, or gives no certificate
    7  the folder cannot be written";

const CONFIG_EXAMPLES: &str = "\
Example:
  Begin a file of settings, and say where it is wrong:
    narrows-head config > head.toml
    narrows-head check --config head.toml";

/// How long standard error is given to take the last words.
const PATIENCE: Duration = Duration::from_millis(200);

/// Run the first layers of a network on this device and the rest on a server
#[derive(Parser)]
#[command(name = "narrows-head", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log more on standard error; RUST_LOG, if set, selects what is logged
    #[arg(long, short, global = true, display_order = 100, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Classify or segment images and print a JSON line for each
    #[command(after_help = EXAMPLES)]
    Run(Box<Flags>),
    /// Say what is wrong with a configuration file, the bundle, certificates, sources and sinks, without starting
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Box<check::Flags>),
    /// Print a configuration file with every key, its meaning and its default
    #[command(after_help = CONFIG_EXAMPLES)]
    Config,
    /// Ask a running head how it is doing: server, frames, sources, sinks, temperature
    #[command(after_help = STATUS_EXAMPLES)]
    Status(status::Flags),
    /// Get this device its certificate from a server, with a token
    #[command(after_help = ENROL_EXAMPLES)]
    Enrol(EnrolFlags),
    /// Renew this device's certificate now
    #[command(after_help = RENEW_EXAMPLES)]
    Renew(RenewFlags),
    /// Write man pages and shell completions, for packages
    #[command(hide = true)]
    Manual(ManualFlags),
    /// Measure joules: list the sensors, or measure a command or a span of time
    #[command(after_help = POWER_EXAMPLES)]
    Power(Box<power::Flags>),
    /// Check this device, its bundle and the connection to the server
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(Box<doctor::Flags>),
    /// Measure what a frame costs on this device, stage by stage and over minutes
    #[command(after_help = BOARD_EXAMPLES)]
    Board(Box<board::Flags>),
}

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let Parsed { cli, settings } = match parsed(&argv) {
        Ok(parsed) => parsed,
        Err(ParseError::Usage(error)) => error.exit(),
        Err(ParseError::Settings(error)) => {
            print(format!("narrows-head: {}", Chain(&error)));
            return ExitCode::from(2);
        }
    };
    let level = match cli.verbose {
        // The head says in its own words what the system reports about sockets.
        0 => "warn,quinn_udp=error",
        1 => "warn,quinn_udp=error,narrows_head=debug,narrows_wire=debug",
        _ => "debug",
    };
    let asked = std::env::var_os("RUST_LOG");
    let filter = asked.as_ref().and_then(|filter| filter.to_str()?.parse::<Targets>().ok());
    let is_unknown = filter.is_none();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .finish()
        .with(filter.unwrap_or_else(|| level.parse().expect("the levels above are filters")))
        .init();
    if let Some(asked) = asked.filter(|_| is_unknown) {
        tracing::warn!(
            "RUST_LOG={asked:?} is no list of levels such as info,narrows_head=debug; it is not used"
        );
    }
    let done = match cli.command {
        Command::Run(flags) => {
            let origin = settings.clone().map(|settings| origin(argv, settings));
            run(&flags, origin).map(|report| finish(&report, settings.as_ref()))
        }
        Command::Check(flags) => check::check(&flags, settings.as_ref()).map(ExitCode::from),
        Command::Config => {
            let text = sample(&Cli::command(), "run", &settings::LAYOUT, settings::INTRO);
            let place = "standard output".to_owned();
            narrows_service::print(&text)
                .map(|()| ExitCode::SUCCESS)
                .map_err(|source| Error::Output { place, source })
        }
        Command::Status(flags) => {
            let command = Cli::command();
            let keys = command.find_subcommand("run").unwrap_or(&command);
            // What else is wrong with the file is not asked here, and may be why the state is.
            let read = |file| Settings::read_in_part(file, keys, &settings::LAYOUT);
            match flags.config.as_deref().map(read).transpose().map(Option::unzip) {
                Ok((settings, _)) => status::status(&flags, settings.as_ref()).map(ExitCode::from),
                Err(error) => {
                    print(format!("narrows-head: {}", Chain(&error)));
                    return ExitCode::from(2);
                }
            }
        }
        Command::Manual(folders) => narrows_service::manual(&Cli::command(), &folders)
            .map(|()| ExitCode::SUCCESS)
            .map_err(|source| Error::Output { place: folders.man.display().to_string(), source }),
        Command::Enrol(flags) => enrol::enrol(&flags).map(|()| ExitCode::SUCCESS),
        Command::Renew(flags) => enrol::renew(&flags).map(|()| ExitCode::SUCCESS),
        Command::Power(flags) => power::power(&flags).map(ExitCode::from),
        Command::Doctor(flags) => doctor::doctor(&flags).map(ExitCode::from),
        Command::Board(flags) => board::board(&flags).map(ExitCode::from),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            print(format!("narrows-head: {}", settings::describe(settings.as_ref(), &error)));
            ExitCode::from(code(&error))
        }
    }
}

/// Parses the command line, with the configuration file that it names.
fn parsed(argv: &[OsString]) -> Result<Parsed<Cli>, ParseError> {
    narrows_service::parse(argv, &settings::LAYOUT, "run", &["run", "check"])
}

/// How the settings of a run are read again.
fn origin(argv: Vec<OsString>, settings: Settings) -> Origin<Flags> {
    Origin::new(settings, move || {
        let Parsed { cli, settings } = parsed(&argv).map_err(|error| error.reason())?;
        match (cli.command, settings) {
            (Command::Run(flags), Some(settings)) => Ok((*flags, settings)),
            _ => Err("the command line is no run with a file".to_owned()),
        }
    })
}

/// Prints the summary and the error of a run and chooses its exit code.
fn finish(report: &RunReport, settings: Option<&Settings>) -> ExitCode {
    if report.stop == Some(Stop::Unread) {
        return ExitCode::SUCCESS;
    }
    let error = report.error.as_ref().map(|error| settings::describe(settings, error));
    let error = error.map(|error| format!("\nnarrows-head: {error}"));
    print(format!("{}{}", report.summary, error.unwrap_or_default()));
    ExitCode::from(match (report.stop, &report.error) {
        (Some(Stop::Interrupt), _) => 130,
        (Some(_), _) => 143,
        (None, Some(error)) => code(error),
        (None, None) if report.summary.complete() => 0,
        (None, None) => 1,
    })
}

/// Writes to standard error, unless nobody reads it. It may be closed as well; the exit code still reports the outcome.
fn print(text: String) {
    let (done, written) = mpsc::channel();
    let write = |text: &str| {
        let _ = writeln!(std::io::stderr(), "{text}");
    };
    let copy = text.clone();
    let writer = move || {
        write(&copy);
        let _ = done.send(());
    };
    match thread::Builder::new().spawn(writer) {
        Ok(_) => drop(written.recv_timeout(PATIENCE)),
        // Where no thread may be started, there is nothing for it but to wait.
        Err(_) => write(&text),
    }
}

fn code(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Frame => 1,
        ErrorKind::Usage => 2,
        ErrorKind::Bundle => 3,
        ErrorKind::Identity => 4,
        ErrorKind::Source => 5,
        ErrorKind::Server => 6,
        _ => 7,
    }
}
