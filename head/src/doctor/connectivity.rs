//! Connectivity to the tail, step by step: name, UDP, trust, hello, round trip and packet size.

use std::{future::Future, time::Duration};

use narrows_wire::{
    BundleId, Close,
    identity::Identity,
    limits::HELLO_TIMEOUT,
    quic::{PathState, close, path_state},
};
use quinn::{Connection, Endpoint};
use tokio::{runtime, time::timeout};

use super::check::Check;
use crate::{
    Chain, Error, Unavailable,
    config::Server,
    uplink::{CONNECT_TIMEOUT, ConnectError, Connector},
};

/// Longest time that QUIC may probe for a larger packet size.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two looks at the packet size.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Smallest UDP payload that every QUIC path carries (RFC 9000, section 14).
const MIN_PAYLOAD: u16 = 1200;

/// Connects to `server` as a run does; returns one check per step.
pub(super) fn connectivity(
    server: &Server,
    identity: &Identity,
    bundle: BundleId,
    tasks: Vec<String>,
) -> Vec<Check> {
    let connector = match Connector::new(server.clone(), identity, bundle, tasks) {
        Ok(connector) => connector,
        Err(error) => return vec![Check::failed("tail", Chain(&error).to_string(), super::identity::MAKE)],
    };
    match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(connect(&connector)),
        Err(error) => {
            vec![Check::failed("tail", format!("no runtime: {error}"), "Free memory or file handles")]
        }
    }
}

async fn connect(connector: &Connector) -> Vec<Check> {
    let server = connector.server();
    let mut checks = Vec::new();
    let addresses = match bounded(CONNECT_TIMEOUT, connector.resolve()).await {
        Ok(addresses) => addresses,
        Err(failure) => {
            let remedy =
                format!("Check the name {}, or give the address that its certificate carries", server.host);
            checks.push(Check::failed("name", Chain(&failure).to_string(), remedy));
            return checks;
        }
    };
    let list: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    checks.push(Check::ok("name", format!("{} is {}", server.host, list.join(", "))));

    let (endpoint, connection) = match bounded(CONNECT_TIMEOUT, connector.connect_any(addresses)).await {
        Ok(reached) => reached,
        Err(ConnectError::Permanent(error)) => {
            checks.push(Check::ok("udp", format!("{server} answers")));
            checks.push(permanent(error));
            return checks;
        }
        Err(ConnectError::Transient(reason)) => {
            let remedy = format!(
                "Is the tail running, and does every firewall on the way let UDP port {} through? TCP does not help",
                server.port
            );
            checks.push(Check::failed("udp", format!("{server}: {}", Chain(&reason)), remedy));
            return checks;
        }
    };
    checks.push(Check::ok("udp", format!("{server} answers")));
    match bounded(HELLO_TIMEOUT, connector.exchange_hello(&connection)).await {
        Ok((client, _)) => {
            checks.push(Check::ok(
                "welcome",
                format!("it serves this bundle, {} frames in flight", client.room()),
            ));
            checks.extend(path(probe_path(&connection).await));
            close_connection(&connection, &endpoint).await;
        }
        Err(ConnectError::Permanent(error)) => checks.push(permanent(error)),
        Err(ConnectError::Transient(reason)) => {
            checks.push(Check::warning(
                "welcome",
                Chain(&reason).to_string(),
                "It is busy or leaving; try again, or look at its log",
            ));
        }
    }
    checks
}

/// The check of an error that another attempt would not change: no trust, another bundle, a refusal, or a program that
/// does not speak the protocol.
fn permanent(error: Error) -> Check {
    let (what, remedy) = match &error {
        Error::Trust { .. } => ("trust", super::identity::MAKE),
        Error::Mismatch { .. } => {
            ("welcome", "Copy the server's bundle folder to this device, or the other way round")
        }
        Error::Protocol { .. } => {
            ("welcome", "Is there another program on this port, or another version of narrows?")
        }
        _ => ("welcome", "The server's log says more"),
    };
    Check::failed(what, Chain(&error).to_string(), remedy)
}

/// Waits until QUIC has stopped raising the packet size, and returns the state of the path.
async fn probe_path(connection: &Connection) -> PathState {
    let mut state = path_state(connection);
    let (mut waited, mut unchanged) = (Duration::ZERO, Duration::ZERO);
    while waited < PROBE_TIMEOUT && unchanged < 6 * POLL_INTERVAL.max(state.rtt) {
        tokio::time::sleep(POLL_INTERVAL).await;
        let next = path_state(connection);
        unchanged = if next.mtu == state.mtu { unchanged + POLL_INTERVAL } else { Duration::ZERO };
        waited += POLL_INTERVAL;
        state = next;
    }
    state
}

/// The checks of round trip time and packet size.
fn path(state: PathState) -> [Check; 2] {
    let round = Check::ok("round trip", format!("{:.1} ms", state.rtt.as_secs_f64() * 1e3));
    let found = format!("{} bytes of UDP payload pass", state.mtu);
    let size = match state.mtu > MIN_PAYLOAD {
        true => Check::ok("packet size", found),
        false => Check::warning(
            "packet size",
            format!("{found}, the least that QUIC allows"),
            "A tunnel or a VPN on the way may be the cause; frames need more packets than elsewhere",
        ),
    };
    [round, size]
}

/// Closes the connection and waits until the close was sent.
async fn close_connection(connection: &Connection, endpoint: &Endpoint) {
    close(connection, Close::Done, "");
    // The server notices by itself if this is lost.
    let _ = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
}

/// Runs a step for at most `limit`.
async fn bounded<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    match timeout(limit, step).await {
        Ok(done) => done,
        Err(_) => Err(ConnectError::Transient(Unavailable::NoAnswer)),
    }
}
