//! One frame: its request, its answer, and the delivery of the answer.
#![expect(clippy::disallowed_methods, reason = "the session is given the time")]

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use narrows_wire::{
    Close, FrameReply, REQUEST_PREFIX, Refusal, RefusalCode, Reset,
    limits::{MAX_REQUEST, MESSAGE_TIMEOUT},
    request_id,
    session::{Accepted, Server, Verdict},
    stream::{StreamError, read_chunk, write_message},
    text::Quoted,
    truncatable_wait,
};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::time::{error::Elapsed, timeout, timeout_at};

use super::{connection::Peer, shared::Shared, translate};
use crate::{
    engine::{self, Client, RefusalReason, Terms},
    frontend::{
        admission::Permit,
        budget::{Exhausted, Lease},
        log::Kind,
        metrics::{Asked, Outcome},
        panic::caught,
    },
};

/// The time that the peer has to read and acknowledge a reply or refusal before it is dropped.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// The time that a stream over the limit of frames in flight waits for one of them to end. A client that gives a frame up and
/// sends another one is over the limit until the server has seen the first.
const PLACE_TIMEOUT: Duration = Duration::from_secs(1);

/// The time after which there may be memory again, for the hint in a refusal.
const RETRY: Duration = Duration::from_millis(500);

/// A reply or refusal that is to be sent.
struct Answer {
    bytes: Vec<u8>,
    /// What the bytes have taken from the budget; refusals are small and take nothing.
    lease: Option<Lease>,
    /// Keeps a drain from closing the connection before the peer has the answer.
    _undelivered: Permit,
}

/// A frame in flight of the session, until this is dropped.
struct InFlight<'a> {
    session: &'a Mutex<Server>,
    id: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).finish(self.id);
    }
}

impl Peer {
    /// Receives one request, answers it and waits until the answer is delivered.
    pub(super) async fn frame(self: Arc<Self>, mut send: SendStream, mut receive: RecvStream) {
        let answered =
            caught(self.receive_and_answer(&mut send, &mut receive)).await.unwrap_or_else(|panic| {
                self.log_panic(None, &panic);
                None
            });
        let Some(answer) = answered else {
            // Dropping the stream would finish it, and the peer would take that for an empty message.
            let _ = send.reset(code(Reset::Stale));
            return;
        };
        self.metrics.sent(answer.bytes.len());
        let delivered = async {
            let Answer { bytes, lease, _undelivered } = answer;
            write_message(&mut send, &bytes).await?;
            // QUIC holds what is not acknowledged yet, at most its window.
            drop((bytes, lease));
            // A drain must not close the connection before the peer has its answer.
            let _ = send.stopped().await;
            Ok::<_, StreamError>(())
        };
        if timeout(DELIVERY_TIMEOUT, delivered).await.is_err() {
            self.shared.metrics.unread.add(1);
            // The peer would take an end of the stream as the end of the message.
            let _ = send.reset(code(Reset::Unread));
        }
    }

    /// Receives one request and has it answered. `None` if the peer gave the frame up or broke the protocol.
    ///
    /// From its first byte on the request counts as a frame in flight, and its memory against the budget.
    async fn receive_and_answer(&self, send: &mut SendStream, receive: &mut RecvStream) -> Option<Answer> {
        let place = timeout(PLACE_TIMEOUT, self.places.acquire()).await;
        let mut lease = self.shared.budget.lease(Arc::clone(&self.device));
        let mut message = Vec::with_capacity(REQUEST_PREFIX);
        let mut refusal = None;
        let reserve = |capacity| {
            let room = match &place {
                Ok(_) => lease.resize(capacity).map_err(|exhausted| self.no_memory(exhausted)),
                Err(_) => Err(self.too_many_in_flight()),
            };
            refusal = room.err();
            refusal.is_none()
        };
        // Without a place only the number of the frame is of interest.
        let time = if place.is_ok() { MESSAGE_TIMEOUT } else { PLACE_TIMEOUT };
        let read = read_request(receive, &mut message, time, reserve).await;
        let refusal = match read {
            Ok(Ok(())) => None,
            Ok(Err(StreamError::NoMemory)) => refusal,
            Ok(Err(StreamError::TooLarge { limit })) => {
                Some(Refusal::new(RefusalCode::TooLarge, format!("the request is over {limit} bytes")))
            }
            // The peer gave the frame up or has left.
            Ok(Err(_)) => return None,
            Err(_) => {
                let _ = receive.stop(code(Reset::Refused));
                let text = format!("the request did not arrive within {} s", time.as_secs());
                Some(match place {
                    Ok(_) => Refusal::new(RefusalCode::Expired, text),
                    Err(_) => self.too_many_in_flight(),
                })
            }
        };
        let undelivered = self.undelivered.acquire();
        let (bytes, lease) = match refusal {
            None => self.answer_message(send, message, lease).await?,
            Some(refusal) => {
                let Some(id) = request_id(&message) else {
                    if message.len() >= REQUEST_PREFIX {
                        self.violation(Close::Violation, "a message that is no request");
                    }
                    // A refusal has to name the frame, and its number has not arrived.
                    let _ = send.reset(code(Reset::Refused));
                    return None;
                };
                self.metrics.refused(Outcome::NotAccepted, refusal.code);
                tracing::debug!(peer = %self, id, reason = %refusal, "not accepted");
                (refused(id, refusal), None)
            }
        };
        Some(Answer { bytes, lease, _undelivered: undelivered })
    }

    /// Answers the request in `message`, for whose memory `lease` stands.
    async fn answer_message(
        &self,
        send: &mut SendStream,
        message: Vec<u8>,
        mut lease: Lease,
    ) -> Option<(Vec<u8>, Option<Lease>)> {
        let now = Instant::now();
        let verdict = self.session().request(now, &message);
        let size = message.len();
        // The session has copied the payload.
        drop(message);
        match verdict {
            Ok(Verdict::Accepted(accepted)) => {
                self.metrics.accepted(now, translate::arrival(&accepted.payload, size));
                // Giving back does not fail.
                let _ = lease.resize(accepted.payload.size());
                let in_flight = InFlight { session: &self.session, id: accepted.id };
                let answered = tokio::select! {
                    biased;
                    answered = caught(self.answer(accepted, lease, now)) => Some(answered),
                    _ = send.stopped() => None,
                };
                let id = in_flight.id;
                // The frame is no longer in flight when the peer has its answer.
                drop(in_flight);
                match answered {
                    Some(Ok(answer)) => Some(answer),
                    Some(Err(panic)) => Some((self.panicked(id, &panic), None)),
                    None => {
                        self.metrics.abandoned(1);
                        None
                    }
                }
            }
            Ok(Verdict::Refused { id, bytes, refusal }) => {
                self.metrics.refused(Outcome::NotAccepted, refusal.code);
                tracing::debug!(peer = %self, id, reason = %refusal, "not accepted");
                Some((bytes, None))
            }
            Err(error) => {
                self.violation(Close::Violation, &error.to_string());
                None
            }
        }
    }

    /// Has the engine answer a frame, and encodes the reply or refusal. The lease is that of the frame's payload.
    async fn answer(&self, accepted: Accepted, lease: Lease, arrived: Instant) -> (Vec<u8>, Option<Lease>) {
        let Shared { engine, budget, .. } = &*self.shared;
        let id = accepted.id;
        let offer = self.offer.get().expect("requests are accepted after the hello");
        let tasks: Vec<u8> = accepted.task_requests.iter().map(|request| request.task).collect();
        let refuse = |refusal: Refusal| {
            self.metrics.refused(Outcome::Refused, refusal.code);
            tracing::debug!(peer = %self, id, reason = %refusal, "refused");
            (refused(id, refusal), None)
        };
        let (path, job) = match translate::job(offer, self.client(), accepted, arrived) {
            Ok(job) => job,
            Err(refusal) => return refuse(refusal),
        };
        let asked = Asked::new(&job.model, &job.queries, path);
        let answer = match engine.submit_releasing(job, lease, translate::outcome).await {
            Ok(answer) => answer,
            Err(refusal) => {
                self.log_decode_failure(id, &refusal);
                return refuse(translate::refusal(refusal));
            }
        };
        let (timings, groups) = (answer.timings, answer.groups);
        let bytes = match FrameReply::Answered(translate::reply(id, path, &tasks, answer)).encode() {
            Ok(bytes) => bytes,
            Err(error) => return refuse(Refusal::new(RefusalCode::TooLarge, error.to_string())),
        };
        let mut lease = budget.lease(Arc::clone(&self.device));
        if let Err(exhausted) = lease.resize(bytes.len()) {
            return refuse(self.no_memory(exhausted));
        }
        self.metrics.answered(arrived, &asked, &timings, groups);
        self.shared.load.observe(Instant::now(), timings.queue);
        tracing::debug!(peer = %self, id, %path, ?timings, bytes = bytes.len(), "answered");
        (bytes, Some(lease))
    }

    /// The device, as the scheduler knows it, with its rights as they are now.
    fn client(&self) -> Client {
        let terms = self.shared.rights(&self.device).map_or_else(Terms::default, |rights| rights.terms);
        Client { name: Arc::clone(&self.device), terms }
    }

    fn too_many_in_flight(&self) -> Refusal {
        let text = format!("the welcome allowed {}", self.shared.max_in_flight);
        Refusal::new(RefusalCode::TooManyInFlight, text)
    }

    /// The refusal of a request or reply for which the budget holds no memory.
    fn no_memory(&self, exhausted: Exhausted) -> Refusal {
        self.shared.metrics.no_memory.add(1);
        if self.shared.writes(Kind::NoMemory) {
            tracing::warn!(peer = %self, reason = %exhausted, "refused a frame for lack of memory (--request-memory)");
        }
        Refusal::new(RefusalCode::Busy, exhausted.to_string()).retry_after(RETRY)
    }

    /// The refusal of a frame whose task panicked.
    fn panicked(&self, id: u64, panic: &str) -> Vec<u8> {
        self.metrics.refused(Outcome::Refused, RefusalCode::Internal);
        self.log_panic(Some(id), panic);
        refused(id, Refusal::new(RefusalCode::Internal, "the server failed on this frame; its log has more"))
    }

    /// Logs the panic of a frame's task; `id` is the frame's number if it was accepted.
    fn log_panic(&self, id: Option<u64>, panic: &str) {
        if self.shared.writes(Kind::Panicked) {
            tracing::error!(peer = %self, id, panic = %Quoted(panic), "the frame's task panicked");
        }
    }

    /// Logs a packet or image that did not decode: the first of a connection as a warning, later ones for debugging, so that
    /// a peer cannot fill the log.
    fn log_decode_failure(&self, id: u64, refusal: &engine::Refusal) {
        if !matches!(refusal.reason, RefusalReason::BadLatent | RefusalReason::BadImage) {
            return;
        }
        let reason = Quoted(&refusal.text);
        if self.decode_failure_logged.swap(true, Ordering::Relaxed) {
            tracing::debug!(peer = %self, id, %reason, "not decoded");
        } else if self.shared.writes(Kind::NotDecoded) {
            tracing::warn!(peer = %self, id, %reason, "not decoded (more of this connection at debug level)");
        }
    }
}

/// Reads a request to the end of its stream or, where it holds a truncatable packet, until the time is over that it states.
///
/// # Errors
/// The inner error is that of the stream; the outer one says that the request did not arrive within `time`.
async fn read_request(
    receive: &mut RecvStream,
    message: &mut Vec<u8>,
    time: Duration,
    mut reserve: impl FnMut(usize) -> bool,
) -> Result<Result<(), StreamError>, Elapsed> {
    let (mut due, mut arrived, mut wait) = (Instant::now() + time, None, None);
    loop {
        match timeout_at(due.into(), read_chunk(receive, message, MAX_REQUEST, &mut reserve)).await {
            Ok(Ok(true)) => {}
            Ok(result) => return Ok(result.map(drop)),
            Err(_) if wait.is_some() => {
                let _ = receive.stop(code(Reset::Refused));
                return Ok(Ok(()));
            }
            Err(elapsed) => return Err(elapsed),
        }
        let arrived = *arrived.get_or_insert_with(Instant::now);
        if wait.is_none() {
            wait = truncatable_wait(message);
            due = due.min(wait.map_or(due, |wait| arrived + wait));
        }
    }
}

/// The message of a refusal.
fn refused(id: u64, refusal: Refusal) -> Vec<u8> {
    // A refusal's text is cut to its limit, so this does not fail.
    FrameReply::Refused { id, refusal }.encode().unwrap_or_default()
}

fn code(reset: Reset) -> VarInt {
    VarInt::from_u32(reset.into())
}

#[cfg(test)]
mod tests {
    use narrows_wire::{
        BundleId, Hello, Payload, Query, QueryKind, Request, TaskRequest,
        session::{Catalog, CatalogBundle, CatalogTask, HelloOutcome},
    };

    use super::*;

    /// A session that allows one frame in flight, and the bytes of a request.
    fn session() -> (Mutex<Server>, Vec<u8>) {
        let task = CatalogTask { name: "classify".into(), kind: QueryKind::Classify, unsplit: false };
        let bundles = vec![CatalogBundle { id: BundleId([7; 32]), tasks: vec![task] }];
        let mut server = Server::new(Arc::new(Catalog { bundles, max_in_flight: 1 }), Instant::now());
        let hello = Hello::new(vec![BundleId([7; 32])], vec!["classify".into()]).encode().unwrap();
        assert!(matches!(server.hello(&hello), Ok(HelloOutcome::Open(_))));
        let task_requests = vec![TaskRequest { task: 0, query: Query::Classify { top_k: 1 } }];
        let request =
            Request { id: 3, bundle: 0, budget: None, task_requests, payload: Payload::Packet(vec![1]) };
        (Mutex::new(server), request.encode().unwrap())
    }

    #[tokio::test]
    async fn a_frame_whose_task_panics_gives_its_place_back() {
        let (session, request) = session();
        for _ in 0..3 {
            let verdict = session.lock().unwrap().request(Instant::now(), &request);
            let Ok(Verdict::Accepted(accepted)) = verdict else { panic!("{verdict:?}") };
            let in_flight = InFlight { session: &session, id: accepted.id };
            let failed = caught(async move {
                let _in_flight = in_flight;
                tokio::task::yield_now().await;
                panic!("a fault of the server")
            });
            assert_eq!(failed.await, Err::<(), _>("a fault of the server".to_owned()));
            assert_eq!(session.lock().unwrap().in_flight(), 0);
        }
    }
}
