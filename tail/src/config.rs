//! The command line. Every option states its default, its unit and its worst-case cost.

mod bundles;
mod enrol;
mod listen;
mod oip;
mod signing;
mod status;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use narrows_service::ManualFlags;
use narrows_wire::{
    identity::is_server_name,
    limits::{MAX_IMAGE_PIXELS, MAX_IN_FLIGHT},
};

pub use self::{
    bundles::{Bundles, Load, WarmUp},
    enrol::{Approval, Enrol, EnrolCommand},
    listen::Listen,
    oip::Oip,
    signing::BundleCommand,
    status::Status,
};
use crate::engine::{BatchLimits, Device, Options};

/// Most threads of one run. More than a machine has cores make a run slower.
const THREADS_MAX: usize = 256;
/// Most threads of all workers of one network.
const WORKER_THREADS_MAX: usize = 1024;

/// The meaning of the exit codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done; every accepted frame was answered
  1  anything else, for example a drain that timed out
  2  wrong usage
  3  a bundle is missing, damaged or cannot be served, or its test vectors fail
  4  certificates are missing, damaged or cannot be written
  5  ONNX Runtime or the device cannot be used
  6  the server cannot listen on the address

The log is written to standard error; RUST_LOG sets its level (default: info).";

const CHECK_EXAMPLES: &str = "\
Examples:
  Before a server is started or restarted:
    narrows-tail check --config tail.toml && systemctl restart narrows-tail

  And whether the networks load and answer their test vectors:
    narrows-tail check --config tail.toml --networks

Exit codes:
  0  a server with these settings can start
  1  something would keep it from starting; each line says what and what to do
  2  the file or a flag cannot be understood; each line names file, line and key";

const CONFIG_EXAMPLES: &str = "\
Example:
  narrows-tail config > tail.toml
  narrows-tail check --config tail.toml";

/// Examples for `--help`.
const EXAMPLES: &str = "\
Examples:
  narrows-tail certs init --dir certs --name tail.local
  narrows-tail certs device pi-kitchen --dir certs
  narrows-tail serve --bundle models/bundles/lite2 --listen 0.0.0.0:7461 --identity certs/server
  narrows-tail serve --config tail.toml";

const CERTS_EXAMPLES: &str = "\
Examples:
  narrows-tail certs init --dir certs --name tail.local --name 10.0.0.7
  narrows-tail certs device pi-kitchen --dir certs
  narrows-tail certs list --dir certs

  Before an end:
    narrows-tail certs server --dir certs
    narrows-tail certs renew pi-kitchen --dir certs

  A device that was lost:
    narrows-tail certs revoke pi-kitchen --dir certs

Copy certs/server to the server and certs/devices/pi-kitchen to the device. Keep certs/ca.key offline: whoever has it signs
devices. docs/certificates.md has more.";

const ENROL_EXAMPLES: &str = "\
Examples:
  On the server, whose settings have --enrol 0.0.0.0:7463 --enrol-ca certs:
    narrows-tail enrol token pi-kitchen --dir certs

  On the device, with the token that was printed:
    narrows-head enrol --server HOST --token TOKEN --identity pi-kitchen

  With --enrol-approval operator the device waits for:
    narrows-tail enrol approve pi-kitchen --dir certs

The device's private key is made on the device and stays there. docs/enrolment.md has more.";

const SERVE_EXAMPLES: &str = "\
Examples:
  For clients on this machine:
    narrows-tail serve --bundle models/bundles/lite2 --listen 127.0.0.1:7461 --identity certs/server

  On a GPU, with up to 32 frames per batch, also for heads that send images:
    narrows-tail serve --bundle models/bundles/lite2 --listen 0.0.0.0:7461 --identity certs/server \\
        --device cuda --offload --batch 32";

/// The server of a split network: it receives features or images and answers with classes and masks.
#[derive(Debug, Parser)]
#[command(name = "narrows-tail", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve bundles over QUIC until SIGTERM or SIGINT
    #[command(after_help = format!("{SERVE_EXAMPLES}\n\n{EXIT_CODES}"))]
    Serve(Box<Serve>),
    /// Say what is wrong with a configuration file, certificates, addresses and bundles, without serving
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Box<Check>),
    /// Print a configuration file with every key, its meaning and its default
    #[command(after_help = CONFIG_EXAMPLES)]
    Config,
    /// Write man pages and shell completions, for packages
    #[command(hide = true)]
    Manual(ManualFlags),
    /// Make, renew, revoke and list certificates: a private CA, the server's identity, and an identity for each device
    #[command(subcommand, after_help = CERTS_EXAMPLES)]
    Certs(Certs),
    /// Let devices get their certificates over the network: tokens, the list of devices that ask, approval
    #[command(subcommand, after_help = ENROL_EXAMPLES)]
    Enrol(EnrolCommand),
    /// Sign bundles, and verify their signatures
    #[command(subcommand, after_help = signing::EXAMPLES)]
    Bundle(BundleCommand),
}

/// `narrows-tail certs`.
#[derive(Debug, Subcommand)]
pub enum Certs {
    /// Make a CA and the server's identity: DIR/ca.pem, DIR/ca.key and DIR/server/{ca,cert,key}.pem
    #[command(
        after_help = "Example:\n  narrows-tail certs init --dir certs --name tail.local --name 10.0.0.7"
    )]
    Init {
        /// Folder for the certificates; existing files are never overwritten
        #[arg(long)]
        dir: PathBuf,
        /// Name or address by which devices connect to the server, in addition to localhost, 127.0.0.1 and ::1; may be
        /// repeated
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<String>,
    },
    /// Make a device's identity: DIR/devices/NAME/{ca,cert,key}.pem
    #[command(after_help = "Example:\n  narrows-tail certs device pi-kitchen --dir certs")]
    Device {
        /// Name of the device in the server's log: 1 to 63 characters of a-z 0-9 -, with dots between parts
        name: String,
        /// Folder that `certs init` wrote
        #[arg(long)]
        dir: PathBuf,
    },
    /// Renew the server's certificate: its names stay, --name adds another, and the CA and the key are the same
    #[command(
        after_help = "Example:\n  narrows-tail certs server --dir certs --name tail.example\nThe private key need not be in \
                      DIR/server: copy the new cert.pem beside it. A running server reads it at once."
    )]
    Server {
        /// Folder that `certs init` wrote
        #[arg(long)]
        dir: PathBuf,
        /// Name or address to add; may be repeated
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<String>,
        /// Make a new private key too
        #[arg(long)]
        new_key: bool,
    },
    /// Renew a device's certificate; its key is the same
    #[command(
        after_help = "Example:\n  narrows-tail certs renew pi-kitchen --dir certs\nThe private key need not be in \
                      DIR/devices/NAME: copy the new cert.pem beside it."
    )]
    Renew {
        /// Name of the device
        name: String,
        /// Folder that `certs init` wrote
        #[arg(long)]
        dir: PathBuf,
        /// Make a new private key too
        #[arg(long)]
        new_key: bool,
    },
    /// Revoke all certificates of a device: writes DIR/crl.pem, and DIR/server/crl.pem where the server reads it
    #[command(
        after_help = "Example:\n  narrows-tail certs revoke pi-kitchen --dir certs\nA running server refuses the device and closes \
                      its connections within a second of the change of the crl.pem in its identity folder."
    )]
    Revoke {
        /// Name of the device
        name: String,
        /// Folder that `certs init` wrote
        #[arg(long)]
        dir: PathBuf,
    },
    /// List the CA and the certificates that it has signed, with their ends; needs no key
    #[command(
        after_help = "Example:\n  narrows-tail certs list --dir certs --json | jq '.[] | select(.state != \"valid\")'"
    )]
    List {
        /// Folder that `certs init` wrote
        #[arg(long)]
        dir: PathBuf,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
}

/// `narrows-tail check`.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// The flags of the server that is checked.
    #[command(flatten)]
    pub serve: Serve,
    /// Load every network and have it answer its test vectors as well; takes as much memory as serving
    #[arg(long)]
    pub networks: bool,
    /// Print JSON instead of lines
    #[arg(long)]
    pub json: bool,
}

/// `narrows-tail serve`.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// File of settings (TOML), whose keys are the other flags of this command; a flag given here counts more, and paths in the
    /// file are relative to it. `narrows-tail config` prints one with every key
    #[arg(long, value_name = "FILE", display_order = 0)]
    pub config: Option<PathBuf>,
    /// UDP address to listen on: an address or a name of this machine and a port, for example 0.0.0.0:7461 or
    /// tail.local:7461; with port 0 the system chooses the port
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Listen,
    /// Folder with ca.pem, cert.pem and key.pem, as `certs init` writes to DIR/server. When a file changes, and on SIGHUP,
    /// they are read again
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
    /// Certificate revocation list, as `certs revoke` writes it. The devices on it are refused and their connections closed
    /// within a second of its change [default: crl.pem in the folder of --identity, if there is one]
    #[arg(long, value_name = "FILE")]
    pub crl: Option<PathBuf>,
    /// Device that the networks run on: cpu, cuda (or cuda:N), or auto. cuda is an error where it does not work; auto
    /// then takes the CPU and logs the reason
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: Device,
    /// Threads of one inference run on the CPU; 0 takes one per core. Each worker has its own
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = number(0, THREADS_MAX))]
    pub threads: usize,
    /// Workers per network, which run batches in parallel; each holds a copy of the network in memory
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(1, 64))]
    pub workers: usize,
    /// Frames that may share one inference run; each waits for the run of the whole batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = number(1, 256))]
    pub batch: usize,
    /// Milliseconds that a frame may wait for others to fill its batch while a worker is free; adds to its latency
    #[arg(long, value_name = "MS", default_value = "0", value_parser = millis)]
    pub batch_wait: Duration,
    /// Frames that may wait for one network, each of which takes up to 0.5 MiB of memory, and images that may wait to be decoded.
    /// Where that many wait, one of the device with the most makes room for one of a device with fewer, and further ones are
    /// refused with a hint when to try again
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = number(1, 65536))]
    pub queue: usize,
    /// Frames that may be in flight on one connection, from the first byte of a request on
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = number(1, MAX_IN_FLIGHT as usize))]
    pub in_flight: usize,
    /// Mebibytes of memory for the requests and replies of all connections, from a request's first byte until it is decoded
    /// and from a reply's encoding until it is sent; one device may take a quarter. Frames beyond are refused with a hint
    /// when to try again
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = number(64, 1 << 20))]
    pub request_memory: usize,
    /// Connections that may be open at once; each may take 16 MiB of memory besides its requests and replies (6 MiB, and
    /// 0.6 MiB per frame in flight), and as many again may be without a hello, each of which may take 0.5 MiB
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = number(1, 65536))]
    pub connections: usize,
    /// Connections that may be open at once with the same certificate name. Where a device has that many, one that no longer
    /// answers is closed in favour of a new one; otherwise the new one is refused
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = number(1, 65536))]
    pub max_connections_per_device: usize,
    /// TOML file with the rights of devices by the names in their certificates: bundles, tasks, images, priority, quotas,
    /// connections (docs/scheduling.md). When it changes, and on SIGHUP, it is read again [default: every device may use
    /// everything]
    #[arg(long, value_name = "FILE")]
    pub devices: Option<PathBuf>,
    /// Serve the unsplit networks as well, for heads that send images (`--path image`): each task's reference network is
    /// loaded, which takes about the size of its file in memory per worker
    #[arg(long)]
    pub offload: bool,
    /// Images that may be decoded at once; each takes up to 300 MiB of memory (16 megapixels, progressive), or 1 MiB if
    /// the head has fitted it
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = number(1, 64))]
    pub decoders: usize,
    /// Milliseconds after SIGTERM or SIGINT in which accepted frames are still answered
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = millis)]
    pub drain_timeout: Duration,
    /// Address of the server that heads go to when this one shuts down, HOST:PORT with a name in its certificate. Heads learn it
    /// when they connect; those that know several servers would find another one anyway
    #[arg(long, value_name = "HOST:PORT", value_parser = next_server)]
    pub next: Option<String>,
    /// ONNX Runtime's library [default: $NARROWS_ORT, otherwise .runtime/libonnxruntime.so in the working folder, in the
    /// executable's folder or in a folder above either]
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
    /// File in which the arrivals of frames and the times of runs are recorded, a JSON object a line, about 200 bytes a frame, for
    /// `narrows-bench schedule`; a file that is there is replaced
    #[arg(long, value_name = "FILE")]
    pub record_arrivals: Option<PathBuf>,
    /// File to which the server writes its address when it is ready for connections
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// Milliseconds of silence after which a connection counts as lost; the shorter time of head and tail counts. Below three
    /// times a head's --keep-alive (3000 by default) its idle connections end; each lost head holds its place and the memory
    /// of its connection for that long
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1000..=600_000))]
    pub idle_timeout: u64,
    /// Turn off UDP segmentation offload (GSO), for networks that lose its bursts of packets
    #[arg(long)]
    pub no_gso: bool,
    /// How a line of the log is written: text, or json, which is one object a line
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// The bundles.
    #[command(flatten)]
    pub bundles: Bundles,
    /// The Open Inference Protocol.
    #[command(flatten)]
    pub oip: Oip,
    /// Health, metrics and the dashboard.
    #[command(flatten)]
    pub status: Status,
    /// Enrolment of devices.
    #[command(flatten)]
    pub enrol: Enrol,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line: `timestamp`, `level` and `fields`, of which `message` is one.
    Json,
}

impl Serve {
    /// Checks what no option shows on its own.
    ///
    /// # Errors
    /// The option, and a text that names the options and the values that they may have.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let threads = self.threads * self.workers;
        if threads > WORKER_THREADS_MAX {
            let text = format!(
                "--threads {} with --workers {} makes {threads} threads for each network; at most {WORKER_THREADS_MAX}",
                self.threads, self.workers
            );
            return Err(("threads", text));
        }
        Ok(())
    }

    /// The settings of the engine.
    #[must_use]
    pub fn engine_options(&self) -> Options {
        Options {
            library: self.runtime.clone(),
            device: self.device,
            threads: self.threads,
            workers: self.workers,
            batch: BatchLimits { size: self.batch, wait: self.batch_wait },
            queue: self.queue,
            bundles: self.bundles.options(),
            unsplit: self.offload,
            decoders: self.decoders,
            max_image_pixels: MAX_IMAGE_PIXELS as u64,
            record_arrivals: self.record_arrivals.clone(),
        }
    }
}

fn number(
    least: usize,
    most: usize,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("must be {least} to {most}")),
    }
}

/// A server's address as heads are given it: a host that a certificate can name, and a port.
fn next_server(text: &str) -> Result<String, String> {
    let host = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    let bare = |host: &str| {
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned()
    };
    match host.map(|(host, _)| bare(host)) {
        Some(host) if is_server_name(&host) => Ok(text.to_owned()),
        _ => Err("must be HOST:PORT, for example tail-b.local:7461 or [fd00::2]:7461".to_owned()),
    }
}

fn millis(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(millis) if (0.0..=3_600_000.0).contains(&millis) => Ok(Duration::from_secs_f64(millis / 1000.0)),
        _ => Err("must be 0 to 3600000 milliseconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const REQUIRED: [&str; 8] =
        ["narrows-tail", "serve", "--bundle", "b", "--listen", "127.0.0.1:0", "--identity", "id"];

    fn serve(more: &[&str]) -> Result<Serve, String> {
        let cli = Cli::try_parse_from(REQUIRED.iter().chain(more)).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Serve(serve) => Ok(*serve),
            _ => Err("another command".into()),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_of_the_engine_and_do_not_wait() {
        let serve = serve(&[]).unwrap();
        assert_eq!((serve.batch, serve.batch_wait, serve.queue), (8, Duration::ZERO, 512));
        assert_eq!((serve.device, serve.threads, serve.workers), (Device::Auto, 0, 1));
        assert_eq!(serve.drain_timeout, Duration::from_secs(10));
        assert_eq!(serve.engine_options(), Options::default());
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (option, value) in [
            ("--batch", "0"),
            ("--batch", "257"),
            ("--queue", "0"),
            ("--workers", "0"),
            ("--threads", "257"),
            ("--threads", "1000000"),
            ("--in-flight", "257"),
            ("--batch-wait", "-1"),
            ("--batch-wait", "NaN"),
            ("--device", "gpu"),
            ("--next", "tail-b"),
            ("--next", "tail-b:0"),
            ("--next", "http://tail-b:7461"),
        ] {
            let error = serve(&[&format!("{option}={value}")]).unwrap_err();
            assert!(error.contains(option) && error.contains(value), "{error}");
        }
        assert_eq!(serve(&["--batch-wait", "2.5"]).unwrap().batch_wait, Duration::from_micros(2500));
        assert_eq!(serve(&["--device", "cuda:1"]).unwrap().device, Device::Cuda(1));
        assert_eq!(serve(&["--next", "[fd00::2]:7461"]).unwrap().next.as_deref(), Some("[fd00::2]:7461"));
        let (_, error) = serve(&["--threads=256", "--workers=64"]).unwrap().check().unwrap_err();
        assert!(error.contains("--threads 256") && error.contains("at most 1024"), "{error}");
        serve(&["--threads=16", "--workers=64"]).unwrap().check().unwrap();
    }

    #[test]
    fn the_help_lists_the_exit_codes() {
        let help = Cli::command().render_help().to_string();
        assert!((0..=6).all(|code| help.contains(&format!("\n  {code}  "))), "{help}");
    }
}
