//! The status of a running server, for people and programs: health, metrics and a dashboard over HTTP on a listener of its own.
//!
//! Everything here reads what the engine and the front ends count; nothing is counted twice. There is no authentication, and
//! nothing can be changed.

mod dashboard;
mod metrics;
mod names;
mod process;
mod server;

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use narrows_wire::identity::{Identity, Validity};
use tokio::sync::watch;

pub(crate) use self::server::{announce, serve};
use crate::{
    engine::Engine,
    frontend::{budget::Budget, metrics::Metrics},
};

/// The state of the server, from its start.
pub(crate) struct Status {
    /// Devices that have metrics of their own.
    named: usize,
    started: Instant,
    started_at: SystemTime,
    certificates: Mutex<Vec<Validity>>,
    served: OnceLock<Served>,
}

/// What is served once the networks are loaded and the server listens.
pub(crate) struct Served {
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) budget: Arc<Budget>,
    /// Tells how many connections may be open.
    pub(crate) connections: Box<dyn Fn() -> usize + Send + Sync>,
    /// Frames that may wait for one network.
    pub(crate) queue: usize,
    /// Becomes true when the drain begins.
    pub(crate) drain: watch::Receiver<bool>,
}

/// What the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It loads and tests the networks.
    Starting,
    /// It answers frames.
    Ready,
    /// It answers the frames that it has accepted, and takes no new ones.
    Draining,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        }
    }
}

impl Status {
    /// The status of a server that starts at this time. The first `named` devices get metrics of their own.
    pub(crate) fn new(named: usize, started: Instant, started_at: SystemTime) -> Status {
        Status { named, started, started_at, certificates: Mutex::default(), served: OnceLock::new() }
    }

    /// Shows the ends of these certificates from now on.
    pub(crate) fn show_certificates(&self, identity: &Identity) {
        // They were read before.
        let ends = identity.validity().unwrap_or_default();
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }

    /// The server answers frames from now on.
    pub(crate) fn ready(&self, served: Served) {
        // A server becomes ready once.
        let _ = self.served.set(served);
    }

    fn phase(&self) -> Phase {
        match self.served.get() {
            None => Phase::Starting,
            Some(served) if *served.drain.borrow() => Phase::Draining,
            Some(_) => Phase::Ready,
        }
    }

    /// What is served, once the server has been ready.
    fn served(&self) -> Option<&Served> {
        self.served.get()
    }

    fn certificates(&self) -> Vec<Validity> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A time of the monotonic clock in seconds since 1970, by the wall clock at the start.
    fn unix(&self, time: Instant) -> f64 {
        let start = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        (start + time.saturating_duration_since(self.started)).as_secs_f64()
    }

    fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }
}
