//! Connectivity to the tail, step by step: name, UDP, trust, hello, round trip and packet size.

#![expect(clippy::disallowed_methods, reason = "a frame has a deadline")]

use std::{
    future::Future,
    net::SocketAddr,
    time::{Duration, Instant},
};

use narrows_service::Check;
use narrows_wire::{
    Close, FrameReply, Outcome, Payload, RefusalCode, TaskRequest,
    limits::{HELLO_TIMEOUT, MAX_REPLY},
    quic::{CertificateFault, ConnectionEnd, PathState, close, path_state},
    session::Client,
    stream::{read_message, write_message},
};
use quinn::{Connection, Endpoint, rustls::AlertDescription};
use tokio::{runtime, time::timeout};

use crate::{
    Chain, Error, Obstacle, Unavailable,
    config::Server,
    uplink::{ConnectError, Connector, obstacle},
};

/// Longest time that the tail has for a frame.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that QUIC may probe for a larger packet size.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two looks at the packet size.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Smallest UDP payload that every QUIC path carries (RFC 9000, section 14).
const MIN_PAYLOAD: u16 = 1200;

/// A frame for the tail: its packet and the task that it is for.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) packet: Vec<u8>,
    pub(super) task: TaskRequest,
}

/// Connects to `server` and has it answer `sample`, as a run does; returns one check per step.
pub(super) fn connectivity(connector: &Connector, sample: Option<Sample>) -> Vec<Check> {
    match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(connect(connector, sample)),
        Err(error) => {
            vec![Check::failed("tail", format!("no runtime: {error}"), "Free memory or file handles")]
        }
    }
}

async fn connect(connector: &Connector, sample: Option<Sample>) -> Vec<Check> {
    let server = connector.server();
    let mut checks = Vec::new();
    let addresses = match connector.resolve().await {
        Ok(addresses) => addresses,
        Err(reason) => {
            let remedy = match &reason {
                Unavailable::NameServer => {
                    "Check this device's network and the name servers in /etc/resolv.conf, or give an \
                     address that the tail's certificate carries"
                        .to_owned()
                }
                Unavailable::NoInterface(_) => {
                    "Give the name of this device's network interface after %".to_owned()
                }
                _ => format!(
                    "Check the name {}, or give the address that its certificate carries",
                    server.host
                ),
            };
            checks.push(Check::failed("name", Chain(&reason).to_string(), remedy));
            return checks;
        }
    };
    let list: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    checks.push(Check::ok("name", format!("{} is {}", server.host, list.join(", "))));

    let connected = tokio::join!(connector.connect_any(addresses.clone()), first_obstacle(&addresses));
    let (endpoint, connection) = match connected {
        (Ok(reached), _) => reached,
        (Err(ConnectError::Permanent(error) | ConnectError::Unproven(error)), _) => {
            if matches!(error, Error::Certificate { .. }) {
                checks.push(Check::ok("udp", format!("{server} answers")));
            }
            checks.push(lasting(error));
            return checks;
        }
        (Err(ConnectError::Transient(reason)), obstacle) => {
            let reason = obstacle.map_or(reason, Unavailable::Blocked);
            let found = format!("{server}: {}", Chain(&reason));
            checks.push(Check::failed("udp", found, unreached(&reason, server)));
            return checks;
        }
    };
    checks.push(Check::ok("udp", format!("{server} answers")));
    match bounded(HELLO_TIMEOUT, connector.exchange_hello(&connection)).await {
        Ok((mut client, bundle)) => {
            checks.push(Check::ok(
                "welcome",
                format!("it serves this bundle, {} frames in flight", client.room()),
            ));
            if let Some(sample) = sample {
                checks.push(frame(&connection, &mut client, bundle, sample).await);
            }
            checks.extend(path(probe_path(&connection).await));
            close_connection(&connection, &endpoint).await;
        }
        Err(ConnectError::Permanent(error) | ConnectError::Unproven(error)) => checks.push(lasting(error)),
        Err(ConnectError::Transient(reason)) => {
            let remedy = match &reason {
                Unavailable::Busy(refusal) if refusal.code == RefusalCode::Connections => {
                    "Raise the tail's --connections, or disconnect other heads"
                }
                Unavailable::Busy(_) => "It is busy or shutting down; try again, or look at its log",
                _ => "Look at the tail's log",
            };
            checks.push(Check::failed("welcome", Chain(&reason).to_string(), remedy));
        }
    }
    checks
}

/// The obstacle on the way to the first address that has one.
async fn first_obstacle(addresses: &[SocketAddr]) -> Option<Obstacle> {
    for &address in addresses {
        if let Some(obstacle) = obstacle(address).await {
            return Some(obstacle);
        }
    }
    None
}

/// What helps where no connection came about.
fn unreached(reason: &Unavailable, server: &Server) -> String {
    match reason {
        Unavailable::Blocked(Obstacle::NoListener(_)) => {
            format!("Start the tail, with --listen on port {}, or correct --server", server.port)
        }
        Unavailable::Blocked(Obstacle::SmallMtu(..)) => {
            "ip link set dev INTERFACE mtu 1280; tunnels and VPNs have a setting of their own".to_owned()
        }
        Unavailable::Blocked(Obstacle::NoRoute(_) | Obstacle::NoFamily(_)) => {
            "Connect this device to the network (`ip route` shows its routes), or give an address of the other family"
                .to_owned()
        }
        Unavailable::Blocked(Obstacle::HostUnreachable(_)) => {
            "Is the server switched on and on this network? Correct --server if its address has changed".to_owned()
        }
        Unavailable::Blocked(Obstacle::Denied(_)) => {
            format!("Allow outgoing UDP to port {} in this device's firewall", server.port)
        }
        Unavailable::Lost(_) | Unavailable::QuicVersion => {
            "Is there another program on this port, or another version of narrows?".to_owned()
        }
        _ => format!(
            "Is the tail running, and does every firewall on the way let UDP port {} through, in packets of 1,228 bytes? TCP \
             does not help",
            server.port
        ),
    }
}

/// The check of an error that will not mend itself: no trust, another bundle, a refusal, or a program that does not speak the
/// protocol.
fn lasting(error: Error) -> Check {
    let (what, remedy) = match &error {
        Error::Certificate { fault, .. } => (
            "trust",
            match fault {
                CertificateFault::NotYetValid { .. } => "Set this device's clock: timedatectl set-ntp true",
                CertificateFault::Expired { .. } => {
                    "Renew the certificate beside the server, `narrows-tail certs server --dir certs`, or set this device's clock"
                }
                CertificateFault::WrongName { .. } => {
                    "Give one of these names to --server, or renew the server's certificate with this name: \
                     `narrows-tail certs server --dir certs --name NAME`"
                }
                _ => super::identity::MAKE,
            },
        ),
        Error::Trust { reason, .. } => (
            "trust",
            match reason.alert() {
                Some(AlertDescription::CertificateRevoked) => {
                    "This device was revoked; make it a new identity beside the server if that is an error"
                }
                Some(AlertDescription::CertificateExpired) => {
                    "Renew it beside the server, `narrows-tail certs renew NAME --dir certs`, and check the clocks of both"
                }
                _ => super::identity::MAKE,
            },
        ),
        Error::Mismatch { .. } => {
            ("welcome", "Copy the server's bundle folder to this device, or the other way round")
        }
        Error::Protocol { .. } => {
            ("welcome", "Is there another program on this port, or another version of narrows?")
        }
        Error::Refused { refusal, .. } if refusal.refusal.code == RefusalCode::Version => {
            ("welcome", "Install the same version of narrows on both sides")
        }
        Error::Quic(_) => ("udp", "Close other programs, or raise the limit of file handles (`ulimit -n`)"),
        _ => ("welcome", "The server's log says more"),
    };
    Check::failed(what, Chain(&error).to_string(), remedy)
}

/// Has the tail answer one frame.
async fn frame(connection: &Connection, client: &mut Client, bundle: u8, sample: Sample) -> Check {
    const LOG: &str = "The tail's log says more";
    let began = Instant::now();
    let (deadline, payload) = (began + FRAME_TIMEOUT, Payload::Packet(sample.packet));
    let exchange = async {
        let (id, request) = client
            .request(began, bundle, Some(deadline), vec![sample.task], payload)
            .map_err(|error| Chain(&error).to_string())?;
        let (mut send, mut receive) =
            connection.open_bi().await.map_err(|error| ConnectionEnd(error).to_string())?;
        write_message(&mut send, &request).await.map_err(|error| Chain(&error).to_string())?;
        let reply = read_message(&mut receive, MAX_REPLY).await.map_err(|error| Chain(&error).to_string())?;
        client.reply(Instant::now(), id, &reply).map_err(|error| Chain(&error).to_string())
    };
    match timeout(FRAME_TIMEOUT, exchange).await {
        Ok(Ok(answered)) => match answered.reply {
            FrameReply::Answered(reply) => {
                match reply.answers.into_iter().next().map(|answer| answer.outcome) {
                    Some(Outcome::Refused(refusal)) => Check::failed("frame", refusal.to_string(), LOG),
                    _ => Check::ok(
                        "frame",
                        format!("the tail answers one in {:.1} ms", answered.round_trip.as_secs_f64() * 1e3),
                    ),
                }
            }
            FrameReply::Refused { refusal, .. } => {
                let remedy = match refusal.code {
                    RefusalCode::Busy => "It has more frames than time: add workers or a GPU, or ask it less",
                    _ => LOG,
                };
                Check::failed("frame", format!("the tail refuses one: {refusal}"), remedy)
            }
        },
        Ok(Err(reason)) => Check::failed("frame", format!("the tail does not answer one: {reason}"), LOG),
        Err(_) => {
            let found = format!("the tail does not answer one within {} s", FRAME_TIMEOUT.as_secs());
            Check::failed("frame", found, "It is overloaded or hangs; look at its log")
        }
    }
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
        Err(_) => Err(ConnectError::Transient(Unavailable::NoWelcome)),
    }
}
