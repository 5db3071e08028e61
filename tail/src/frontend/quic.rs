//! The QUIC front end (wire/PROTOCOL.md): it accepts connections, until the drain begins, and drains them.

mod connection;
mod translate;

use std::{sync::Arc, time::Duration};

use narrows_wire::Close;
use quinn::{Endpoint, Incoming};
use tokio::{sync::watch, task::JoinSet, time::timeout};

pub(crate) use self::connection::Shared;
use self::connection::drain_begins;

/// The time that the last packets have to leave after the endpoint is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Accepts connections until `drain` becomes true, then lets accepted frames finish, for at most `drain_timeout`.
/// Returns the number of frames that were accepted and not answered.
pub(crate) async fn serve(
    endpoint: &Endpoint,
    shared: Arc<Shared>,
    mut drain: watch::Receiver<bool>,
    drain_timeout: Duration,
) -> u64 {
    let mut connections = JoinSet::new();
    let for_connections = drain.clone();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(incoming, &shared, &for_connections, &mut connections),
                None => break,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = drain_begins(&mut drain) => break,
        }
    }
    // From here on QUIC itself refuses new connections.
    endpoint.set_server_config(None);
    let finished = timeout(drain_timeout, async { while connections.join_next().await.is_some() {} }).await;
    endpoint.close(u32::from(Close::Draining).into(), b"the server is shutting down");
    let _ = timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
    match finished {
        Ok(()) => 0,
        Err(_) => shared.unanswered(),
    }
}

/// Starts the task of a connection, or refuses it when the limit is reached.
fn admit(
    incoming: Incoming,
    shared: &Arc<Shared>,
    drain: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    let Some(permit) = shared.connections.acquire() else {
        shared.metrics.connections_refused.add(1);
        let connections = shared.connections.in_use();
        tracing::warn!(remote = %incoming.remote_address(), connections, "too many connections, refused one");
        incoming.refuse();
        return;
    };
    connections.spawn(connection::run(incoming, Arc::clone(shared), drain.clone(), permit));
}
