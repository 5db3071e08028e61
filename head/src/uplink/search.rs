//! Looking for the server: attempts that overlap while nobody answers, at a pace that depends on how they fail.
#![expect(clippy::disallowed_methods, reason = "attempts are made within a given time")]

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::{
    task::{AbortHandle, JoinSet},
    time::{sleep_until, timeout_at},
};

use super::{
    connect::{ConnectError, Session},
    probe::obstacle,
    servers::Servers,
};
use crate::{
    Error,
    error::{Chain, Unavailable},
    obstacle::Obstacle,
    policy::{Pace, jitter},
};

/// Time between attempts at the start, when the round trip time is not known. Each attempt repeats its own packets.
const START: Duration = Duration::from_secs(2);
/// Shortest time between attempts after a loss.
const SHORTEST: Duration = Duration::from_millis(300);
/// Most attempts at once. The oldest runs to its end, so that a slow path has its time; younger ones are replaced.
const MOST: usize = 3;
/// Shortest patience: what `--retry-for 0` gives one attempt.
const LEAST_PATIENCE: Duration = Duration::from_millis(900);

/// A search for the server. It can be paused and taken up again; what it has learnt about the pace stays.
#[derive(Debug)]
pub(crate) struct Search {
    servers: Arc<Servers>,
    attempts: JoinSet<Result<Session, ConnectError>>,
    running: VecDeque<AbortHandle>,
    pace: Pace,
    interval: Duration,
    next: Instant,
    obstacle: Arc<OnceLock<Obstacle>>,
    /// Whether the operating system has been asked about the way.
    looked: bool,
}

impl Search {
    /// A search that begins at once.
    pub(crate) fn new(servers: Arc<Servers>) -> Self {
        let now = Instant::now();
        Search {
            servers,
            attempts: JoinSet::new(),
            running: VecDeque::new(),
            pace: Pace::new(now),
            interval: START,
            next: now,
            obstacle: Arc::default(),
            looked: false,
        }
    }

    /// Begins anew after the loss of a connection with this round trip time. `answered` tells whether frames were answered on
    /// it; a server that takes connections and answers nothing is not back, so the pauses go on growing.
    pub(super) fn restart(&mut self, rtt: Duration, answered: bool) {
        let now = Instant::now();
        self.stop();
        self.interval = SHORTEST.max(rtt);
        self.obstacle = Arc::default();
        self.looked = false;
        match answered {
            true => {
                self.pace = Pace::new(now);
                // Devices that lost a server at the same moment do not all return at that moment.
                self.next = now + SHORTEST.mul_f64(jitter() / 4.0);
            }
            false => self.next = now + self.pace.after_failure(jitter()),
        }
    }

    /// Gives up the attempts that run.
    pub(super) fn stop(&mut self) {
        self.running.clear();
        self.attempts = JoinSet::new();
    }

    /// Waits for the next attempt to succeed or to fail, and begins attempts meanwhile. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Session, ConnectError> {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.attempts.join_next() => match ended {
                    Ok(Ok(session)) => {
                        // Another attempt that succeeds now would hold a connection of the server for nothing.
                        self.stop();
                        return Ok(session);
                    }
                    Ok(Err(error)) => return Err(self.failed(error)),
                    // It was replaced by a younger one.
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => return Err(self.failed(Unavailable::Task(error).into())),
                },
                () = sleep_until(self.next.into()) => self.begin(),
            }
        }
    }

    /// Why nobody has answered yet.
    pub(super) fn no_answer(&self) -> Unavailable {
        match self.obstacle.get() {
            Some(obstacle) => Unavailable::Blocked(obstacle.clone()),
            None => Unavailable::NoAnswer,
        }
    }

    fn begin(&mut self) {
        let now = Instant::now();
        self.running.retain(|attempt| !attempt.is_finished());
        if self.running.len() >= MOST
            && let Some(second) = self.running.remove(1)
        {
            second.abort();
        }
        let (servers, obstacle) = (Arc::clone(&self.servers), Arc::clone(&self.obstacle));
        let first = !std::mem::replace(&mut self.looked, true);
        self.running.push_back(self.attempts.spawn(async move {
            let attempt = servers.connect();
            tokio::pin!(attempt);
            tokio::select! {
                ended = &mut attempt => return ended,
                // The operating system is asked about the way once in a search, while nobody answers.
                () = look(&servers, &obstacle), if first => {}
            }
            attempt.await
        }));
        self.next = now + self.pace.while_silent(now, self.interval);
    }

    /// Sets the pause after a failure, and words it.
    fn failed(&mut self, error: ConnectError) -> ConnectError {
        let pause = match &error {
            // Other attempts are under way.
            ConnectError::Transient(Unavailable::NoAnswer) => return self.no_answer().into(),
            ConnectError::Transient(Unavailable::Busy(refusal)) => {
                self.pace.after_refusal(refusal.retry, jitter())
            }
            ConnectError::Transient(Unavailable::Several { retry: hint @ Some(_), .. }) => {
                self.pace.after_refusal(*hint, jitter())
            }
            ConnectError::Transient(_) => self.pace.after_failure(jitter()),
            ConnectError::Unproven(Error::Certificate { fault, .. }) if fault.is_of_time() => {
                self.pace.after_failure(jitter())
            }
            ConnectError::Unproven(_) | ConnectError::Permanent(_) => self.pace.after_lasting(jitter()),
        };
        self.next = Instant::now() + pause;
        error
    }
}

/// Keeps the first obstacle on the way to any address of the server.
async fn look(servers: &Servers, found: &OnceLock<Obstacle>) {
    for connector in servers.candidates() {
        for address in connector.resolve().await.unwrap_or_default() {
            if let Some(obstacle) = obstacle(address).await {
                // Another attempt may have found one at the same time.
                let _ = found.set(obstacle);
                return;
            }
        }
    }
}

/// Looks for the server until it is found or `patience` has passed.
///
/// # Errors
/// Why there is no server after `patience`: [`Error::Unreachable`], or the certificate that was shown in its place. At once
/// what the authenticated server says to last, and with `impatient` everything that will not mend itself.
pub(crate) async fn find(
    servers: &Arc<Servers>,
    patience: Duration,
    impatient: bool,
) -> Result<Session, Error> {
    let started = Instant::now();
    let deadline = started + patience.max(LEAST_PATIENCE);
    let mut search = Search::new(Arc::clone(servers));
    let mut failure = None;
    let mut last_reason = String::new();
    loop {
        let error = match timeout_at(deadline.into(), search.next()).await {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(ConnectError::Permanent(error))) => return Err(error),
            Ok(Err(ConnectError::Unproven(error))) if impatient => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => return Err(given_up(servers, started.elapsed(), failure, &search)),
        };
        // A reason is reported once, not after every attempt.
        let reason = Chain(&error).to_string();
        if last_reason != reason {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs_f64();
            tracing::warn!("no server at {servers} yet: {reason}; trying for {left:.1} s more");
            last_reason = reason;
        }
        failure = Some(error);
    }
}

/// The error of a search that is given up: the last failure, or that nobody answered.
pub(super) fn given_up(
    servers: &Servers,
    waited: Duration,
    failure: Option<ConnectError>,
    search: &Search,
) -> Error {
    let source = match failure {
        Some(ConnectError::Unproven(error) | ConnectError::Permanent(error)) => return error,
        Some(ConnectError::Transient(Unavailable::NoAnswer)) | None => search.no_answer(),
        Some(ConnectError::Transient(reason)) => reason,
    };
    Error::Unreachable { server: servers.to_string(), waited, source: Box::new(source) }
}
