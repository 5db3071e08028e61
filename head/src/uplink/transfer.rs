//! Requests and replies over one connection: a stream for each frame, the newest frame with the highest priority.
#![expect(clippy::disallowed_methods, reason = "requests carry what is left of a frame's budget")]

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_wire::{
    Close, ErrorKind, FrameReply, Payload, RefusalCode,
    quic::{PathState, close, close_code, path_state},
    stream::StreamError,
};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, unbounded_channel},
        oneshot,
    },
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};

mod planned;
mod request;
mod spooled;

use self::request::{RequestResult, send_request};
use super::{
    congestion::LinkState,
    connect::{ConnectError, Session},
    fallback::Fallback,
    planned::{Planned, Planning},
    queue::FrameQueue,
    search::Search,
    servers::Servers,
    spool::SpoolWay,
};
use crate::{
    error::{Chain, Unavailable},
    frame::{Encoded, Frame, Load, Outcome, SpoolEnd, Traffic},
    policy::{Liveness, Silence},
    shutdown::Shutdown,
};

/// Time between two looks at whether the server is heard, while it owes something.
const LISTEN: Duration = Duration::from_millis(50);

/// Time between two looks at this device's own address.
const ROAM: Duration = Duration::from_millis(500);

/// Longest time that the frames in flight are waited for before a move to another server. Those without an answer by then are
/// sent again there.
const MOVE: Duration = Duration::from_millis(500);

/// How the exchange of frames over a connection ended.
pub(super) enum TransferEnd {
    /// Every frame is answered and none can come.
    Done,
    /// The run was stopped.
    Stopped,
    /// The connection cannot be used any more; unanswered frames are in the resend queue.
    Lost(Unavailable),
    /// A new connection takes the place of this one, for this reason; unanswered frames are in the resend queue.
    Replaced(Box<Session>, &'static str),
}

/// Pause after the spool had no frame to give, mostly because the line of one that was answered is not written yet.
const SPOOL_PAUSE: Duration = Duration::from_millis(50);

/// The waiting at a server that is too busy for a frame and does not say when to try again.
const BUSY: Duration = Duration::from_millis(100);

/// The frames in flight on one connection.
pub(super) struct Transfer<'a> {
    session: &'a mut Session,
    servers: &'a Arc<Servers>,
    queue: &'a mut FrameQueue,
    fallback: Option<&'a Fallback>,
    /// Looks for the server elsewhere while it is silent here.
    search: &'a mut Search,
    requests: JoinSet<(u64, RequestResult)>,
    /// Frames without a reply by request id. Bounded by the server's limit.
    in_flight: BTreeMap<u64, InFlight>,
    silence: Silence,
    suspected: bool,
    /// The frames whose level is chosen when they are sent, where the run has such.
    planned: Option<Planned<'a>>,
}

/// A frame without a reply.
struct InFlight {
    frame: Frame<Encoded>,
    /// Size of the request.
    sent: usize,
    /// Dropping it gives the request up.
    _request: oneshot::Sender<()>,
}

/// What a reply means for the connection.
enum AfterReply {
    /// The frame is finished and the connection goes on.
    Finished,
    /// The server is shutting down and did not accept this frame.
    Draining(Frame<Encoded>),
    /// The connection cannot be used any more; the frame is given back if it may be sent again.
    Lost(Option<Frame<Encoded>>, Unavailable),
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        session: &'a mut Session,
        servers: &'a Arc<Servers>,
        queue: &'a mut FrameQueue,
        fallback: Option<&'a Fallback>,
        search: &'a mut Search,
        planning: Option<&'a mut Planning>,
    ) -> Self {
        let silence = Silence::new(path_state(&session.connection).received);
        let planned = planning.zip(LinkState::of(&session.connection));
        let planned = planned.map(|(planning, link)| Planned::new(planning, link));
        Transfer {
            session,
            servers,
            queue,
            fallback,
            search,
            requests: JoinSet::new(),
            in_flight: BTreeMap::new(),
            silence,
            suspected: false,
            planned,
        }
    }

    /// Sends frames and handles replies until the connection ends; adds to `replies` how many frames finished.
    pub(super) async fn run(mut self, shutdown: &Shutdown, replies: &mut usize) -> TransferEnd {
        let end = self.exchange(shutdown, replies).await;
        let unanswered = std::mem::take(&mut self.in_flight).into_values().map(|request| request.frame);
        let waiting = self.planned.as_mut().map(|planned| planned.take_waiting(|_| true));
        self.queue.push_unanswered(unanswered.chain(waiting.into_iter().flatten()));
        end
    }

    async fn exchange(&mut self, shutdown: &Shutdown, replies: &mut usize) -> TransferEnd {
        let (mut open, mut draining) = (true, false);
        // The connection to another server, and until when the frames in flight on this one are waited for.
        let mut moving: Option<(Box<Session>, Instant)> = None;
        // A frame that the spool was asked for, and when to ask it again.
        let mut taking: Option<oneshot::Receiver<Option<Frame<Encoded>>>> = None;
        let mut ask_spool_at = Instant::now();
        let mut ending = false;
        let servers = Arc::clone(self.servers);
        let mut better =
            pin!(servers.better(Arc::clone(&self.session.connector), Arc::clone(&self.session.wait)));
        let mut listening = interval(LISTEN);
        let mut roaming = interval(ROAM);
        roaming.set_missed_tick_behavior(MissedTickBehavior::Delay);
        listening.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while !draining
                && moving.is_none()
                && (self.planned.is_some() || self.session.client.room() > 0)
                && let Some(frame) = self.queue.pop()
            {
                self.send(frame);
            }
            if moving.is_none() {
                self.send_planned();
            }
            let has_spooled = self.queue.spool().is_some_and(SpoolWay::has_frames);
            if has_spooled
                && taking.is_none()
                && !ending
                && !draining
                && !self.suspected
                && moving.is_none()
                && ask_spool_at <= Instant::now()
                && self.may_take_spooled()
            {
                taking = self.queue.spool().map(SpoolWay::take);
            }
            let planned = self.planned.as_ref();
            let is_waiting = planned.is_some_and(Planned::is_waiting);
            let has_live = self.in_flight.values().any(|request| !request.frame.is_from_spool());
            let spool_is_done = ending || (!has_spooled && taking.is_none() && self.in_flight.is_empty());
            if !open && !has_live && self.queue.is_empty() && !is_waiting && spool_is_done {
                return TransferEnd::Done;
            }
            let ask_spool = (has_spooled && taking.is_none()).then_some(ask_spool_at);
            let ask_spool = ask_spool.filter(|at| *at > Instant::now());
            let wake = planned.and_then(|planned| planned.wake);
            let link = planned.map(|planned| Arc::clone(&planned.link));
            let moves = moving.take_if(|(_, until)| self.in_flight.is_empty() || *until <= Instant::now());
            if let Some((session, _)) = moves {
                return TransferEnd::Replaced(session, "is used again");
            }
            if draining && self.in_flight.is_empty() {
                return TransferEnd::Lost(Unavailable::ShuttingDown);
            }
            let move_at = moving.as_ref().map(|(_, until)| *until);
            // Frames that wait for room are sent or end with those in flight; those of a server that drains wait for nothing.
            let due = self.queue.next_due(self.fallback.is_some()).filter(|_| draining);
            tokio::select! {
                biased;
                Some(request) = self.requests.join_next() => {
                    let (id, result) = match request {
                        Ok(request) => request,
                        Err(error) => return TransferEnd::Lost(Unavailable::Task(error)),
                    };
                    if let Some(planned) = &mut self.planned {
                        planned.ended(id);
                    }
                    let Some(InFlight { frame, sent, .. }) = self.in_flight.remove(&id) else { continue };
                    match self.handle_reply(id, frame, sent, result) {
                        AfterReply::Finished => *replies += 1,
                        // The server still answers the frames that it has accepted; the others wait for its return.
                        AfterReply::Draining(frame) => {
                            if !draining {
                                draining = true;
                                self.leave();
                            }
                            self.queue.push(frame);
                            let waiting = self.planned.as_mut().map(|planned| planned.take_waiting(|_| true));
                            self.queue.push_unanswered(waiting.into_iter().flatten());
                        }
                        AfterReply::Lost(frame, error) => {
                            frame.into_iter().for_each(|frame| self.queue.push(frame));
                            return self.lost(error, moving);
                        }
                    }
                }
                frame = self.queue.receive(),
                    if open && (draining || planned.is_some() || self.session.client.room() > 0) => match frame {
                    Some(frame) => self.queue.push(frame),
                    None => open = false,
                },
                error = self.session.connection.closed() => {
                    if close_code(&error) == Some(Close::Draining) {
                        self.servers.draining(self.session);
                    }
                    let error = self.session.connector.ended(error).into();
                    return self.lost(error, moving);
                }
                () = shutdown.stopped() => return TransferEnd::Stopped,
                () = shutdown.draining(), if !ending => ending = true,
                frame = taken(&mut taking) => {
                    taking = None;
                    match frame {
                        Some(frame) => self.send_spooled(frame),
                        None => ask_spool_at = Instant::now() + SPOOL_PAUSE,
                    }
                }
                () = sleep_until(ask_spool.unwrap_or_else(Instant::now).into()), if ask_spool.is_some() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => self.end_waiting(),
                found = self.search.next(), if self.suspected && moving.is_none() => match found {
                    Ok(session) if draining => moving = Some((Box::new(session), Instant::now() + MOVE)),
                    Ok(session) => return TransferEnd::Replaced(Box::new(session), "did not answer any more and was connected to anew"),
                    Err(error @ ConnectError::Permanent(_)) if !draining => return TransferEnd::Lost(error.into()),
                    // Anybody may say that; this connection may still come back.
                    Err(_) => {}
                },
                session = &mut better, if moving.is_none() && !draining && !self.suspected => {
                    moving = Some((Box::new(session), Instant::now() + MOVE));
                    // What has not been sent to this server is sent to the other one.
                    let waiting = self.planned.as_mut().map(|planned| planned.take_waiting(|_| true));
                    self.queue.push_unanswered(waiting.into_iter().flatten());
                }
                () = sleep_until(move_at.unwrap_or_else(Instant::now).into()), if move_at.is_some() => {}
                _ = listening.tick(), if self.silence.is_owed() => self.listen(draining),
                _ = roaming.tick() => self.roam(draining),
                // What is to be sent next is decided above.
                () = changed(link.as_deref()) => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
            }
        }
    }

    /// Looks for another server, where there is one, because this one is shutting down.
    fn leave(&mut self) {
        self.servers.draining(self.session);
        if self.servers.has_other(&self.session.connector) {
            self.suspected = true;
            self.search.restart(self.session.connection.rtt(), true);
        }
    }

    /// The end of a connection that cannot be used any more, where perhaps another one is at hand.
    fn lost(&self, error: Unavailable, moving: Option<(Box<Session>, Instant)>) -> TransferEnd {
        match moving {
            Some((session, _)) => TransferEnd::Replaced(session, "is back"),
            None => TransferEnd::Lost(error),
        }
    }

    /// Looks whether this device's address has changed; the connection goes on from the new one.
    fn roam(&mut self, draining: bool) {
        let Some(address) = self.session.roam() else { return };
        tracing::warn!(
            "this device's address is {address} now; the connection to the server at {} goes on from there",
            self.session.server()
        );
        // What was not heard until now says nothing about the server.
        let PathState { received, .. } = path_state(&self.session.connection);
        self.silence = Silence::new(received);
        if !self.in_flight.is_empty() {
            self.silence.sent(Instant::now(), received);
        }
        if !draining && std::mem::take(&mut self.suspected) {
            self.search.stop();
        }
    }

    /// Looks whether the server is heard. While it is not, it is looked for anew, and frames end by their deadlines.
    fn listen(&mut self, leaving: bool) {
        let now = Instant::now();
        let PathState { rtt, received, .. } = path_state(&self.session.connection);
        // A frame that this device can answer is not kept for longer than half of its time by a server that is gone.
        let patience = match self.fallback {
            Some(_) => {
                let live = self.in_flight.values().filter(|request| !request.frame.is_from_spool());
                live.map(|request| request.frame.budget() / 4).min()
            }
            None => None,
        };
        let outstanding = !self.in_flight.is_empty();
        let patience = patience.unwrap_or(Duration::MAX);
        match self.silence.observe(now, received, rtt, outstanding, patience) {
            Liveness::Probe => self.session.ask(),
            Liveness::Silent if !self.suspected => {
                tracing::debug!("the server at {} is silent; connecting anew", self.session.server());
                self.suspected = true;
                self.search.restart(rtt, true);
            }
            Liveness::Silent | Liveness::Waiting => {}
            // A server that is shutting down is heard and left all the same.
            Liveness::Heard if leaving => {}
            Liveness::Heard => {
                if std::mem::take(&mut self.suspected) {
                    self.search.stop();
                }
            }
        }
        if let Some(fallback) = self.fallback.filter(|_| self.silence.is_unanswered(now, rtt)) {
            self.answer_locally(fallback, now);
        }
    }

    /// Ends the frames that have waited as long as they may for a server that is shutting down.
    fn end_waiting(&mut self) {
        match self.fallback {
            Some(fallback) => {
                let reason = format!("the server at {} is shutting down", self.session.server());
                self.queue.answer_locally(fallback, &reason, Some(Instant::now()));
            }
            None => self.queue.drop_expired(),
        }
    }

    /// Has this device answer the frames that have waited for half of their time.
    fn answer_locally(&mut self, fallback: &Fallback, now: Instant) {
        let reason = format!("the server at {} is silent", self.session.server());
        self.queue.answer_locally(fallback, &reason, Some(now));
        if let Some(planned) = &mut self.planned {
            let waiting = planned.take_waiting(|frame| frame.halfway() <= now);
            waiting.into_iter().for_each(|frame| fallback.answer(frame, reason.as_str().into()));
        }
        let live = self.in_flight.iter().filter(|(_, request)| !request.frame.is_from_spool());
        let due = live.filter(|(_, request)| request.frame.halfway() <= now);
        for id in due.map(|(&id, _)| id).collect::<Vec<_>>() {
            if let Some(request) = self.in_flight.remove(&id) {
                if let Some(planned) = &mut self.planned {
                    planned.ended(id);
                }
                self.session.client.abandon(id);
                fallback.answer(request.frame, reason.as_str().into());
            }
        }
    }

    /// Starts the request of a frame, or plans it if its level is not chosen yet.
    fn send(&mut self, frame: Frame<Encoded>) {
        let now = Instant::now();
        let payload = match (&frame.stage.load, &mut self.planned) {
            // The frame keeps its payload in case it must be sent again.
            (Load::Payload(payload), _) => payload.clone(),
            (Load::Latent(_), Some(planned)) => {
                let last_answer = last_answer(self.fallback, &frame);
                let Some(frame) = planned.add(now, frame, last_answer) else { return };
                return self.queue.reject(frame, "no level can be chosen for it".to_owned());
            }
            (Load::Latent(_), None) => {
                let reason = "the connection does not report its deliveries".to_owned();
                return self.queue.reject(frame, reason);
            }
        };
        match self.request(now, &frame, payload) {
            Ok((id, bytes)) => {
                let sent = bytes.len();
                let (whole, chunks) = unbounded_channel();
                whole.send(bytes).ok();
                self.start(now, id, frame, sent, chunks);
            }
            Err(reason) => self.queue.reject(frame, reason),
        }
    }

    /// Encodes a request and gives it a number; an error says why the frame cannot be sent.
    fn request(
        &mut self,
        now: Instant,
        frame: &Frame<Encoded>,
        payload: Payload,
    ) -> Result<(u64, Vec<u8>), String> {
        let (deadline, tasks) = (Some(frame.plan.deadline), frame.plan.tasks.to_vec());
        let request = self.session.client.request(now, self.session.bundle, deadline, tasks, payload);
        request.map_err(|error| format!("cannot be sent: {}", Chain(&error)))
    }

    /// Starts the exchange of request `id`, whose bytes come from `chunks`.
    fn start(
        &mut self,
        now: Instant,
        id: u64,
        frame: Frame<Encoded>,
        sent: usize,
        chunks: UnboundedReceiver<Vec<u8>>,
    ) {
        // The newest frame is worth most, and those from the spool come behind all others.
        let newest = i32::try_from(frame.id.0).unwrap_or(i32::MAX);
        let priority = if frame.is_from_spool() { i32::MIN } else { newest };
        let deadline = last_answer(self.fallback, &frame);
        self.silence.sent(now, path_state(&self.session.connection).received);
        let (request, given_up) = oneshot::channel();
        self.in_flight.insert(id, InFlight { frame, sent, _request: request });
        let connection = self.session.connection.clone();
        self.requests
            .spawn(async move { (id, send_request(connection, priority, deadline, chunks, given_up).await) });
    }

    /// Finishes a frame with the result of its request, unless it may be sent again.
    fn handle_reply(
        &mut self,
        id: u64,
        mut frame: Frame<Encoded>,
        sent: usize,
        result: RequestResult,
    ) -> AfterReply {
        let server: Arc<str> = self.session.server().to_string().into();
        if let Some(planned) = &self.planned {
            planned.spend(Instant::now(), &mut frame, sent);
        }
        let client = &mut self.session.client;
        let outcome = match result {
            RequestResult::Reply(bytes, received_at) => {
                let traffic = Traffic { server, sent, received: bytes.len(), received_at };
                match client.reply(received_at, id, &bytes).map(|answered| answered.reply) {
                    Ok(FrameReply::Answered(reply)) => {
                        if let Some(planned) = &mut self.planned {
                            planned.answered(&reply.timings);
                        }
                        self.session.wait.observe(reply.timings.queue);
                        Outcome::Answered { reply, traffic }
                    }
                    Ok(FrameReply::Refused { refusal, .. }) => match refusal.code {
                        RefusalCode::Draining => return AfterReply::Draining(frame),
                        // It has no time or has failed, which says nothing about the frame.
                        RefusalCode::Busy
                        | RefusalCode::Expired
                        | RefusalCode::Internal
                        | RefusalCode::TooManyInFlight => {
                            if refusal.code == RefusalCode::Busy {
                                self.session.wait.observe(refusal.retry.unwrap_or(BUSY));
                                self.servers.note_busy();
                            }
                            let reason = refusal.to_string();
                            return self.replace(frame, &reason, Outcome::Refused { refusal, traffic });
                        }
                        _ => Outcome::Refused { refusal, traffic },
                    },
                    Err(error) => {
                        let reason = Chain(&error).to_string();
                        if error.kind() == ErrorKind::Peer {
                            close(&self.session.connection, Close::Violation, &reason);
                        }
                        match &mut frame.spooled {
                            // It may be what the server stumbles over, and is not sent for ever.
                            Some(spooled) if spooled.is_sent() => spooled.end(SpoolEnd::Failed),
                            _ => {
                                self.replace(frame, &reason, Outcome::Failed(reason.clone()));
                            }
                        }
                        return AfterReply::Lost(None, Unavailable::Reply(error));
                    }
                }
            }
            RequestResult::GivenUp => {
                client.abandon(id);
                let budget = frame.budget().as_millis();
                let reason = format!("no answer within the budget of {budget} ms");
                let failed = Outcome::Failed(reason.clone());
                return self.replace(frame, &reason, failed);
            }
            RequestResult::Failed(StreamError::Connection(end)) => {
                return AfterReply::Lost(Some(frame), self.session.connector.ended(end.0).into());
            }
            RequestResult::Failed(error) => {
                client.abandon(id);
                let reason = Chain(&error).to_string();
                let failed = Outcome::Failed(format!("no answer: {reason}"));
                return self.replace(frame, &reason, failed);
            }
        };
        self.queue.finish(frame, outcome);
        AfterReply::Finished
    }

    /// Has this device answer a frame that the server did not, because of `reason`; without a local network it ends with
    /// `outcome`.
    fn replace(&self, frame: Frame<Encoded>, reason: &str, outcome: Outcome) -> AfterReply {
        match self.fallback.filter(|_| !frame.is_from_spool()) {
            Some(fallback) => {
                fallback.answer(frame, format!("the server at {}: {reason}", self.session.server()).into());
            }
            None => self.queue.finish(frame, outcome),
        }
        AfterReply::Finished
    }
}

/// Until when the server's answer to a frame is waited for.
fn last_answer(fallback: Option<&Fallback>, frame: &Frame<Encoded>) -> Instant {
    let fallback = fallback.filter(|_| !frame.is_from_spool());
    fallback.map_or(frame.plan.deadline, |fallback| fallback.due(frame))
}

/// Waits for the frame that the spool was asked for, or for ever where it was not. Cancel safe.
async fn taken(taking: &mut Option<oneshot::Receiver<Option<Frame<Encoded>>>>) -> Option<Frame<Encoded>> {
    match taking {
        Some(taking) => taking.await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Waits until the model of the link has changed, or for ever without one.
async fn changed(link: Option<&LinkState>) {
    match link {
        Some(link) => link.changed.notified().await,
        None => std::future::pending().await,
    }
}
