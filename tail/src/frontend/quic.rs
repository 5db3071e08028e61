//! The QUIC front end (wire/PROTOCOL.md): it accepts connections, until the drain begins, and drains them.

mod connection;
mod frame;
mod handshake;
mod hello;
mod notices;
mod shared;
mod translate;

use std::{sync::Arc, time::Duration};

use narrows_wire::Close;
use quinn::Endpoint;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{interval, timeout},
};

pub(crate) use self::shared::Shared;
use self::shared::drain_begins;
use super::log;

/// The time that the last packets have to leave after the endpoint is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Accepts connections until `drain` becomes true, then lets accepted frames finish, for at most `drain_timeout`.
/// Returns the number of frames that were accepted and not answered.
pub(crate) async fn serve(
    endpoint: &Endpoint,
    shared: Arc<Shared>,
    mut drain: watch::Receiver<bool>,
    drain_timeout: watch::Receiver<Duration>,
) -> u64 {
    let mut connections = JoinSet::new();
    let mut log_period = interval(log::PERIOD);
    let for_connections = drain.clone();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => {
                    if let Some((incoming, place)) = handshake::admit(incoming, endpoint, &shared) {
                        let drain = for_connections.clone();
                        connections.spawn(connection::run(incoming, place, Arc::clone(&shared), drain));
                    }
                }
                None => break,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            _ = log_period.tick() => shared.log_left_out(),
            () = drain_begins(&mut drain) => break,
        }
    }
    // From here on QUIC itself refuses new connections.
    endpoint.set_server_config(None);
    let drain_timeout = *drain_timeout.borrow();
    let finished = timeout(drain_timeout, async { while connections.join_next().await.is_some() {} }).await;
    endpoint.close(u32::from(Close::Draining).into(), b"the server is shutting down");
    let _ = timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
    shared.log_left_out();
    match finished {
        Ok(()) => 0,
        Err(_) => shared.unanswered(),
    }
}
