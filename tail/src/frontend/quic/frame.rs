//! One frame: its request, its answer, and the delivery of the answer.
#![expect(clippy::disallowed_methods, reason = "the session is given the time")]

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use narrows_wire::{
    Close, FrameReply, Path, Refusal, RefusalCode,
    limits::{MAX_REQUEST, MESSAGE_TIMEOUT},
    session::{Accepted, Verdict},
    stream::{StreamError, read_message, write_message},
    text::Quoted,
};
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use super::{connection::Peer, shared::Shared, translate};
use crate::{
    engine::{self, RefusalReason},
    frontend::log::Kind,
};

/// The time that the peer has to acknowledge a reply before the reply's stream is dropped.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

impl Peer {
    /// Receives one request, answers it and waits until the answer is delivered.
    pub(super) async fn frame(self: Arc<Self>, mut send: SendStream, mut receive: RecvStream) {
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
            if self.shared.writes(Kind::NotDecoded) {
                tracing::warn!(peer = %self, id, reason = %Quoted(reason), "not decoded (more of this connection at debug level)");
            }
        }
    }
}
