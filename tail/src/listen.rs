//! Connections: the handshake, the hello, one task per frame, and the drain.
#![expect(clippy::disallowed_methods, reason = "the shell of the session reads the clock")]

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
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    admit::{ConnectionLimit, Permit},
    catalog::Model,
    frame,
    images::Decoders,
    metrics::Metrics,
};

/// How long a reply may take to be acknowledged before its stream is forgotten.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) catalog: Vec<Model>,
    pub(crate) decoders: Decoders,
    pub(crate) session_catalog: Arc<Catalog>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: ConnectionLimit,
}

/// Accepts connections until `drain` turns true, then lets accepted frames finish, at most for `patience`.
/// Returns the number of frames that were accepted and not answered.
pub(crate) async fn listen(
    endpoint: &Endpoint,
    shared: Arc<Shared>,
    mut drain: watch::Receiver<bool>,
    patience: Duration,
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
            () = begun(&mut drain) => break,
        }
    }
    // From here on new connections are refused by QUIC itself.
    endpoint.set_server_config(None);
    let finished = timeout(patience, async { while connections.join_next().await.is_some() {} }).await;
    endpoint.close(u32::from(Close::Draining).into(), b"the server is shutting down");
    // Lets the last packets out; nobody is waited for.
    let _ = timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
    match finished {
        Ok(()) => 0,
        Err(_) => {
            let done = [&shared.metrics.answered, &shared.metrics.refused, &shared.metrics.abandoned];
            shared.metrics.frames.value().saturating_sub(done.iter().map(|count| count.value()).sum())
        }
    }
}

fn admit(
    incoming: Incoming,
    shared: &Arc<Shared>,
    drain: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    let Some(permit) = shared.connections.acquire() else {
        shared.metrics.turned_away.add(1);
        tracing::warn!(remote = %incoming.remote_address(), in_use = shared.connections.in_use(), "no room, turned away");
        incoming.refuse();
        return;
    };
    connections.spawn(connect(incoming, Arc::clone(shared), drain.clone(), permit));
}

async fn connect(incoming: Incoming, shared: Arc<Shared>, drain: watch::Receiver<bool>, _permit: Permit) {
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
    let session = Mutex::new(Server::new(Arc::clone(&shared.session_catalog), Instant::now()));
    let (busy, decode_failure_logged) = (ConnectionLimit::new(usize::MAX), AtomicBool::new(false));
    let peer = Peer { name, remote, connection, session, shared, busy, decode_failure_logged };
    let peer = Arc::new(peer);
    let open = {
        let mut drain = drain.clone();
        tokio::select! {
            open = peer.greet() => open,
            () = begun(&mut drain) => {
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

/// Resolves once the drain has begun.
async fn begun(drain: &mut watch::Receiver<bool>) {
    // A sender that is gone can only mean the end, too.
    let _ = drain.wait_for(|draining| *draining).await;
}

/// One connection.
struct Peer {
    name: String,
    remote: SocketAddr,
    connection: Connection,
    session: Mutex<Server>,
    shared: Arc<Shared>,
    /// Counts requests that are in and whose answer is not yet delivered.
    busy: ConnectionLimit,
    /// A packet or image that did not decode has been logged at warning level.
    decode_failure_logged: AtomicBool,
}

impl Peer {
    /// The hello. False if the connection is over.
    async fn greet(&self) -> bool {
        let due = self.session().hello_due();
        let hello = async {
            let (send, mut receive) = self.connection.accept_bi().await.map_err(StreamError::Connection)?;
            Ok((send, read_message(&mut receive, MAX_HELLO).await?))
        };
        let (mut send, bytes) = match tokio::time::timeout_at(due.into(), hello).await {
            Ok(Ok(hello)) => hello,
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
        let greeting = self.session().hello(&bytes);
        match greeting {
            Ok(HelloOutcome::Open(bytes)) => write_message(&mut send, &bytes).await.is_ok(),
            Ok(HelloOutcome::Refused { bytes, refusal }) => {
                self.shared.metrics.hellos_refused.add(1);
                tracing::warn!(peer = self.name, remote = %self.remote, reason = %refusal, "hello refused");
                if write_message(&mut send, &bytes).await.is_ok() {
                    // The close would overtake the refusal.
                    let _ = timeout(Duration::from_secs(2), send.stopped()).await;
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

    /// Frames, each on a task of its own, until the peer leaves or the drain is over.
    async fn serve(self: &Arc<Self>, mut drain: watch::Receiver<bool>) {
        let mut frames = JoinSet::new();
        let mut draining = false;
        loop {
            // Requests that are still arriving are not accepted, so nobody waits for them.
            if draining && self.busy.in_use() == 0 {
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
                        // Ends the frames' tasks; work that has not begun is dropped with them.
                        let abandoned = self.session().in_flight();
                        self.shared.metrics.abandoned.add(abandoned as u64);
                        return;
                    }
                },
                Some(_) = frames.join_next(), if !frames.is_empty() => {}
                () = begun(&mut drain), if !draining => {
                    draining = true;
                    self.session().drain();
                }
            }
        }
    }

    async fn frame(self: Arc<Self>, mut send: SendStream, mut receive: RecvStream) {
        let bytes = match timeout(MESSAGE_TIMEOUT, read_message(&mut receive, MAX_REQUEST)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(StreamError::TooLarge { limit })) => {
                return self.violation(Close::TooLarge, &format!("request over {limit} bytes"));
            }
            // The peer gave the frame up, or is gone.
            Ok(Err(_)) => return,
            Err(_) => return self.violation(Close::Violation, "a request did not arrive in time"),
        };
        let _busy = self.busy.acquire();
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

    /// Works on the frame and encodes what came of it.
    async fn answer(&self, accepted: Accepted, arrived: Instant) -> Vec<u8> {
        let (id, metrics) = (accepted.id, &self.shared.metrics);
        let Shared { catalog, decoders, .. } = &*self.shared;
        let finished = frame::work(catalog, decoders, metrics, accepted, arrived).await;
        if let Some(reason) = finished.undecoded {
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
        let refuse = |refusal: Refusal| {
            metrics.refused.add(1);
            tracing::debug!(peer = self.name, id, reason = %refusal, "refused");
            FrameReply::Refused { id, refusal }.encode().unwrap_or_default()
        };
        match finished.reply {
            FrameReply::Refused { refusal, .. } => refuse(refusal),
            FrameReply::Answered(reply) => {
                let (path, timings) = (reply.path, reply.timings);
                match FrameReply::Answered(reply).encode() {
                    Ok(bytes) => {
                        metrics.answered(path, &timings);
                        tracing::debug!(peer = self.name, id, %path, ?timings, bytes = bytes.len(), "answered");
                        bytes
                    }
                    Err(error) => refuse(Refusal::new(RefusalCode::TooLarge, error.to_string())),
                }
            }
        }
    }

    /// Ends the connection for the peer's fault. Logged once: later faults find it closed.
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
