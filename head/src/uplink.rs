//! The connection to the server over a whole run: frames in, outcomes out.
//!
//! When a connection is lost, unanswered frames are sent again over the next one. While no server can be used, this device
//! answers them, if it can: at once if that will last, else when half of a frame's time has passed.
#![expect(clippy::disallowed_methods, reason = "the server is looked for within a given time")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

mod congestion;
mod connect;
mod decisions;
mod fallback;
mod notices;
mod planned;
mod probe;
mod queue;
mod resolve;
mod search;
mod servers;
mod spool;
#[cfg(test)]
mod tests;
mod transfer;

pub(crate) use connect::{Access, ConnectError, Connector, Session, dial, ended};
pub(crate) use decisions::{DecisionFile, DecisionLog};
pub(crate) use fallback::{Fallback, LocalAnswers};
pub(crate) use planned::Planning;
pub(crate) use probe::obstacle;
pub(crate) use queue::FrameQueue;
pub(crate) use resolve::Resolver;
pub(crate) use search::{Search, find};
pub(crate) use servers::Servers;
pub(crate) use spool::{SPOOLED_IN_FLIGHT, Spool};

use self::{
    search::given_up,
    transfer::{Transfer, TransferEnd},
};
use crate::{
    Error,
    error::{Chain, Unavailable},
    report::RunState,
    shutdown::Shutdown,
};

/// Takes encoded frames to the server and ends every one of them.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) servers: Arc<Servers>,
    pub(crate) queue: FrameQueue,
    /// For frames whose level is chosen when they are sent.
    pub(crate) planning: Option<Planning>,
    /// How long to look for a server that was lost.
    pub(crate) retry_for: Duration,
    /// Where frames go that no server answers; `None` if this device does not answer them either.
    pub(crate) fallback: Option<Fallback>,
    pub(crate) shutdown: Shutdown,
    /// Told which server is connected to.
    pub(crate) state: Arc<RunState>,
}

/// A server that cannot be used.
struct Away {
    since: Instant,
    /// When the search is given up, or with a local network: when it answers every frame at once.
    until: Instant,
    /// Why the newest attempt failed.
    failure: Option<ConnectError>,
}

impl Uplink {
    /// Works until no frames are left. `first` is the result of connecting for the first time.
    ///
    /// # Errors
    /// What ended the run early. The frames that were left have failed.
    pub(crate) async fn run(mut self, first: Result<Session, Error>) -> Result<(), Error> {
        let mut search = Search::new(Arc::clone(&self.servers));
        let mut session = match first {
            Ok(session) => session,
            Err(error) => {
                self.state.note_away(&self.servers.to_string(), &Chain(&error).to_string());
                search.restart(Duration::ZERO, false);
                let away = Away::given_up(error);
                match self.find_again(&mut search, away).await? {
                    Some(session) => {
                        tracing::warn!(
                            "the server at {} is there; frames that wait: {}",
                            session.server(),
                            self.queue.len()
                        );
                        session
                    }
                    None => return Ok(()),
                }
            }
        };
        let mut away: Option<Away> = None;
        loop {
            self.state.note_connected(&session.server().to_string());
            let mut replies = 0;
            let rtt = session.connection.rtt();
            let fallback = self.fallback.as_ref();
            let transfer = Transfer::new(
                &mut session,
                &self.servers,
                &mut self.queue,
                fallback,
                &mut search,
                self.planning.as_mut(),
            );
            match transfer.run(&self.shutdown, &mut replies).await {
                TransferEnd::Done => {
                    session.close().await;
                    return Ok(());
                }
                TransferEnd::Stopped => {
                    self.fail_interrupted().await;
                    session.close().await;
                    return Ok(());
                }
                TransferEnd::Replaced(new, why) => {
                    self.report_change(&session, &new, why);
                    tokio::spawn(std::mem::replace(&mut session, *new).close());
                    away = None;
                }
                TransferEnd::Lost(reason) => {
                    self.servers.lost(&session.connector);
                    self.state.note_away(&session.server().to_string(), &Chain(&reason).to_string());
                    let (server, unanswered) = (session.server(), self.queue.len());
                    tracing::warn!(
                        "lost the server at {server}: {}; unanswered frames: {unanswered}",
                        Chain(&reason)
                    );
                    // A server that accepts connections and drops them without an answer is not back: its time runs on.
                    let answered = replies > 0 || away.is_none();
                    search.restart(rtt, answered);
                    let now = Instant::now();
                    let lost = match away.take().filter(|_| !answered) {
                        Some(away) => Away { failure: Some(reason.into()), ..away },
                        None => {
                            Away { since: now, until: now + self.retry_for, failure: Some(reason.into()) }
                        }
                    };
                    let (since, until) = (lost.since, lost.until);
                    match self.find_again(&mut search, lost).await? {
                        Some(new) => {
                            self.report_change(&session, &new, "is back");
                            session = new;
                        }
                        None => return Ok(()),
                    }
                    away = Some(Away { since, until, failure: None });
                }
            }
        }
    }

    /// Looks for the server until it is found, no frames are left, or, without a local network, hope is lost. Meanwhile frames
    /// end by their deadlines, or are answered here.
    async fn find_again(&mut self, search: &mut Search, mut away: Away) -> Result<Option<Session>, Error> {
        let (mut open, mut draining) = (true, false);
        let mut told = String::new();
        loop {
            let now = Instant::now();
            let has_spool = self.queue.spool().is_some();
            // This device answers frames, or keeps them, without a server.
            let has_alternative = self.fallback.is_some() || has_spool;
            // A run that is asked to end has no time to wait for the server where this device can answer.
            let over = away.is_over(now) || (draining && has_alternative);
            let reason = away.reason(&self.servers, search);
            if has_alternative && over && told != away.cause(search) {
                let what =
                    if self.fallback.is_some() { "this device answers" } else { "frames wait on disk" };
                tracing::warn!("{reason}; {what} until the server is back");
                told = away.cause(search);
            }
            match &self.fallback {
                Some(fallback) => self.queue.answer_locally(fallback, &reason, (!over).then_some(now)),
                None if has_spool => self.queue.spool_waiting(&reason, (!over).then_some(now)),
                None if over => {
                    let error = given_up(&self.servers, away.since.elapsed(), away.failure, search);
                    self.queue.fail_remaining(&format!("no answer: {}", Chain(&error))).await;
                    return Err(error);
                }
                None => self.queue.drop_expired(),
            }
            if self.queue.is_exhausted() {
                return Ok(None);
            }
            let due = self.queue.next_due(has_alternative);
            let wake = due.into_iter().chain((!over).then_some(away.until)).min();
            tokio::select! {
                biased;
                () = self.shutdown.stopped() => {
                    self.fail_interrupted().await;
                    return Ok(None);
                }
                () = self.shutdown.draining(), if !draining => draining = true,
                found = search.next() => match found {
                    Ok(session) => return Ok(Some(session)),
                    Err(error) => away.learn(error, has_alternative),
                },
                frame = self.queue.receive(), if open => match frame {
                    Some(frame) => self.queue.push(frame),
                    None => open = false,
                },
                () = sleep_until(wake.unwrap_or(now).into()), if wake.is_some() => {}
            }
        }
    }

    /// Says which server is used from now on, and `why` it is.
    fn report_change(&self, from: &Session, to: &Session, why: &str) {
        let (before, server, resent) = (from.server(), to.server(), self.queue.len());
        match before == server {
            true => tracing::warn!("the server at {server} {why}; frames that are sent again: {resent}"),
            false => tracing::warn!(
                "the server at {server} takes the place of the one at {before}; frames that are sent again: {resent}"
            ),
        }
    }

    async fn fail_interrupted(&mut self) {
        self.queue.fail_remaining("interrupted before the answer came").await;
    }
}

impl Away {
    /// A server that was looked for in vain.
    fn given_up(error: Error) -> Self {
        let now = Instant::now();
        let (since, failure) = match error {
            Error::Unreachable { source, waited, .. } => {
                (now.checked_sub(waited).unwrap_or(now), ConnectError::Transient(*source))
            }
            error => (now, ConnectError::Permanent(error)),
        };
        Away { since, until: now, failure: Some(failure) }
    }

    /// Whether the search is given up, or goes on behind a local network that answers every frame.
    fn is_over(&self, now: Instant) -> bool {
        now >= self.until || matches!(self.failure, Some(ConnectError::Permanent(_)))
    }

    /// Takes note of a failed attempt. `has_alternative` tells whether this device answers frames or keeps them on disk.
    fn learn(&mut self, error: ConnectError, has_alternative: bool) {
        // It will not mend itself, so frames need not wait.
        if has_alternative && !matches!(error, ConnectError::Transient(_)) {
            self.until = self.since;
        }
        self.failure = Some(error);
    }

    /// Why the server does not answer, for the lines of frames that this device answers.
    fn reason(&self, servers: &Servers, search: &Search) -> String {
        let cause = self.cause(search);
        match &self.failure {
            Some(ConnectError::Unproven(_) | ConnectError::Permanent(_)) => cause,
            _ => {
                let waited = self.since.elapsed().as_secs_f64();
                format!("no server at {servers} within {waited:.1} s: {cause}")
            }
        }
    }

    /// The cause without the time that has passed.
    fn cause(&self, search: &Search) -> String {
        match &self.failure {
            Some(ConnectError::Transient(Unavailable::NoAnswer)) | None => search.no_answer().to_string(),
            Some(error) => Chain(error).to_string(),
        }
    }
}
