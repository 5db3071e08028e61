//! Handshakes: who may begin one, and for how long it may take.

use std::{net::SocketAddr, sync::Arc};

use narrows_wire::{limits::HANDSHAKE_TIMEOUT, quic::ConnectionEnd};
use quinn::{Connection, Endpoint, Incoming};
use tokio::{sync::watch, time::timeout};

use super::shared::{HANDSHAKES, Shared, drain_begins};
use crate::frontend::{
    admission::{Admission, HandshakePermit},
    log::Kind,
};

/// The most connections that the endpoint may hold, those that are being closed included, for `connections` open ones: as
/// many without a hello, and twice the handshakes, since QUIC remembers a closed connection for about a second.
fn most_in_memory(connections: usize) -> usize {
    2 * connections + 2 * HANDSHAKES
}

/// Takes a place for a handshake that begins. Where there is none, the peer is told to validate its address first, or its
/// packet is dropped; then it sends it again.
pub(super) fn admit(
    incoming: Incoming,
    endpoint: &Endpoint,
    shared: &Shared,
) -> Option<(Incoming, HandshakePermit)> {
    let validated = incoming.remote_address_validated();
    let crowded = endpoint.open_connections() >= most_in_memory(shared.peers.limits().connections);
    let admission = match crowded {
        true if validated => {
            shared.metrics.handshakes_ignored.add(1);
            incoming.ignore();
            return None;
        }
        true => Admission::Retry,
        false => shared.handshakes.admit(incoming.remote_address().ip(), validated),
    };
    match admission {
        Admission::Accept(place) => Some((incoming, place)),
        Admission::Retry => {
            shared.metrics.handshakes_retried.add(1);
            if let Err(error) = incoming.retry() {
                // Only for a validated address, which is never sent a retry.
                error.into_incoming().ignore();
            }
            None
        }
    }
}

/// Completes a handshake, which authenticates the peer. `None` if it fails, takes too long, is given up in favour of a
/// newer one, or the drain begins.
pub(super) async fn complete(
    incoming: Incoming,
    mut place: HandshakePermit,
    shared: &Arc<Shared>,
    drain: &mut watch::Receiver<bool>,
) -> Option<Connection> {
    let remote = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let reason = tokio::select! {
        biased;
        done = timeout(HANDSHAKE_TIMEOUT, handshake) => match done {
            Ok(Ok(connection)) => {
                shared.metrics.handshakes.add(1);
                return Some(connection);
            }
            Ok(Err(error)) => ConnectionEnd(error).to_string(),
            Err(_) => format!("not complete after {} s", HANDSHAKE_TIMEOUT.as_secs()),
        },
        () = place.evicted() => {
            shared.metrics.handshakes_evicted.add(1);
            "given up, newer ones need its place".to_owned()
        }
        () = drain_begins(drain) => return None,
    };
    failed(shared, remote, &reason);
    None
}

fn failed(shared: &Shared, remote: SocketAddr, reason: &str) {
    shared.metrics.handshakes_failed.add(1);
    if shared.writes(Kind::Handshake) {
        tracing::warn!(%remote, %reason, "handshake failed");
    }
}
