//! `narrows-head doctor`: checks this device, its bundle and the connectivity to the tail, one line per check.
#![expect(
    clippy::disallowed_methods,
    reason = "the head is timed here, and certificates are compared with the clock"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use narrows_models::{Bundle, Parts, TaskKind};
use narrows_power::{Places, discover};
use narrows_wire::{
    BundleId, Query, TaskRequest,
    identity::Identity,
    quic::{SetupError, Tuning, client_fault},
};

use self::connectivity::Sample;
use crate::{
    Chain, Error, Head, config, limits,
    uplink::{Access, Connector},
};

pub(crate) mod check;
mod clocks;
mod conform;
mod connectivity;
mod cpu;
mod identity;
mod sockets;

pub use narrows_service::{Check, Checks, State};

/// Time for which the head is run to measure its speed.
const TRIAL: Duration = Duration::from_secs(2);

/// The flags of `narrows-head doctor`, as typed.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// Folder of the bundle
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,

    /// The tail to look for: a name in its certificate and a port, for example tail.local:7461 or [fe80::1%eth0]:7461; may be given
    /// several times
    #[arg(long, value_name = "HOST:PORT", requires = "identity")]
    pub server: Vec<String>,

    /// Folder with ca.pem, cert.pem and key.pem of this device
    #[arg(long, value_name = "DIR")]
    pub identity: Option<PathBuf>,

    /// Print JSON instead of lines
    #[arg(long)]
    pub json: bool,

    /// Where sysfs is mounted; in a container the host's may be elsewhere
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sys: PathBuf,
}

/// Runs every check, prints the checks and returns the exit code: 1 if one failed.
///
/// # Errors
/// [`Error::Usage`] for a server that cannot be parsed, [`Error::Output`] if standard output cannot be written.
pub fn doctor(flags: &Flags) -> Result<u8, Error> {
    print(&examine(flags)?, flags.json)
}

/// Runs every check.
///
/// # Errors
/// [`Error::Usage`] for a server that cannot be parsed.
pub(crate) fn examine(flags: &Flags) -> Result<Checks, Error> {
    let servers = match flags.server.is_empty() {
        true => Vec::new(),
        false => config::servers(&flags.server)?,
    };
    let places = Places { sys: flags.sys.clone(), ..Places::default() };
    let sensors = discover(&places);
    let mut checks = Checks::default();

    match limits::check() {
        Ok(()) => checks.push(Check::ok("limits", "enough descriptors, memory and threads for a run")),
        Err(error) => {
            // The other checks need no less than a run.
            let remedy = "Raise the limit for this user or service; `ulimit -a` lists what this shell gives";
            checks.push(Check::failed("limits", Chain(&error).to_string(), remedy));
            return Ok(checks);
        }
    }
    checks.push(cpu::processor(&places.sys, sensors.board.as_deref()));
    checks.push(cpu::kernels(narrows_int8::Isa::detect()));
    let (bundle, sample) = bundle(flags, &mut checks).unzip();
    checks.extend(clocks::clocks(&places.sys));
    checks.extend(clocks::heat(&places.sys));
    checks.extend(clocks::throttled(sensors.board.as_deref(), &places.vcgencmd));
    checks.extend(check::sensors(&sensors));
    checks.extend(sockets::buffers(std::path::Path::new("/proc/sys/net/core")));
    let identity = flags.identity.as_deref().and_then(|folder| identity(folder, &mut checks));
    match (identity, bundle) {
        _ if servers.is_empty() => {}
        (Some(identity), Some(bundle)) => {
            let id = BundleId(*bundle.digest().bytes());
            let tasks = bundle.tasks().iter().map(|task| task.name.clone()).collect();
            match Access::new(identity, Tuning::default(), id, tasks).map(Arc::new) {
                Ok(access) => {
                    let (several, sample) = (servers.len() > 1, sample.flatten());
                    for server in servers {
                        if several {
                            checks.push(Check::ok("server", server.to_string()));
                        }
                        let connector = Connector::new(server, &access);
                        checks.extend(connectivity::connectivity(&connector, sample.clone()));
                    }
                }
                Err(error) => {
                    checks.push(Check::failed("tail", Chain(&error).to_string(), identity::MAKE));
                }
            }
        }
        _ => servers.iter().for_each(|server| {
            checks.push(Check::failed(
                "tail",
                format!("{server} was not looked for: that needs the bundle and the identity"),
                "Mend the lines above first",
            ));
        }),
    }
    Ok(checks)
}

/// Prints the checks and returns the exit code: 1 if one failed.
///
/// # Errors
/// [`Error::Output`] if standard output cannot be written.
pub(crate) fn print(checks: &Checks, json: bool) -> Result<u8, Error> {
    let unwritten = |source| Error::Output { place: "standard output".to_owned(), source };
    checks.print(json).map_err(unwritten)?;
    Ok(u8::from(checks.failed()))
}

/// What helps where the bundle in a folder cannot be opened.
pub(crate) fn bundle_remedy(folder: &Path) -> &'static str {
    match folder.join("manifest.toml").is_file() {
        true => "Copy the bundle folder again from where it was made",
        false => "Give --bundle the folder that holds manifest.toml, and check that this user may read it",
    }
}

/// Checks the identity's files and dates; returns the identity if a connection can be tried with it.
pub(crate) fn identity(folder: &Path, checks: &mut Checks) -> Option<Identity> {
    let usable = Identity::load(folder).map_err(SetupError::from);
    let usable = usable.and_then(|identity| Ok((client_fault(&identity)?, identity)));
    match usable {
        Ok((fault, identity)) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            checks.extend(identity::dates(identity.validity(), now.as_secs() as i64));
            checks.extend(fault.and_then(|fault| identity::fault(&fault)));
            Some(identity)
        }
        Err(error) => {
            checks.push(Check::failed("identity", Chain(&error).to_string(), identity::remedy(&error)));
            None
        }
    }
}

/// Checks digests, the speed of the head and the vectors; returns the bundle if it can be used, and a packet for the tail.
fn bundle(flags: &Flags, checks: &mut Checks) -> Option<(Bundle, Option<Sample>)> {
    let bundle = match Bundle::open(&flags.bundle, Parts::Head) {
        Ok(bundle) => bundle,
        Err(error) => {
            checks.push(Check::failed("bundle", Chain(&error).to_string(), bundle_remedy(&flags.bundle)));
            return None;
        }
    };
    checks.push(check::bundle(&bundle));
    let mut head = match Head::open(bundle.clone()) {
        Ok(head) => head,
        Err(error) => {
            checks.push(Check::failed(
                "head",
                Chain(&error).to_string(),
                "Install a bundle that this version of narrows can run",
            ));
            return None;
        }
    };
    let began = Instant::now();
    let (speed, packet) = cpu::speed(&mut head, || began.elapsed() < TRIAL);
    checks.push(speed);
    checks.push(conform::conform(&bundle));
    checks.extend(conform::conform_local(&bundle));
    let sample = packet.zip(bundle.tasks().first()).map(|(packet, task)| {
        let query = match task.kind {
            TaskKind::Classify => Query::Classify { top_k: 1 },
            TaskKind::Segment => Query::Segment { size: None },
        };
        Sample { packet, task: TaskRequest { task: 0, query } }
    });
    Some((bundle, sample))
}
