//! The command line. Every knob says its default, its unit and what its worst case costs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use narrows_wire::limits::MAX_IN_FLIGHT;

use crate::net::Device;

/// What the process's exit codes mean; part of `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done; every accepted frame was answered
  1  anything else, for example a drain that timed out
  2  wrong usage
  3  a bundle is missing, damaged, unfit, or its test vectors do not come out
  4  certificates are missing, damaged or cannot be written
  5  ONNX Runtime or the device cannot be used
  6  the address cannot be listened on

The log goes to standard error; RUST_LOG sets what is in it (default: info).";

/// What a user types first.
const EXAMPLES: &str = "\
Examples:
  narrows-tail certs init --dir certs --name tail.local
  narrows-tail certs device pi-kitchen --dir certs
  narrows-tail serve --bundle models/bundles/lite2 --listen 0.0.0.0:7461 --identity certs/server";

const CERTS_EXAMPLES: &str = "\
Examples:
  narrows-tail certs init --dir certs --name tail.local --name 10.0.0.7
  narrows-tail certs device pi-kitchen --dir certs
Then copy certs/devices/pi-kitchen to the device; certs/ca.key stays here.";

const SERVE_EXAMPLES: &str = "\
Examples:
  On this machine alone:
    narrows-tail serve --bundle models/bundles/lite2 --listen 127.0.0.1:7461 --identity certs/server

  On a GPU, for heads that send images, too; up to 32 frames in one run:
    narrows-tail serve --bundle models/bundles/lite2 --listen 0.0.0.0:7461 --identity certs/server \\
        --device cuda --offload --batch 32";

/// The server of a split network: features or images in, classes and masks out.
#[derive(Debug, Parser)]
#[command(name = "narrows-tail", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve bundles over QUIC until SIGTERM or SIGINT
    #[command(after_help = format!("{SERVE_EXAMPLES}\n\n{EXIT_CODES}"))]
    Serve(Serve),
    /// Make certificates: a private CA, the server's identity, one identity per device
    #[command(subcommand, after_help = CERTS_EXAMPLES)]
    Certs(Certs),
}

/// `narrows-tail certs`.
#[derive(Debug, Subcommand)]
pub enum Certs {
    /// Make a CA and the server's identity: DIR/ca.pem, DIR/ca.key, DIR/server/{ca,cert,key}.pem
    #[command(
        after_help = "Example:\n  narrows-tail certs init --dir certs --name tail.local --name 10.0.0.7"
    )]
    Init {
        /// Folder for the certificates; nothing in it is overwritten
        #[arg(long)]
        dir: PathBuf,
        /// Name or address by which devices dial the server, besides localhost, 127.0.0.1 and ::1; may be repeated
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<String>,
    },
    /// Make a device's identity: DIR/devices/NAME/{ca,cert,key}.pem
    #[command(after_help = "Example:\n  narrows-tail certs device pi-kitchen --dir certs")]
    Device {
        /// The device's name in the server's log: a-z 0-9 - and dots
        name: String,
        /// Folder of `certs init`
        #[arg(long)]
        dir: PathBuf,
    },
}

/// `narrows-tail serve`.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Bundle to serve; may be repeated
    #[arg(long = "bundle", value_name = "DIR", required = true)]
    pub bundles: Vec<PathBuf>,
    /// UDP address to listen on, for example 0.0.0.0:7461; port 0 lets the system choose
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Folder with ca.pem, cert.pem and key.pem, as `certs init` makes DIR/server
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
    /// Where the networks run: auto, cpu, cuda or cuda:N. cuda that does not work is an error; auto says which it took
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: Device,
    /// Threads of one run on the CPU; 0 takes one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Workers per tail, each with a network of its own; more overlap runs and cost the network's memory each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number(1, 64))]
    pub workers: usize,
    /// Frames that may share one run; the last of a batch waits for all of it
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = number(1, 256))]
    pub batch: usize,
    /// Milliseconds that a frame may wait for company while a worker is free; added to its latency
    #[arg(long, value_name = "MS", default_value = "0", value_parser = millis)]
    pub batch_wait: Duration,
    /// Frames that may wait per tail; the next is refused with a hint when to retry
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = number(1, 65536))]
    pub queue: usize,
    /// Frames in flight per connection; each may hold 4 MiB
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = number(1, MAX_IN_FLIGHT as usize))]
    pub in_flight: usize,
    /// Connections at once; each may hold 8 MiB of unread bytes and its frames in flight
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = number(1, 65536))]
    pub connections: usize,
    /// Serve the whole networks too, for heads that send images (`--path image`); each task loads its reference
    /// network, which costs about its file's size per worker
    #[arg(long)]
    pub offload: bool,
    /// Images decoded at once; each holds up to 300 MiB while it is (16 megapixels, progressive), a fitted one 1 MiB
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = number(1, 64))]
    pub decoders: usize,
    /// Milliseconds that SIGTERM leaves for accepted frames
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = millis)]
    pub drain_timeout: Duration,
    /// ONNX Runtime's library [default: $NARROWS_ORT, then .runtime/libonnxruntime.so here or above]
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
    /// File that gets the address really listened on, once frames are welcome
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// Send packets one by one: for networks that lose segmentation-offload bursts
    #[arg(long)]
    pub no_gso: bool,
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

    const LEAST: [&str; 8] =
        ["narrows-tail", "serve", "--bundle", "b", "--listen", "127.0.0.1:0", "--identity", "id"];

    fn serve(more: &[&str]) -> Result<Serve, String> {
        let cli = Cli::try_parse_from(LEAST.iter().chain(more)).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Serve(serve) => Ok(serve),
            Command::Certs(_) => Err("certs".into()),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_do_not_wait() {
        let serve = serve(&[]).unwrap();
        assert_eq!((serve.batch, serve.batch_wait, serve.queue), (8, Duration::ZERO, 64));
        assert_eq!((serve.device, serve.threads, serve.workers), (Device::Auto, 0, 1));
        assert_eq!(serve.drain_timeout, Duration::from_secs(10));
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (knob, value) in [
            ("--batch", "0"),
            ("--batch", "257"),
            ("--queue", "0"),
            ("--workers", "0"),
            ("--in-flight", "257"),
            ("--batch-wait", "-1"),
            ("--batch-wait", "NaN"),
            ("--device", "gpu"),
        ] {
            let error = serve(&[&format!("{knob}={value}")]).unwrap_err();
            assert!(error.contains(knob) && error.contains(value), "{error}");
        }
        assert_eq!(serve(&["--batch-wait", "2.5"]).unwrap().batch_wait, Duration::from_micros(2500));
        assert_eq!(serve(&["--device", "cuda:1"]).unwrap().device, Device::Cuda(1));
    }

    #[test]
    fn help_tells_the_exit_codes() {
        let help = Cli::command().render_help().to_string();
        assert!((0..=6).all(|code| help.contains(&format!("\n  {code}  "))), "{help}");
    }
}
