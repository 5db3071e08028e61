//! What all connections share.
#![expect(
    clippy::disallowed_methods,
    reason = "lines of the log are limited per period, and load is that of a time"
)]

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use narrows_wire::{
    Close, Standing,
    quic::{Tuning, close},
};
use quinn::Connection;
use tokio::sync::watch;

use super::translate::Usable;
use crate::{
    devices::{Devices, Rights, Scope},
    engine::Engine,
    frontend::{
        admission::Handshakes,
        budget::Budget,
        load::Load,
        log::{Kind, LogLimit},
        metrics::Metrics,
        peers::{self, Limits, Peers},
    },
};

/// Handshakes that may be in progress at once. Each takes about 40 KiB of memory for at most
/// [`HANDSHAKE_TIMEOUT`](narrows_wire::limits::HANDSHAKE_TIMEOUT).
pub(super) const HANDSHAKES: usize = 512;

/// What all connections share.
pub(crate) struct Shared {
    pub(super) engine: Arc<Engine>,
    /// Frames that may be in flight on each connection.
    pub(super) max_in_flight: u16,
    /// The devices' rights.
    devices: watch::Sender<Arc<Devices>>,
    pub(super) tuning: Tuning,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Arc<Budget>,
    pub(super) handshakes: Handshakes,
    pub(super) peers: Arc<Peers<Connection>>,
    pub(super) load: Load,
    /// Address of the server that clients go to when this one shuts down; empty if there is none.
    next: Mutex<String>,
    log: LogLimit,
}

impl Shared {
    /// The state of a front end to `engine`, with at most `max_in_flight` frames in flight on each connection, whose requests
    /// and replies take at most `request_memory` bytes in all. `tuning` is that of the endpoint, `next` the address that
    /// clients go to when the drain begins.
    pub(crate) fn new(
        engine: Arc<Engine>,
        max_in_flight: u16,
        limits: Limits,
        devices: Arc<Devices>,
        request_memory: usize,
        tuning: Tuning,
        next: String,
    ) -> Shared {
        Shared {
            engine,
            max_in_flight,
            devices: watch::Sender::new(devices),
            tuning,
            metrics: Arc::new(Metrics::new(Instant::now())),
            budget: Arc::new(Budget::new(request_memory)),
            handshakes: Handshakes::new(HANDSHAKES),
            peers: Arc::new(Peers::new(limits)),
            load: Load::default(),
            next: Mutex::new(next),
            log: LogLimit::default(),
        }
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The front end's counters.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The memory of requests and replies.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The authenticated connections.
    pub(crate) fn peers(&self) -> &Arc<Peers<Connection>> {
        &self.peers
    }

    /// The rights of a device. `None` if it may not use the server.
    pub(crate) fn rights(&self, name: &str) -> Option<Arc<Rights>> {
        self.devices.borrow().rights(name)
    }

    /// The name of the device that has this token.
    pub(crate) fn name_of(&self, token: &str) -> Option<Arc<str>> {
        self.devices.borrow().name_of(token)
    }

    /// A receiver that is told when the rights of devices change.
    pub(super) fn watch_rights(&self) -> watch::Receiver<Arc<Devices>> {
        self.devices.subscribe()
    }

    /// Gives devices other rights. Connections whose device may use other bundles or tasks than before, or none, are drained.
    pub(crate) fn set_devices(&self, devices: Devices) {
        self.devices.send_replace(Arc::new(devices));
    }

    /// Sets other limits, for connections that come from now on.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.peers.set_limits(limits);
    }

    /// Tells clients that connect from now on where to go when the drain begins.
    pub(crate) fn set_next(&self, next: String) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// The bundles that a device with this scope may use.
    pub(super) fn usable(&self, scope: &Scope) -> Vec<Usable> {
        self.engine.bundles().iter().filter_map(|served| Usable::new(served, scope)).collect()
    }

    /// The number of frames that were accepted and not answered, refused or abandoned.
    pub(super) fn unanswered(&self) -> u64 {
        self.metrics.totals().in_flight()
    }

    /// What a welcome says about this server among others.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            wait: self.load.wait(Instant::now()),
            connections: u32::try_from(self.peers.open()).unwrap_or(u32::MAX),
            next: self.next.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Whether a line of this kind is to be written to the log now.
    pub(crate) fn writes(&self, kind: Kind) -> bool {
        self.log.admit(kind, Instant::now())
    }

    /// Writes how many lines of each kind were left out of the log.
    pub(super) fn log_left_out(&self) {
        for (kind, count) in self.log.take_left_out() {
            tracing::warn!(count, "more {}, not logged one by one", kind.event());
        }
    }
}

impl peers::Connection for Connection {
    fn close(&self, code: Close, reason: &str) {
        close(self, code, reason);
    }
}

/// Returns once the drain has begun.
pub(super) async fn drain_begins(drain: &mut watch::Receiver<bool>) {
    // If the sender is gone, the server is ending too.
    let _ = drain.wait_for(|draining| *draining).await;
}
