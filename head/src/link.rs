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
    dial::{Dialer, Miss, Session},
    frame::{Ended, Ending, Shot},
    policy::Backoff,
};

/// Shortest time that a try at reaching the server is given, however little patience is left.
const TRY_LEAST: Duration = Duration::from_secs(1);

/// Pause between tries at reaching the server while this device stands in for it, and the longest that one takes.
const MEANWHILE: Duration = Duration::from_secs(2);

/// Takes shots, gives endings; every shot that came in ends.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) dialer: Dialer,
    pub(crate) task_requests: Vec<TaskRequest>,
    pub(crate) retry_for: Duration,
    pub(crate) shots: Receiver<Shot>,
    pub(crate) endings: Sender<Ended>,
    /// Where frames go that no server answers, and why none does.
    pub(crate) fallback: Option<Sender<(Shot, String)>>,
    /// True once nobody waits for answers any more.
    pub(crate) stop: watch::Receiver<bool>,
    /// Shots that were out when a connection was lost.
    pub(crate) again: VecDeque<Shot>,
}

/// How a connection ended.
enum End {
    /// No shots are left.
    Done,
    /// Nobody waits for answers any more.
    Stopped,
    /// The connection is gone; with what could not be answered.
    Lost(String),
}

/// How a frame's stream ended.
enum Flight {
    Reply(Vec<u8>, Instant),
    Late,
    Gone(StreamError),
}

/// What a flight means for its frame and the connection.
enum Landed {
    /// The frame has been reported.
    Ended,
    /// The server is shutting down and did not take the frame.
    Leaving(Shot),
    /// The connection is of no more use; the frame, if it may go out again, and why.
    Lost(Option<Shot>, String),
}

impl Link {
    /// Works until no shots are left; `first` is what came of looking for the server.
    ///
    /// # Errors
    /// What ended the run early; the shots that were left have been reported as failed.
    pub(crate) async fn run(mut self, first: Result<Session, Error>) -> Result<(), Error> {
        let mut session = match first {
            Ok(session) => session,
            Err(error) => match self.stand_in(error).await? {
                Some(session) => session,
                None => return Ok(()),
            },
        };
        let mut backoff = None;
        loop {
            let mut answered = 0;
            match self.serve(&mut session, &mut answered).await {
                End::Done => {
                    session.close().await;
                    return Ok(());
                }
                End::Stopped => {
                    self.give_up("interrupted before the answer came");
                    session.close().await;
                    return Ok(());
                }
                End::Lost(reason) => {
                    let server = self.dialer.server();
                    tracing::warn!(
                        "lost the server at {server}: {reason}; unanswered frames: {}",
                        self.again.len()
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
                        Err(error) => match self.stand_in(error).await? {
                            Some(new) => (session, backoff) = (new, None),
                            None => return Ok(()),
                        },
                    }
                }
            }
        }
    }

    /// Sends shots and takes replies until the connection ends.
    async fn serve(&mut self, session: &mut Session, answered: &mut usize) -> End {
        let mut flights = JoinSet::new();
        let mut out: BTreeMap<u64, (Shot, usize)> = BTreeMap::new();
        let (mut open, mut leaving) = (true, false);
        let end = loop {
            while !leaving
                && session.client.room() > 0
                && let Some(shot) = self.again.pop_front()
            {
                if let Some(shot) = self.in_time(shot) {
                    self.send(session, shot, &mut flights, &mut out);
                }
            }
            if !open && out.is_empty() && self.again.is_empty() {
                break End::Done;
            }
            if leaving && out.is_empty() {
                break End::Lost("it is shutting down".to_owned());
            }
            tokio::select! {
                biased;
                Some(flight) = flights.join_next() => {
                    let Ok((id, flight)) = flight else { break End::Lost("a task failed".to_owned()) };
                    let Some((shot, sent)) = out.remove(&id) else { continue };
                    match self.land(session, id, shot, sent, flight) {
                        Landed::Ended => *answered += 1,
                        // What it has accepted it still answers; the rest is for the server that comes back.
                        Landed::Leaving(shot) => {
                            leaving = true;
                            self.again.push_back(shot);
                        }
                        Landed::Lost(shot, reason) => {
                            self.again.extend(shot);
                            break End::Lost(reason);
                        }
                    }
                }
                shot = self.shots.recv(), if open && !leaving && session.client.room() > 0 => match shot {
                    Some(shot) => self.again.push_back(shot),
                    None => open = false,
                },
                error = session.connection.closed() => break End::Lost(self.dialer.judge(&error).to_string()),
                () = stopped(&mut self.stop) => break End::Stopped,
            }
        };
        self.again.extend(out.into_values().map(|(shot, _)| shot));
        self.again.make_contiguous().sort_by_key(|shot| shot.number);
        end
    }

    fn send(
        &self,
        session: &mut Session,
        shot: Shot,
        flights: &mut JoinSet<(u64, Flight)>,
        out: &mut BTreeMap<u64, (Shot, usize)>,
    ) {
        let (task_requests, deadline) = (self.task_requests.clone(), shot.deadline);
        // The payload is kept in case it must go out again.
        let request = session.client.request(
            Instant::now(),
            session.bundle,
            Some(deadline),
            task_requests,
            shot.payload.clone(),
        );
        match request {
            Ok((id, bytes)) => {
                let sent = bytes.len();
                // The newest frame is worth most.
                let priority = i32::try_from(shot.number).unwrap_or(i32::MAX);
                out.insert(id, (shot, sent));
                let connection = session.connection.clone();
                flights.spawn(async move { (id, fly(connection, priority, deadline, bytes).await) });
            }
            Err(error) => self.end(shot, Ending::Failed(format!("cannot be sent: {error}"))),
        }
    }

    /// Reports what came of a flight, if it came to an end.
    fn land(&self, session: &mut Session, id: u64, shot: Shot, sent: usize, flight: Flight) -> Landed {
        let ending = match flight {
            Flight::Reply(bytes, at) => {
                let received = bytes.len();
                match session.client.reply(at, id, &bytes).map(|answered| answered.reply) {
                    Ok(FrameReply::Answered(reply)) => Ending::Answered { reply, sent, received, at },
                    Ok(FrameReply::Refused { refusal, .. }) => match refusal.code {
                        RefusalCode::Draining => return Landed::Leaving(shot),
                        _ => Ending::Refused { refusal, sent, received, at },
                    },
                    Err(error) => {
                        self.end(shot, Ending::Failed(error.to_string()));
                        if error.kind() == ErrorKind::Peer {
                            close(&session.connection, Close::Violation, &error.to_string());
                        }
                        return Landed::Lost(None, error.to_string());
                    }
                }
            }
            Flight::Late => {
                session.client.abandon(id);
                Ending::Failed(format!("no answer within the budget of {} ms", shot.budget().as_millis()))
            }
            Flight::Gone(StreamError::Connection(error)) => {
                return Landed::Lost(Some(shot), self.dialer.judge(&error).to_string());
            }
            Flight::Gone(error) => {
                session.client.abandon(id);
                Ending::Failed(format!("no answer: {error}"))
            }
        };
        self.end(shot, ending);
        Landed::Ended
    }

    /// Looks for the server until it is back, patience runs out, or there is nothing to send.
    async fn reconnect(&mut self, backoff: &mut Backoff, lost: &str) -> Result<Option<Session>, Error> {
        let started = Instant::now();
        let mut reason = lost.to_owned();
        loop {
            let due: Vec<Shot> = self.again.drain(..).collect();
            self.again = due.into_iter().filter_map(|shot| self.in_time(shot)).collect();
            if self.again.is_empty() && self.shots.is_closed() && self.shots.is_empty() {
                return Ok(None);
            }
            let Some(pause) = backoff.next(Instant::now(), chance()) else {
                let server = self.dialer.server().to_string();
                return Err(Error::Unreachable { server, waited: started.elapsed(), reason });
            };
            let left = backoff.deadline().saturating_duration_since(Instant::now() + pause).max(TRY_LEAST);
            let attempt = async {
                tokio::time::sleep(pause).await;
                self.dialer.dial(left).await
            };
            tokio::select! {
                () = stopped(&mut self.stop) => {
                    self.give_up("interrupted before the answer came");
                    return Ok(None);
                }
                attempt = attempt => match attempt {
                    Ok(session) => {
                        tracing::warn!("the server at {} is back; frames that go out again: {}", self.dialer.server(), self.again.len());
                        return Ok(Some(session));
                    }
                    Err(Miss::Lasting(error)) => return Err(error),
                    Err(Miss::Passing(why)) => reason = why,
                },
            }
        }
    }

    /// Has frames answered on this device until the server is back or no frame is left.
    ///
    /// # Errors
    /// `error`, if it is not that the server is away or nothing here can answer, and what makes looking further
    /// useless; the frames have failed then.
    async fn stand_in(&mut self, error: Error) -> Result<Option<Session>, Error> {
        let (Some(fallback), Error::Unreachable { .. }) = (self.fallback.clone(), &error) else {
            self.give_up(&format!("no answer: {error}"));
            return Err(error);
        };
        let why = error.to_string();
        tracing::warn!("{why}; this device answers until the server is back");
        loop {
            let attempt = {
                let mut attempt = pin!(async {
                    tokio::time::sleep(MEANWHILE).await;
                    self.dialer.dial(MEANWHILE).await
                });
                loop {
                    for shot in self.again.drain(..) {
                        // The thread that answers outlives the link unless it has failed, which ends the run.
                        fallback.send((shot, why.clone())).ok();
                    }
                    tokio::select! {
                        () = stopped(&mut self.stop) => break None,
                        shot = self.shots.recv() => match shot {
                            Some(shot) => self.again.push_back(shot),
                            None => return Ok(None),
                        },
                        attempt = &mut attempt => break Some(attempt),
                    }
                }
            };
            let Some(attempt) = attempt else {
                self.give_up("interrupted before the answer came");
                return Ok(None);
            };
            match attempt {
                Ok(session) => {
                    tracing::warn!("the server at {} is back", self.dialer.server());
                    return Ok(Some(session));
                }
                Err(Miss::Lasting(error)) => {
                    self.give_up(&format!("no answer: {error}"));
                    return Err(error);
                }
                Err(Miss::Passing(_)) => {}
            }
        }
    }

    /// The shot, unless its time is over; then that is reported.
    fn in_time(&self, shot: Shot) -> Option<Shot> {
        if shot.deadline > Instant::now() {
            return Some(shot);
        }
        let reason =
            format!("its budget of {} ms was spent while the server was away", shot.budget().as_millis());
        self.end(shot, Ending::Failed(reason));
        None
    }

    /// Ends every shot that is left.
    fn give_up(&mut self, reason: &str) {
        self.shots.close();
        for shot in self.again.drain(..) {
            self.endings.send(Ended { shot, ending: Ending::Failed(reason.to_owned()) }).ok();
        }
        while let Ok(shot) = self.shots.try_recv() {
            self.endings.send(Ended { shot, ending: Ending::Failed(reason.to_owned()) }).ok();
        }
    }

    fn end(&self, shot: Shot, ending: Ending) {
        // The reporter outlives the link unless it has failed, and then says so itself.
        self.endings.send(Ended { shot, ending }).ok();
    }
}

/// Tries to reach the server for the first time.
///
/// # Errors
/// [`Error::Unreachable`] after `patience`, or at once what no other try would change.
pub(crate) async fn reach(dialer: &Dialer, patience: Duration) -> Result<Session, Error> {
    let started = Instant::now();
    let mut backoff = Backoff::new(started, patience);
    let mut left = patience.max(TRY_LEAST);
    let mut told = String::new();
    loop {
        let reason = match dialer.dial(left).await {
            Ok(session) => return Ok(session),
            Err(Miss::Lasting(error)) => return Err(error),
            Err(Miss::Passing(reason)) => reason,
        };
        let now = Instant::now();
        let Some(pause) = backoff.next(now, chance()) else {
            let server = dialer.server().to_string();
            return Err(Error::Unreachable { server, waited: started.elapsed(), reason });
        };
        left = backoff.deadline().saturating_duration_since(now);
        // The same news is told once.
        if told != reason {
            let server = dialer.server();
            tracing::warn!(
                "no server at {server} yet: {reason}; trying for {:.1} s more",
                left.as_secs_f64()
            );
            told = reason;
        }
        tokio::time::sleep(pause).await;
        left = left.saturating_sub(pause).max(TRY_LEAST);
    }
}

/// Returns once nobody waits for answers any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// One request and its reply on a stream of their own.
async fn fly(connection: Connection, priority: i32, deadline: Instant, request: Vec<u8>) -> Flight {
    let (mut send, mut receive) = match timeout_at(deadline.into(), connection.open_bi()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Flight::Gone(StreamError::Connection(error)),
        Err(_) => return Flight::Late,
    };
    // Fails only for a stream that is closed, which writing would tell as well.
    let _ = send.set_priority(priority);
    let exchange = async {
        write_message(&mut send, &request).await?;
        read_message(&mut receive, MAX_REPLY).await
    };
    match timeout_at(deadline.into(), exchange).await {
        Ok(Ok(bytes)) => Flight::Reply(bytes, Instant::now()),
        Ok(Err(error)) => Flight::Gone(error),
        Err(_) => {
            let stale = VarInt::from_u32(Reset::Stale.into());
            let _ = send.reset(stale);
            let _ = receive.stop(stale);
            Flight::Late
        }
    }
}

/// A number from 0 to 1; good enough to keep devices from marching in step.
fn chance() -> f64 {
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}
