//! The front end of enrolments (wire/PROTOCOL.md, section 9). It has an endpoint of its own, few places, and one thread that decides, so
//! that whatever strangers do there takes nothing from the frames of devices.
#![expect(clippy::disallowed_methods, reason = "tokens end, and attempts are limited per minute")]

mod limit;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use narrows_wire::{
    Close, EnrolmentCode,
    enrol::{EnrolmentReply, EnrolmentRequest},
    identity::{CertificateInfo, Identity},
    limits::{ENROLMENT_TIMEOUT, HANDSHAKE_TIMEOUT, MAX_ENROLMENT},
    quic::{ConnectionEnd, SetupError, close, enrolment_endpoint, enrolment_server, peer_chain},
    stream::{read_message, write_message},
    text::Quoted,
};
use quinn::{Connection, Endpoint, Incoming};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{interval, timeout},
};

use self::limit::AttemptLimit;
use super::{
    admission::{PermitCount, network},
    log::{self, Kind, LogLimit},
};
use crate::{
    engine::chain,
    enrol::{Asked, Office},
};

/// Enrolments that may be in progress at once. Each takes about 60 KiB of memory for at most 14 seconds.
const PLACES: usize = 16;
/// Places that one network may have at once, so that a single one which says nothing cannot hold all of them.
const PLACES_OF_NETWORK: usize = 4;
/// The time that a peer has to take its answer.
const LINGER: Duration = Duration::from_secs(1);

/// The endpoint at which devices enrol.
#[derive(Clone)]
pub(crate) struct Enrolments {
    endpoint: Endpoint,
}

impl Enrolments {
    /// Listens on `address` with the server's identity.
    ///
    /// # Errors
    /// [`SetupError`] if the identity cannot be used or the address not be listened on.
    pub(crate) fn listen(address: SocketAddr, identity: &Identity) -> Result<Enrolments, SetupError> {
        Ok(Enrolments { endpoint: enrolment_endpoint(address, enrolment_server(identity)?)? })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// That of the operating system.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Shows another certificate from now on, and refuses others.
    ///
    /// # Errors
    /// [`SetupError::Identity`].
    pub(crate) fn apply(&self, identity: &Identity) -> Result<(), SetupError> {
        self.endpoint.set_server_config(Some(enrolment_server(identity)?));
        Ok(())
    }

    /// Answers devices until the drain begins; of one network at most `rate` attempts a minute, and in all ten times as many.
    pub(crate) async fn serve(self, office: Office, rate: u32, mut drain: watch::Receiver<bool>) {
        let log = Arc::new(LogLimit::default());
        let Some(desk) = Desk::open(office) else { return };
        let (mut limit, mut attempts) = (AttemptLimit::new(rate), JoinSet::new());
        let mut networks: BTreeMap<IpAddr, PermitCount> = BTreeMap::new();
        let mut log_period = interval(log::PERIOD);
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    if !incoming.remote_address_validated() {
                        // Nothing is done for an address that may be somebody else's.
                        if let Err(error) = incoming.retry() {
                            error.into_incoming().ignore();
                        }
                        continue;
                    }
                    let remote = incoming.remote_address();
                    networks.retain(|_, places| places.in_use() > 0);
                    let places = networks.entry(network(remote.ip())).or_default();
                    let is_full = attempts.len() >= PLACES || places.in_use() >= PLACES_OF_NETWORK;
                    if is_full || !limit.admit(remote.ip(), Instant::now()) {
                        incoming.refuse();
                        if log.admit(Kind::EnrolmentLimit, Instant::now()) {
                            tracing::warn!(%remote, "enrolment not begun: too many attempts");
                        }
                        continue;
                    }
                    let (place, attempt) = (places.acquire(), attempt(incoming, desk.clone(), Arc::clone(&log)));
                    attempts.spawn(async move {
                        attempt.await;
                        drop(place);
                    });
                }
                Some(_) = attempts.join_next(), if !attempts.is_empty() => {}
                _ = log_period.tick() => for (kind, count) in log.take_left_out() {
                    tracing::warn!(count, "more {}, not logged one by one", kind.event());
                },
                _ = drain.wait_for(|draining| *draining) => break,
            }
        }
        self.endpoint.close(u32::from(Close::Draining).into(), b"the server is shutting down");
    }
}

/// A question for the thread that decides, and where its answer goes.
struct Question {
    request: EnrolmentRequest,
    connection: Connection,
    answer: oneshot::Sender<Asked>,
}

/// The way to the thread that decides. It reads and writes files, and signs.
#[derive(Clone)]
struct Desk(mpsc::Sender<Question>);

impl Desk {
    /// Starts the thread. It ends with the last attempt.
    fn open(office: Office) -> Option<Desk> {
        let (questions, mut asked) = mpsc::channel::<Question>(PLACES);
        let work = move || {
            while let Some(Question { request, connection, answer }) = asked.blocking_recv() {
                let (peer, from) = (peer_chain(&connection), connection.remote_address().to_string());
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
                // A peer that has left is not answered, and asks again.
                let _ = answer.send(office.answer(&request, peer.as_deref(), &from, now, Instant::now()));
            }
        };
        match std::thread::Builder::new().name("enrolment".to_owned()).spawn(work) {
            Ok(_) => Some(Desk(questions)),
            Err(error) => {
                tracing::error!("no device is enrolled: no thread: {error}");
                None
            }
        }
    }

    async fn ask(&self, request: EnrolmentRequest, connection: Connection) -> Option<Asked> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Question { request, connection, answer }).await.ok()?;
        answered.await.ok()
    }
}

/// Answers one device.
async fn attempt(incoming: Incoming, desk: Desk, log: Arc<LogLimit>) {
    let remote = incoming.remote_address();
    let failed = |reason: String| {
        if log.admit(Kind::Enrolment, Instant::now()) {
            tracing::warn!(%remote, reason, "enrolment failed");
        }
    };
    let handshake = async { incoming.accept()?.await };
    let connection = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return failed(ConnectionEnd(error).to_string()),
        Err(_) => return failed(format!("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())),
    };
    match timeout(ENROLMENT_TIMEOUT, exchange(&connection, &desk)).await {
        Ok(Ok(asked)) => {
            tell(&asked, remote, &log);
            // Closed by the peer, who has its answer then.
            let _ = timeout(LINGER, connection.closed()).await;
        }
        Ok(Err(reason)) => {
            close(&connection, Close::Violation, &reason);
            failed(reason);
        }
        Err(_) => {
            close(&connection, Close::HelloTimeout, "no request in time");
            failed(format!("no request within {} s", ENROLMENT_TIMEOUT.as_secs()));
        }
    }
    close(&connection, Close::Done, "");
}

/// Reads the device's message and writes the answer.
async fn exchange(connection: &Connection, desk: &Desk) -> Result<Asked, String> {
    let lost = |error| ConnectionEnd(error).to_string();
    let (mut send, mut receive) = connection.accept_bi().await.map_err(lost)?;
    let message = read_message(&mut receive, MAX_ENROLMENT).await.map_err(|error| chain(&error))?;
    let request = EnrolmentRequest::parse(&message).map_err(|error| error.to_string())?;
    let asked = desk.ask(request, connection.clone()).await.ok_or("the server failed")?;
    let reply = asked.reply.encode().map_err(|error| error.to_string())?;
    write_message(&mut send, &reply).await.map_err(|error| chain(&error))?;
    Ok(asked)
}

/// Writes to the log what a device asked for and what it was answered.
fn tell(asked: &Asked, remote: SocketAddr, log: &LogLimit) {
    let Asked { reply, name, key, is_new } = asked;
    let (name, key) = (Quoted(name), key.map(|key| key.to_string()).unwrap_or_default());
    match reply {
        EnrolmentReply::Issued { chain, .. } if *is_new => {
            let info = chain.first().and_then(|one| CertificateInfo::read(one).ok());
            let ends = info.map(|info| crate::certs::text(info.until)).unwrap_or_default();
            tracing::info!(device = %name, %remote, key, ends, "certificate issued");
        }
        EnrolmentReply::Issued { .. } => {
            tracing::info!(device = %name, %remote, key, "certificate given once more, to the same key");
        }
        EnrolmentReply::Pending { .. } if *is_new => {
            tracing::warn!(device = %name, %remote, key, "a device waits for approval: narrows-tail enrol approve");
        }
        EnrolmentReply::Pending { .. } => {}
        EnrolmentReply::Refused { code, text } => {
            if log.admit(Kind::EnrolmentRefused, Instant::now()) {
                let is_stranger = *code == EnrolmentCode::Token;
                let device = if is_stranger { "unknown".to_owned() } else { name.to_string() };
                tracing::warn!(%device, %remote, key, reason = %code, text, "enrolment refused");
            }
        }
    }
}
