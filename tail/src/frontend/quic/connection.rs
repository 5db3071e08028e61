//! One connection: the handshake, the hello, one task per frame, and the drain.
#![expect(clippy::disallowed_methods, reason = "the session is given the time")]

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicBool},
    time::Instant,
};

use narrows_models::Digest;
use narrows_wire::{
    Close,
    identity::CertificateInfo,
    quic::{ConnectionEnd, close, peer_chain, peer_name},
    session::{Catalog, Server},
    text::Quoted,
};
use quinn::{Connection, Incoming};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{
    handshake,
    shared::{Shared, drain_begins},
    translate::Offer,
};
use crate::{
    devices::{Devices, Scope},
    frontend::{
        admission::{HandshakePermit, PermitCount},
        log::Kind,
        metrics::DeviceMetrics,
        peers::{Device, NotAccepted, Registration},
    },
};

/// Runs a connection from its handshake to its end.
pub(super) async fn run(
    incoming: Incoming,
    place: HandshakePermit,
    shared: Arc<Shared>,
    mut drain: watch::Receiver<bool>,
) {
    let remote = incoming.remote_address();
    let Some(connection) = handshake::complete(incoming, place, &shared, &mut drain).await else { return };
    let Some(chain) = peer_chain(&connection) else {
        // The handshake does not succeed without a certificate.
        return close(&connection, Close::Violation, "no certificate");
    };
    let device = Device { name: peer_name(&connection), chain };
    let key: Arc<str> = match &device.name {
        Some(name) => name.as_str().into(),
        None => Digest::of(device.key()).to_string().into(),
    };
    let until = device.chain.first().and_then(|own| CertificateInfo::read(own).ok()).map(|own| own.until);
    let name = device.name.clone().unwrap_or_else(|| "without a name".to_owned());
    let registration = match shared.peers.register(device, connection.clone()) {
        Ok(registration) => registration,
        Err(NotAccepted(reason)) => {
            shared.metrics.revoked.add(1);
            if shared.writes(Kind::HelloRefused) {
                let peer = Quoted(&name);
                tracing::warn!(%peer, %remote, reason, "closed, its certificate is no longer accepted");
            }
            return;
        }
    };
    let metrics = shared.metrics.device(&key);
    // Before the rights are looked up, so that no change of them is missed.
    let rights_change = shared.watch_rights();
    let rights = shared.rights(&key);
    let scope = rights.as_ref().map(|rights| rights.scope.clone());
    let registration = match rights.as_ref().and_then(|rights| rights.connections) {
        Some(connections) => registration.limited(connections),
        None => registration,
    };
    // What it offers depends on the hello.
    let nothing = Catalog { bundles: Vec::new(), max_in_flight: shared.max_in_flight };
    let session = Mutex::new(Server::new(Arc::new(nothing), Instant::now()));
    let (undelivered, decode_failure_logged) = (PermitCount::default(), AtomicBool::new(false));
    let places = Semaphore::new(shared.max_in_flight.into());
    let peer = Arc::new(Peer {
        name,
        device: key,
        metrics,
        remote,
        connection,
        registration,
        scope,
        offer: OnceLock::new(),
        session,
        shared,
        places,
        undelivered,
        decode_failure_logged,
    });
    let open = tokio::select! {
        open = peer.hello() => open,
        () = drain_begins(&mut drain) => {
            close(&peer.connection, Close::Draining, "the server is shutting down");
            false
        }
    };
    if open {
        peer.shared.metrics.connections.add(1);
        let _open = peer.metrics.connected(Instant::now(), remote, until);
        if peer.shared.writes(Kind::Connected) {
            tracing::info!(peer = %peer, "connected");
        }
        peer.serve(drain, rights_change).await;
    }
}

/// One connection.
pub(super) struct Peer {
    pub(super) name: String,
    /// The device, as the budget of memory and the scheduler know it: the certificate's name, or its digest.
    pub(super) device: Arc<str>,
    /// The counts of the device.
    pub(super) metrics: Arc<DeviceMetrics>,
    remote: SocketAddr,
    pub(super) connection: Connection,
    pub(super) registration: Registration<Connection>,
    /// The part of what is served that the device may use. `None` if it may not use the server.
    pub(super) scope: Option<Scope>,
    /// What the session offers, from the hello on.
    pub(super) offer: OnceLock<Offer>,
    pub(super) session: Mutex<Server>,
    pub(super) shared: Arc<Shared>,
    /// Places for requests that are being read or answered.
    pub(super) places: Semaphore,
    /// Counts requests that have arrived and whose answer is not yet delivered.
    pub(super) undelivered: PermitCount,
    /// Whether a packet or image that did not decode has been logged as a warning.
    pub(super) decode_failure_logged: AtomicBool,
}

impl Peer {
    /// Answers frames, each in a task of its own, until the peer leaves or the drain is over.
    async fn serve(
        self: &Arc<Self>,
        mut drain: watch::Receiver<bool>,
        mut rights_change: watch::Receiver<Arc<Devices>>,
    ) {
        let mut frames = JoinSet::new();
        let mut bundles_change = self.shared.engine().watch_bundles();
        let mut told = Vec::new();
        self.tell_successors(&mut told, &mut frames);
        let (mut draining, mut reason) = (false, "the server is shutting down");
        loop {
            // Requests that are still arriving will not be accepted, so the drain does not wait for them.
            if draining && self.undelivered.in_use() == 0 {
                close(&self.connection, Close::Draining, reason);
                return;
            }
            tokio::select! {
                stream = self.connection.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        frames.spawn(Arc::clone(self).frame(send, receive));
                    }
                    Err(error) => {
                        if self.shared.writes(Kind::Disconnected) {
                            let reason = ConnectionEnd(error);
                            tracing::info!(peer = %self, %reason, "disconnected");
                        }
                        // Returning drops the frames' tasks, and with them the work that has not begun.
                        let abandoned = self.session().in_flight();
                        self.metrics.abandoned(abandoned);
                        return;
                    }
                },
                Some(_) = frames.join_next(), if !frames.is_empty() => {}
                () = drain_begins(&mut drain), if !draining => {
                    draining = true;
                    self.session().drain();
                }
                // The senders are gone only when the server is.
                Ok(()) = bundles_change.changed(), if !draining => self.tell_successors(&mut told, &mut frames),
                Ok(()) = rights_change.changed(), if !draining => {
                    let rights = self.shared.rights(&self.device);
                    if rights.map(|rights| rights.scope.clone()) != self.scope {
                        (draining, reason) = (true, "the device's rights have changed");
                        self.session().drain();
                        if self.shared.writes(Kind::Disconnected) {
                            tracing::info!(peer = %self, reason, "draining the connection");
                        }
                    }
                }
            }
        }
    }

    /// Closes the connection because the peer broke the protocol. Does nothing if it is closed already, so a violation is
    /// counted and logged once.
    pub(super) fn violation(&self, code: Close, reason: &str) {
        if self.connection.close_reason().is_none() {
            self.shared.metrics.violations.add(1);
            if self.shared.writes(Kind::Violation) {
                tracing::warn!(peer = %self, %code, reason = %Quoted(reason), "closed the connection");
            }
            close(&self.connection, code, reason);
        }
    }

    pub(super) fn session(&self) -> MutexGuard<'_, Server> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", Quoted(&self.name), self.remote)
    }
}
