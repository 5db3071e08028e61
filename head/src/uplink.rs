//! The link: one stream per frame, newest first; when the server is lost, unanswered frames go out again.
#![expect(
    clippy::disallowed_methods,
    reason = "frames have deadlines and the server is looked for within a time"
)]

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use narrows_wire::{
    Close, ErrorKind, FrameReply, RefusalCode, Reset, TaskRequest,
    limits::MAX_REPLY,
    quic::close,
    stream::{StreamError, read_message, write_message},
};
use quinn::{Connection, VarInt};
use tokio::{
    sync::{mpsc::Receiver, watch},
    task::JoinSet,
    time::timeout_at,
};

use crate::{
    Error,
    connect::{ConnectError, Connector, Session},
    frame::{FinishedFrame, Frame, Outcome},
    policy::Backoff,
};

/// Shortest time that a try at reaching the server is given, however little patience is left.
const MIN_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause between tries at reaching the server while this device stands in for it, and the longest that one takes.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Takes shots, gives endings; every shot that came in ends.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) connector: Connector,
    pub(crate) task_requests: Vec<TaskRequest>,
    pub(crate) retry_for: Duration,
    pub(crate) frames: Receiver<Frame>,
    pub(crate) outcomes: Sender<FinishedFrame>,
    /// Where frames go that no server answers, and why none does.
    pub(crate) fallback: Option<Sender<(Frame, String)>>,
    /// True once nobody waits for answers any more.
    pub(crate) stop: watch::Receiver<bool>,
    /// Shots that were out when a connection was lost.
    pub(crate) resend: VecDeque<Frame>,
}

/// How a connection ended.
enum ConnectionEnd {
    /// No shots are left.
    Done,
    /// Nobody waits for answers any more.
    Stopped,
    /// The connection is gone; with what could not be answered.
    Lost(String),
}

/// How a frame's stream ended.
enum RequestResult {
    Reply(Vec<u8>, Instant),
    Late,
    Gone(StreamError),
}

/// What a flight means for its frame and the connection.
enum AfterReply {
    /// The frame has been reported.
    FinishedFrame,
    /// The server is shutting down and did not take the frame.
    Leaving(Frame),
    /// The connection is of no more use; the frame, if it may go out again, and why.
    Lost(Option<Frame>, String),
}

impl Uplink {
    /// Works until no shots are left; `first` is what came of looking for the server.
    ///
    /// # Errors
    /// What ended the run early; the shots that were left have been reported as failed.
    pub(crate) async fn run(mut self, first: Result<Session, Error>) -> Result<(), Error> {
        let mut session = match first {
            Ok(session) => session,
            Err(error) => match self.serve_locally(error).await? {
                Some(session) => session,
                None => return Ok(()),
            },
        };
        let mut backoff = None;
        loop {
            let mut answered = 0;
            match self.exchange_frames(&mut session, &mut answered).await {
                ConnectionEnd::Done => {
                    session.close().await;
                    return Ok(());
                }
                ConnectionEnd::Stopped => {
                    self.fail_remaining("interrupted before the answer came");
                    session.close().await;
                    return Ok(());
                }
                ConnectionEnd::Lost(reason) => {
                    let server = self.connector.server();
                    tracing::warn!(
                        "lost the server at {server}: {reason}; unanswered frames: {}",
                        self.resend.len()
                    );
                    // A server that takes connections and drops them again is not a server that is back.
                    if answered > 0 {
                        backoff = None;
                    }
                    let patience =
                        backoff.get_or_insert_with(|| Backoff::new(Instant::now(), self.retry_for));
                    match self.reconnect(patience, &reason).await {
                        Ok(Some(new)) => session = new,
                        Ok(None) => return Ok(()),
                        Err(error) => match self.serve_locally(error).await? {
                            Some(new) => (session, backoff) = (new, None),
                            None => return Ok(()),
                        },
                    }
                }
            }
        }
    }

    /// Sends shots and takes replies until the connection ends.
    async fn exchange_frames(&mut self, session: &mut Session, answered: &mut usize) -> ConnectionEnd {
        let mut requests = JoinSet::new();
        let mut out: BTreeMap<u64, (Frame, usize)> = BTreeMap::new();
        let (mut open, mut leaving) = (true, false);
        let finish = loop {
            while !leaving
                && session.client.room() > 0
                && let Some(frame) = self.resend.pop_front()
            {
                if let Some(frame) = self.unless_expired(frame) {
                    self.send(session, frame, &mut requests, &mut out);
                }
            }
            if !open && out.is_empty() && self.resend.is_empty() {
                break ConnectionEnd::Done;
            }
            if leaving && out.is_empty() {
                break ConnectionEnd::Lost("it is shutting down".to_owned());
            }
            tokio::select! {
                biased;
                Some(result) = requests.join_next() => {
                    let Ok((id, result)) = result else { break ConnectionEnd::Lost("a task failed".to_owned()) };
                    let Some((frame, sent)) = out.remove(&id) else { continue };
                    match self.handle_reply(session, id, frame, sent, result) {
                        AfterReply::FinishedFrame => *answered += 1,
                        // What it has accepted it still answers; the rest is for the server that comes back.
                        AfterReply::Leaving(frame) => {
                            leaving = true;
                            self.resend.push_back(frame);
                        }
                        AfterReply::Lost(frame, reason) => {
                            self.resend.extend(frame);
                            break ConnectionEnd::Lost(reason);
                        }
                    }
                }
                frame = self.frames.recv(), if open && !leaving && session.client.room() > 0 => match frame {
                    Some(frame) => self.resend.push_back(frame),
                    None => open = false,
                },
                error = session.connection.closed() => break ConnectionEnd::Lost(self.connector.classify(&error).to_string()),
                () = stopped(&mut self.stop) => break ConnectionEnd::Stopped,
            }
        };
        self.resend.extend(out.into_values().map(|(frame, _)| frame));
        self.resend.make_contiguous().sort_by_key(|frame| frame.number);
        finish
    }

    fn send(
        &self,
        session: &mut Session,
        frame: Frame,
        requests: &mut JoinSet<(u64, RequestResult)>,
        out: &mut BTreeMap<u64, (Frame, usize)>,
    ) {
        let (task_requests, deadline) = (self.task_requests.clone(), frame.deadline);
        // The payload is kept in case it must go out again.
        let request = session.client.request(
            Instant::now(),
            session.bundle,
            Some(deadline),
            task_requests,
            frame.payload.clone(),
        );
        match request {
            Ok((id, bytes)) => {
                let sent = bytes.len();
                // The newest frame is worth most.
                let priority = i32::try_from(frame.number).unwrap_or(i32::MAX);
                out.insert(id, (frame, sent));
                let connection = session.connection.clone();
                requests
                    .spawn(async move { (id, send_request(connection, priority, deadline, bytes).await) });
            }
            Err(error) => self.finish(frame, Outcome::Failed(format!("cannot be sent: {error}"))),
        }
    }

    /// Reports what came of a flight, if it came to an end.
    fn handle_reply(
        &self,
        session: &mut Session,
        id: u64,
        frame: Frame,
        sent: usize,
        result: RequestResult,
    ) -> AfterReply {
        let outcome = match result {
            RequestResult::Reply(bytes, at) => {
                let received = bytes.len();
                match session.client.reply(at, id, &bytes).map(|answered| answered.reply) {
                    Ok(FrameReply::Answered(reply)) => Outcome::Answered { reply, sent, received, at },
                    Ok(FrameReply::Refused { refusal, .. }) => match refusal.code {
                        RefusalCode::Draining => return AfterReply::Leaving(frame),
                        _ => Outcome::Refused { refusal, sent, received, at },
                    },
                    Err(error) => {
                        self.finish(frame, Outcome::Failed(error.to_string()));
                        if error.kind() == ErrorKind::Peer {
                            close(&session.connection, Close::Violation, &error.to_string());
                        }
                        return AfterReply::Lost(None, error.to_string());
                    }
                }
            }
            RequestResult::Late => {
                session.client.abandon(id);
                Outcome::Failed(format!("no answer within the budget of {} ms", frame.budget().as_millis()))
            }
            RequestResult::Gone(StreamError::Connection(error)) => {
                return AfterReply::Lost(Some(frame), self.connector.classify(&error).to_string());
            }
            RequestResult::Gone(error) => {
                session.client.abandon(id);
                Outcome::Failed(format!("no answer: {error}"))
            }
        };
        self.finish(frame, outcome);
        AfterReply::FinishedFrame
    }

    /// Looks for the server until it is back, patience runs out, or there is nothing to send.
    async fn reconnect(&mut self, backoff: &mut Backoff, lost: &str) -> Result<Option<Session>, Error> {
        let started = Instant::now();
        let mut reason = lost.to_owned();
        loop {
            let due: Vec<Frame> = self.resend.drain(..).collect();
            self.resend = due.into_iter().filter_map(|frame| self.unless_expired(frame)).collect();
            if self.resend.is_empty() && self.frames.is_closed() && self.frames.is_empty() {
                return Ok(None);
            }
            let Some(pause) = backoff.next(Instant::now(), random_unit()) else {
                let server = self.connector.server().to_string();
                return Err(Error::Unreachable { server, waited: started.elapsed(), reason });
            };
            let left =
                backoff.deadline().saturating_duration_since(Instant::now() + pause).max(MIN_CONNECT_TIMEOUT);
            let attempt = async {
                tokio::time::sleep(pause).await;
                self.connector.connect(left).await
            };
            tokio::select! {
                () = stopped(&mut self.stop) => {
                    self.fail_remaining("interrupted before the answer came");
                    return Ok(None);
                }
                attempt = attempt => match attempt {
                    Ok(session) => {
                        tracing::warn!("the server at {} is back; frames that go out again: {}", self.connector.server(), self.resend.len());
                        return Ok(Some(session));
                    }
                    Err(ConnectError::Permanent(error)) => return Err(error),
                    Err(ConnectError::Transient(why)) => reason = why,
                },
            }
        }
    }

    /// Has frames answered on this device until the server is back or no frame is left.
    ///
    /// # Errors
    /// `error`, if it is not that the server is away or nothing here can answer, and what makes looking further
    /// useless; the frames have failed then.
    async fn serve_locally(&mut self, error: Error) -> Result<Option<Session>, Error> {
        let (Some(fallback), Error::Unreachable { .. }) = (self.fallback.clone(), &error) else {
            self.fail_remaining(&format!("no answer: {error}"));
            return Err(error);
        };
        let why = error.to_string();
        tracing::warn!("{why}; this device answers until the server is back");
        loop {
            let attempt = {
                let mut attempt = pin!(async {
                    tokio::time::sleep(RETRY_PERIOD).await;
                    self.connector.connect(RETRY_PERIOD).await
                });
                loop {
                    for frame in self.resend.drain(..) {
                        // The thread that answers outlives the link unless it has failed, which ends the run.
                        fallback.send((frame, why.clone())).ok();
                    }
                    tokio::select! {
                        () = stopped(&mut self.stop) => break None,
                        frame = self.frames.recv() => match frame {
                            Some(frame) => self.resend.push_back(frame),
                            None => return Ok(None),
                        },
                        attempt = &mut attempt => break Some(attempt),
                    }
                }
            };
            let Some(attempt) = attempt else {
                self.fail_remaining("interrupted before the answer came");
                return Ok(None);
            };
            match attempt {
                Ok(session) => {
                    tracing::warn!("the server at {} is back", self.connector.server());
                    return Ok(Some(session));
                }
                Err(ConnectError::Permanent(error)) => {
                    self.fail_remaining(&format!("no answer: {error}"));
                    return Err(error);
                }
                Err(ConnectError::Transient(_)) => {}
            }
        }
    }

    /// The shot, unless its time is over; then that is reported.
    fn unless_expired(&self, frame: Frame) -> Option<Frame> {
        if frame.deadline > Instant::now() {
            return Some(frame);
        }
        let reason =
            format!("its budget of {} ms was spent while the server was away", frame.budget().as_millis());
        self.finish(frame, Outcome::Failed(reason));
        None
    }

    /// Ends every shot that is left.
    fn fail_remaining(&mut self, reason: &str) {
        self.frames.close();
        for frame in self.resend.drain(..) {
            self.outcomes.send(FinishedFrame { frame, outcome: Outcome::Failed(reason.to_owned()) }).ok();
        }
        while let Ok(frame) = self.frames.try_recv() {
            self.outcomes.send(FinishedFrame { frame, outcome: Outcome::Failed(reason.to_owned()) }).ok();
        }
    }

    fn finish(&self, frame: Frame, outcome: Outcome) {
        // The reporter outlives the link unless it has failed, and then says so itself.
        self.outcomes.send(FinishedFrame { frame, outcome }).ok();
    }
}

/// Tries to reach the server for the first time.
///
/// # Errors
/// [`Error::Unreachable`] after `patience`, or at once what no other try would change.
pub(crate) async fn connect_with_retry(connector: &Connector, patience: Duration) -> Result<Session, Error> {
    let started = Instant::now();
    let mut backoff = Backoff::new(started, patience);
    let mut left = patience.max(MIN_CONNECT_TIMEOUT);
    let mut last_reason = String::new();
    loop {
        let reason = match connector.connect(left).await {
            Ok(session) => return Ok(session),
            Err(ConnectError::Permanent(error)) => return Err(error),
            Err(ConnectError::Transient(reason)) => reason,
        };
        let now = Instant::now();
        let Some(pause) = backoff.next(now, random_unit()) else {
            let server = connector.server().to_string();
            return Err(Error::Unreachable { server, waited: started.elapsed(), reason });
        };
        left = backoff.deadline().saturating_duration_since(now);
        // The same news is told once.
        if last_reason != reason {
            let server = connector.server();
            tracing::warn!(
                "no server at {server} yet: {reason}; trying for {:.1} s more",
                left.as_secs_f64()
            );
            last_reason = reason;
        }
        tokio::time::sleep(pause).await;
        left = left.saturating_sub(pause).max(MIN_CONNECT_TIMEOUT);
    }
}

/// Returns once nobody waits for answers any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// One request and its reply on a stream of their own.
async fn send_request(
    connection: Connection,
    priority: i32,
    deadline: Instant,
    request: Vec<u8>,
) -> RequestResult {
    let (mut send, mut receive) = match timeout_at(deadline.into(), connection.open_bi()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return RequestResult::Gone(StreamError::Connection(error)),
        Err(_) => return RequestResult::Late,
    };
    // Fails only for a stream that is closed, which writing would tell as well.
    let _ = send.set_priority(priority);
    let exchange = async {
        write_message(&mut send, &request).await?;
        read_message(&mut receive, MAX_REPLY).await
    };
    match timeout_at(deadline.into(), exchange).await {
        Ok(Ok(bytes)) => RequestResult::Reply(bytes, Instant::now()),
        Ok(Err(error)) => RequestResult::Gone(error),
        Err(_) => {
            let stale = VarInt::from_u32(Reset::Stale.into());
            let _ = send.reset(stale);
            let _ = receive.stop(stale);
            RequestResult::Late
        }
    }
}

/// A number from 0 to 1; good enough to keep devices from marching in step.
fn random_unit() -> f64 {
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}
