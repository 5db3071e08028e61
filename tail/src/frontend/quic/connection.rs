//! One connection: the handshake, the hello, one task per frame, and the drain.
#![expect(clippy::disallowed_methods, reason = "the session is given the time")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use narrows_wire::{
    Close, FrameReply, Path, Refusal, RefusalCode,
    limits::{HANDSHAKE_TIMEOUT, MAX_HELLO, MAX_REQUEST, MESSAGE_TIMEOUT},
    quic::{close, close_code, peer_name},
    session::{Accepted, Catalog, HelloOutcome, Server, Verdict},
    stream::{StreamError, read_message, write_message},
};
use quinn::{Connection, Incoming, RecvStream, SendStream};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::translate;
use crate::{
    engine::{self, Engine, Model, RefusalReason},
    frontend::{
        admission::{ConnectionLimit, Permit, PermitCount},
        metrics::Metrics,
    },
};

/// The time that the peer has to acknowledge a reply before the reply's stream is dropped.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that the peer has to acknowledge a hello refusal before the connection is closed.
const HELLO_REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What all connections share.
pub(crate) struct Shared {
    engine: Arc<Engine>,
    /// The engine's models, in the order of the session catalog's bundles.
    models: Vec<Arc<Model>>,
    /// The bundles and limits that sessions tell their clients.
    catalog: Arc<Catalog>,
    pub(super) metrics: Metrics,
    pub(super) connections: ConnectionLimit,
}

impl Shared {
    /// The state of a front end to `engine`, with at most `connections` connections and `max_in_flight` frames in flight on
    /// each.
    pub(crate) fn new(engine: Arc<Engine>, max_in_flight: u16, connections: usize) -> Shared {
        let models = engine.models().to_vec();
        let catalog = Arc::new(translate::catalog(&models, max_in_flight));
        let connections = ConnectionLimit::new(connections);
        Shared { engine, models, catalog, metrics: Metrics::default(), connections }
    }

    /// The front end's counters.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The number of frames that were accepted and not answered, refused or abandoned.
    pub(super) fn unanswered(&self) -> u64 {
        let finished = [&self.metrics.answered, &self.metrics.refused, &self.metrics.abandoned];
        let finished = finished.iter().map(|count| count.value()).sum();
        self.metrics.frames.value().saturating_sub(finished)
    }
}

/// Runs a connection from its handshake to its end. The permit is given back at the end.
pub(super) async fn run(
    incoming: Incoming,
    shared: Arc<Shared>,
    drain: watch::Receiver<bool>,
    _permit: Permit,
) {
    let remote = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let connection = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(connection)) => connection,
        failed => {
            shared.metrics.handshakes_failed.add(1);
            let reason = match failed {
                Ok(Err(error)) => error.to_string(),
                _ => "timeout".to_owned(),
            };
            tracing::warn!(%remote, reason, "handshake failed");
            return;
        }
    };
    let name = peer_name(&connection).unwrap_or_else(|| "without a name".to_owned());
    let session = Mutex::new(Server::new(Arc::clone(&shared.catalog), Instant::now()));
    let (undelivered, decode_failure_logged) = (PermitCount::default(), AtomicBool::new(false));
    let peer = Peer { name, remote, connection, session, shared, undelivered, decode_failure_logged };
    let peer = Arc::new(peer);
    let open = {
        let mut drain = drain.clone();
        tokio::select! {
            open = peer.hello() => open,
            () = drain_begins(&mut drain) => {
                close(&peer.connection, Close::Draining, "the server is shutting down");
                false
            }
        }
    };
    if open {
        peer.shared.metrics.connections.add(1);
        tracing::info!(peer = peer.name, %remote, "connected");
        peer.serve(drain).await;
    }
}

/// Returns once the drain has begun.
pub(super) async fn drain_begins(drain: &mut watch::Receiver<bool>) {
    // If the sender is gone, the server is ending too.
    let _ = drain.wait_for(|draining| *draining).await;
}

/// One connection.
struct Peer {
    name: String,
    remote: SocketAddr,
    connection: Connection,
    session: Mutex<Server>,
    shared: Arc<Shared>,
    /// Counts requests that have arrived and whose answer is not yet delivered.
    undelivered: PermitCount,
    /// Whether a packet or image that did not decode has been logged as a warning.
    decode_failure_logged: AtomicBool,
}

impl Peer {
    /// Receives and answers the hello. False if the connection is over.
    async fn hello(&self) -> bool {
        let due = self.session().hello_due();
        let message = async {
            let (send, mut receive) =
                self.connection.accept_bi().await.map_err(|error| StreamError::Connection(error.into()))?;
            Ok((send, read_message(&mut receive, MAX_HELLO).await?))
        };
        let (mut send, bytes) = match tokio::time::timeout_at(due.into(), message).await {
            Ok(Ok(message)) => message,
            Ok(Err(StreamError::TooLarge { limit })) => {
                self.violation(Close::TooLarge, &format!("hello over {limit} bytes"));
                return false;
            }
            Ok(Err(error)) => {
                tracing::info!(peer = self.name, remote = %self.remote, reason = %error, "left before the hello");
                return false;
            }
            Err(_) => {
                self.violation(Close::HelloTimeout, "no hello in time");
                return false;
            }
        };
        let outcome = self.session().hello(&bytes);
        match outcome {
            Ok(HelloOutcome::Open(bytes)) => write_message(&mut send, &bytes).await.is_ok(),
            Ok(HelloOutcome::Refused { bytes, refusal }) => {
                self.shared.metrics.hellos_refused.add(1);
                tracing::warn!(peer = self.name, remote = %self.remote, reason = %refusal, "hello refused");
                if write_message(&mut send, &bytes).await.is_ok() {
                    // Closing at once would discard the refusal before it is sent.
                    let _ = timeout(HELLO_REFUSAL_TIMEOUT, send.stopped()).await;
                }
                close(&self.connection, Close::Refused, &refusal.to_string());
                false
            }
            Err(error) => {
                self.violation(Close::Violation, &error.to_string());
                false
            }
        }
    }

    /// Answers frames, each in a task of its own, until the peer leaves or the drain is over.
    async fn serve(self: &Arc<Self>, mut drain: watch::Receiver<bool>) {
        let mut frames = JoinSet::new();
        let mut draining = false;
        loop {
            // Requests that are still arriving will not be accepted, so the drain does not wait for them.
            if draining && self.undelivered.in_use() == 0 {
                close(&self.connection, Close::Draining, "the server is shutting down");
                return;
            }
            tokio::select! {
                stream = self.connection.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        frames.spawn(Arc::clone(self).frame(send, receive));
                    }
                    Err(error) => {
                        let code = close_code(&error).map(|code| code.to_string());
                        tracing::info!(peer = self.name, remote = %self.remote, reason = %error, code, "disconnected");
                        // Returning drops the frames' tasks, and with them the work that has not begun.
                        let abandoned = self.session().in_flight();
                        self.shared.metrics.abandoned.add(abandoned as u64);
                        return;
                    }
                },
                Some(_) = frames.join_next(), if !frames.is_empty() => {}
                () = drain_begins(&mut drain), if !draining => {
                    draining = true;
                    self.session().drain();
                }
            }
        }
    }

    /// Receives one request, answers it and waits until the answer is delivered.
    async fn frame(self: Arc<Self>, mut send: SendStream, mut receive: RecvStream) {
        let bytes = match timeout(MESSAGE_TIMEOUT, read_message(&mut receive, MAX_REQUEST)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(StreamError::TooLarge { limit })) => {
                return self.violation(Close::TooLarge, &format!("request over {limit} bytes"));
            }
            // The peer gave the frame up or has left.
            Ok(Err(_)) => return,
            Err(_) => return self.violation(Close::Violation, "a request did not arrive in time"),
        };
        let _undelivered = self.undelivered.acquire();
        let now = Instant::now();
        let verdict = self.session().request(now, &bytes);
        let bytes = match verdict {
            Ok(Verdict::Accepted(accepted)) => {
                let path = accepted.payload.path().unwrap_or(Path::Split);
                self.shared.metrics.accepted(path, bytes.len());
                let id = accepted.id;
                let reply = tokio::select! {
                    biased;
                    reply = self.answer(accepted, now) => Some(reply),
                    _ = send.stopped() => None,
                };
                self.session().finish(id);
                let Some(reply) = reply else {
                    self.shared.metrics.abandoned.add(1);
                    return;
                };
                reply
            }
            Ok(Verdict::Refused { id, bytes, refusal }) => {
                self.shared.metrics.not_accepted.add(1);
                tracing::debug!(peer = self.name, id, reason = %refusal, "not accepted");
                bytes
            }
            Err(error) => return self.violation(Close::Violation, &error.to_string()),
        };
        self.shared.metrics.bytes_out.add(bytes.len() as u64);
        if write_message(&mut send, &bytes).await.is_ok() {
            // A drain must not close the connection before the peer has its answer.
            let _ = timeout(DELIVERY_TIMEOUT, send.stopped()).await;
        }
    }

    /// Has the engine answer a frame, and encodes the reply or refusal.
    async fn answer(&self, accepted: Accepted, arrived: Instant) -> Vec<u8> {
        let Shared { engine, models, metrics, .. } = &*self.shared;
        let id = accepted.id;
        let refuse = |refusal: Refusal| {
            metrics.refused.add(1);
            tracing::debug!(peer = self.name, id, reason = %refusal, "refused");
            FrameReply::Refused { id, refusal }.encode().unwrap_or_default()
        };
        let (path, job) = match translate::job(models, accepted, arrived) {
            Ok(job) => job,
            Err(refusal) => return refuse(refusal),
        };
        let answer = match engine.submit_with(job, translate::outcome).await {
            Ok(answer) => answer,
            Err(refusal) => {
                self.log_decode_failure(id, &refusal);
                return refuse(translate::refusal(refusal));
            }
        };
        let timings = answer.timings;
        match FrameReply::Answered(translate::reply(id, path, answer)).encode() {
            Ok(bytes) => {
                metrics.answered(path, &timings);
                tracing::debug!(peer = self.name, id, %path, ?timings, bytes = bytes.len(), "answered");
                bytes
            }
            Err(error) => refuse(Refusal::new(RefusalCode::TooLarge, error.to_string())),
        }
    }

    /// Logs a packet or image that did not decode: the first of a connection as a warning, later ones for debugging, so that
    /// a peer cannot fill the log.
    fn log_decode_failure(&self, id: u64, refusal: &engine::Refusal) {
        if !matches!(refusal.reason, RefusalReason::BadLatent | RefusalReason::BadImage) {
            return;
        }
        let reason = &refusal.text;
        if self.decode_failure_logged.swap(true, Ordering::Relaxed) {
            tracing::debug!(peer = self.name, id, reason, "not decoded");
        } else {
            tracing::warn!(
                peer = self.name,
                id,
                reason,
                "not decoded (more of this connection at debug level)"
            );
        }
    }

    /// Closes the connection because the peer broke the protocol. Does nothing if it is closed already, so a violation is
    /// counted and logged once.
    fn violation(&self, code: Close, reason: &str) {
        if self.connection.close_reason().is_none() {
            self.shared.metrics.violations.add(1);
            tracing::warn!(peer = self.name, remote = %self.remote, %code, reason, "closed the connection");
            close(&self.connection, code, reason);
        }
    }

    fn session(&self) -> MutexGuard<'_, Server> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
