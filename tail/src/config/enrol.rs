//! The flags of enrolment, and the command `narrows-tail enrol`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::{Listen, number};

const TOKEN_EXAMPLES: &str = "\
Examples:
  A device of this name, within an hour:
    narrows-tail enrol token pi-kitchen --dir certs

  One of several, whose name is chosen on the device, until tomorrow:
    narrows-tail enrol token 'cam-*' --valid 1d --dir certs

The token is printed once, to standard output; the server keeps a digest of it. On the device:
    narrows-head enrol --server HOST --token TOKEN --identity pi-kitchen";

const LIST_EXAMPLES: &str = "\
Examples:
  narrows-tail enrol list --dir certs
  narrows-tail enrol list --dir certs --json | jq '.requests[] | select(.state == \"pending\")'";

const APPROVE_EXAMPLES: &str = "\
Examples:
  narrows-tail enrol approve pi-kitchen --dir certs
  narrows-tail enrol approve sha256:1f0c22ab --dir certs

Compare the fingerprint in the list with the one that the device prints first.";

const REJECT_EXAMPLES: &str = "Example:\n  narrows-tail enrol reject pi-kitchen --dir certs";

/// Seconds of the longest life of a certificate that is enrolled: ten years, as the CA.
const LONGEST: u64 = 3650 * 86_400;

/// Enrolment of devices over the network.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Enrolment")]
pub struct Enrol {
    /// UDP address at which devices get their certificates, for example 0.0.0.0:7463 (docs/enrolment.md). Strangers reach it; they
    /// take no place of devices that send frames, and learn nothing without a token [default: nobody is enrolled]
    #[arg(id = "enrol", long = "enrol", value_name = "HOST:PORT", requires = "enrol_ca")]
    pub listen: Option<Listen>,
    /// Folder of the CA that signs, as `certs init` made it: with ca.pem and ca.key. Whoever breaks into this server can then make
    /// devices
    #[arg(id = "enrol_ca", long = "enrol-ca", value_name = "DIR", requires = "enrol")]
    pub ca: Option<PathBuf>,
    /// Who lets a device in: its token alone, or an operator besides, with `narrows-tail enrol approve`
    #[arg(
        id = "enrol_approval", long = "enrol-approval", value_name = "BY", value_enum, default_value_t = Approval::Token
    )]
    pub approval: Approval,
    /// For how long certificates are valid: a number with s, m, h or d. Devices renew theirs by themselves when a third of it is left
    #[arg(id = "enrol_valid", long = "enrol-valid", value_name = "SPAN", default_value = "365d", value_parser = span)]
    pub valid: Duration,
    /// Attempts a minute from one network (an IPv4 address, or 64 bits of an IPv6 one); in all ten times as many are answered
    #[arg(
        id = "enrol_rate", long = "enrol-rate", value_name = "N", default_value_t = 60, value_parser = number(1, 10_000)
    )]
    pub rate: usize,
}

/// Who lets a device in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Approval {
    /// Its token alone.
    #[default]
    Token,
    /// An operator besides.
    Operator,
}

/// `narrows-tail enrol`.
#[derive(Debug, Subcommand)]
pub enum EnrolCommand {
    /// Make a token with which one device gets its certificate, once
    #[command(after_help = TOKEN_EXAMPLES)]
    Token {
        /// Name of the device in its certificate, or a pattern of names with * and ?, of which the device chooses one that is free
        #[arg(value_name = "NAME|PATTERN")]
        names: String,
        /// Folder that `certs init` wrote, which the server was given as --enrol-ca
        #[arg(long)]
        dir: PathBuf,
        /// For how long it can be used: a number with s, m, h or d
        #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = span)]
        valid: Duration,
    },
    /// List tokens and the devices that have asked, with the fingerprints of their keys
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Folder that `certs init` wrote, which the server was given as --enrol-ca
        #[arg(long)]
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a device in that waits: sign its certificate
    #[command(after_help = APPROVE_EXAMPLES)]
    Approve {
        /// Name of the device, or at least 8 digits of the fingerprint of its key
        #[arg(value_name = "NAME|KEY")]
        which: String,
        /// Folder that `certs init` wrote, which the server was given as --enrol-ca
        #[arg(long)]
        dir: PathBuf,
        /// For how long its certificate is valid: a number with s, m, h or d
        #[arg(long, value_name = "SPAN", default_value = "365d", value_parser = span)]
        valid: Duration,
    },
    /// Refuse a device that waits
    #[command(after_help = REJECT_EXAMPLES)]
    Reject {
        /// Name of the device, or at least 8 digits of the fingerprint of its key
        #[arg(value_name = "NAME|KEY")]
        which: String,
        /// Folder that `certs init` wrote, which the server was given as --enrol-ca
        #[arg(long)]
        dir: PathBuf,
    },
}

/// A time span such as 30m.
fn span(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let found = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*seconds)
    });
    match found {
        Some(seconds) if (1..=LONGEST).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be a number with s, m, h or d, from 1s to 3650d, for example 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit() {
        for (text, seconds) in [("1s", 1), ("30m", 1800), ("1h", 3600), ("365d", 31_536_000)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "1", "h", "-1h", "0s", "1.5h", "3651d", "99999999999999999999d", "1w"] {
            assert!(span(text).unwrap_err().contains("1h"), "{text}");
        }
    }
}
