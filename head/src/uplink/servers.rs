//! The servers of a run: which of them an attempt to connect tries, when the run moves to another one, and back.
//!
//! docs/servers.md has the table of what happens between servers.
#![expect(
    clippy::disallowed_methods,
    reason = "servers are left for a time, and attempts begin one after the other"
)]

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use super::connect::{Access, ConnectError, Connector, Session, Wait};
use crate::{
    config::{Server, ServerChoice},
    error::{Chain, Unavailable},
    policy::jitter,
};

/// Head start of each server over the next one in an attempt to connect.
const HEAD_START: Duration = Duration::from_millis(500);
/// Least time that the second of two servers is given once the first has answered, before the first is taken.
const PATIENCE: Duration = Duration::from_millis(200);
/// For how long a server that was lost comes after the others.
const LOST: Duration = Duration::from_secs(3);
/// The same for one that is shutting down.
const DRAINING: Duration = Duration::from_secs(10);
/// Longest time between two looks whether a preferred server is back.
const LOOK: Duration = Duration::from_secs(10);
/// The same while it is not.
const LOOK_AWAY: Duration = Duration::from_secs(60);
/// Mean time between two looks for a server with less load.
const BALANCE: Duration = Duration::from_secs(60);
/// Least time between two such looks, also where a server says that it is busy.
const BALANCE_LEAST: Duration = Duration::from_secs(2);
/// The waiting at a server below which no other one is looked for.
const LITTLE: Duration = Duration::from_millis(5);

/// The servers that were named, and at most one that another server named.
#[derive(Debug)]
pub(crate) struct Servers {
    access: Arc<Access>,
    choice: ServerChoice,
    return_after: Duration,
    entries: Mutex<Entries>,
    /// Woken where the present server says that it is busy.
    busy: Notify,
}

#[derive(Debug)]
struct Entries {
    list: Vec<Entry>,
    /// The server that a draining one named, until another is connected to.
    next: Option<Arc<Connector>>,
}

#[derive(Debug)]
struct Entry {
    connector: Arc<Connector>,
    /// Until when it comes after the others.
    avoided: Option<Instant>,
}

impl Servers {
    /// The servers at these addresses, of which there is at least one. With [`ServerChoice::Order`] an earlier one is returned to
    /// when it has been back for `return_after`.
    pub(crate) fn new(
        servers: Vec<Server>,
        access: &Arc<Access>,
        choice: ServerChoice,
        return_after: Duration,
    ) -> Self {
        let entry = |server| Entry { connector: Arc::new(Connector::new(server, access)), avoided: None };
        let entries = Entries { list: servers.into_iter().map(entry).collect(), next: None };
        let access = Arc::clone(access);
        Servers { access, choice, return_after, entries: Mutex::new(entries), busy: Notify::new() }
    }

    /// What all of them are connected to with.
    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The servers that the next attempt to connect tries, the first one first.
    pub(super) fn candidates(&self) -> Vec<Arc<Connector>> {
        let now = Instant::now();
        let entries = self.lock();
        let is_avoided = |entry: &&Entry| entry.avoided.is_some_and(|until| now < until);
        let (avoided, mut good): (Vec<_>, Vec<_>) = entries.list.iter().partition(is_avoided);
        if self.choice == ServerChoice::Load {
            shuffle(&mut good);
        }
        let listed = good.into_iter().chain(avoided).map(|entry| Arc::clone(&entry.connector));
        entries.next.iter().cloned().chain(listed).collect()
    }

    /// Attempts once to connect to one of the servers: in order, each with a head start over the next; or to two at once of which
    /// the one with less load is taken.
    ///
    /// # Errors
    /// Why there is no connection to any of them. It counts as lasting only where it is for all.
    pub(super) async fn connect(&self) -> Result<Session, ConnectError> {
        let candidates = self.candidates();
        let is_named = self.lock().next.is_some();
        let together = if self.choice == ServerChoice::Load && !is_named { 2 } else { 1 };
        let session = race(candidates, together).await?;
        self.lock().next = None;
        Ok(session)
    }

    /// Takes note that the connection to a server was lost.
    pub(super) fn lost(&self, connector: &Arc<Connector>) {
        self.avoid(connector, LOST);
    }

    /// Takes note that a server is shutting down, and which one it names in its place.
    pub(super) fn draining(&self, session: &Session) {
        self.avoid(&session.connector, DRAINING);
        let Some(standing) = session.client.standing().filter(|standing| !standing.next.is_empty()) else {
            return;
        };
        match Server::parse(&standing.next) {
            Ok(server) if server == *session.connector.server() => {}
            Ok(server) => {
                let mut entries = self.lock();
                let known = entries.list.iter().find(|entry| *entry.connector.server() == server);
                let known = known.map(|entry| Arc::clone(&entry.connector));
                entries.next = Some(known.unwrap_or_else(|| Arc::new(Connector::new(server, &self.access))));
            }
            Err(error) => {
                tracing::warn!("the server at {} names another one: {error}", session.connector.server());
            }
        }
    }

    /// Takes note that the present server refuses frames because it is busy.
    pub(super) fn note_busy(&self) {
        self.busy.notify_one();
    }

    /// Whether there is another server than this one to go to.
    pub(super) fn has_other(&self, connector: &Arc<Connector>) -> bool {
        let entries = self.lock();
        let mut all = entries.list.iter().map(|entry| &entry.connector).chain(&entries.next);
        all.any(|other| !Arc::ptr_eq(other, connector))
    }

    /// Waits until a better server than that of the session can be used, and connects to it: in order an earlier one that has been
    /// back for long enough, by load one that reports clearly less waiting.
    pub(super) async fn better(&self, current: Arc<Connector>, wait: Arc<Wait>) -> Session {
        match self.choice {
            ServerChoice::Order => self.earlier(&current).await,
            ServerChoice::Load => self.less_loaded(&current, &wait).await,
        }
    }

    async fn earlier(&self, current: &Arc<Connector>) -> Session {
        let earlier: Vec<_> = {
            let entries = self.lock();
            let all = entries.list.iter().map(|entry| &entry.connector);
            all.take_while(|connector| !Arc::ptr_eq(connector, current)).cloned().collect()
        };
        if earlier.is_empty() {
            return std::future::pending().await;
        }
        let least = Duration::from_millis(500);
        let look = (self.return_after / 3).clamp(least, LOOK);
        let (mut pause, mut back_since) = (look, None);
        loop {
            sleep(pause.mul_f64(0.75 + jitter() / 4.0)).await;
            match race(earlier.clone(), 1).await {
                Ok(session) => {
                    pause = look;
                    let now = Instant::now();
                    if now.duration_since(*back_since.get_or_insert(now)) >= self.return_after {
                        return session;
                    }
                    tokio::spawn(session.close());
                }
                Err(_) => {
                    back_since = None;
                    pause = (2 * pause).min(LOOK_AWAY);
                }
            }
        }
    }

    async fn less_loaded(&self, current: &Arc<Connector>, wait: &Wait) -> Session {
        loop {
            sleep(BALANCE_LEAST).await;
            tokio::select! {
                () = sleep(BALANCE.mul_f64(0.5 + jitter())) => {}
                () = self.busy.notified() => {}
            }
            let own = wait.mean();
            let mut others = self.candidates();
            others.retain(|other| !Arc::ptr_eq(other, current));
            others.truncate(1);
            if own < LITTLE || others.is_empty() {
                continue;
            }
            if let Ok(session) = race(others, 1).await {
                let other = session.client.standing().map_or(Duration::MAX, |standing| standing.wait);
                // Moving costs a round trip, and heads that all move at once would only move the queue.
                if other < own / 2 {
                    return session;
                }
                tokio::spawn(session.close());
            }
        }
    }

    fn avoid(&self, connector: &Arc<Connector>, span: Duration) {
        let until = Instant::now() + span;
        let mut entries = self.lock();
        let entry = entries.list.iter_mut().find(|entry| Arc::ptr_eq(&entry.connector, connector));
        if let Some(entry) = entry {
            // The end of its connection does not shorten the time for which one that is shutting down is left.
            entry.avoided = entry.avoided.max(Some(until));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.lock();
        for (position, entry) in entries.list.iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            write!(f, "{comma}{}", entry.connector.server())?;
        }
        Ok(())
    }
}

/// Connects to the first of `candidates` that answers. The first `together` begin at once, and of these the one with the least
/// load is taken; each other one begins when one has failed, or [`HEAD_START`] after the one before it.
async fn race(candidates: Vec<Arc<Connector>>, together: usize) -> Result<Session, ConnectError> {
    let began = Instant::now();
    let mut waiting = candidates.into_iter();
    let mut attempts = JoinSet::new();
    let begin = |attempts: &mut JoinSet<_>, connector: Arc<Connector>| {
        attempts.spawn(async move { (connector.server().to_string(), connector.connect().await) });
    };
    waiting.by_ref().take(together).for_each(|connector| begin(&mut attempts, connector));
    let mut failures = Vec::new();
    let mut best: Option<Session> = None;
    let mut wake = began + HEAD_START;
    loop {
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok((_, Ok(session)))) => match best.take() {
                    None if together > 1 && !attempts.is_empty() => {
                        best = Some(session);
                        wake = Instant::now() + began.elapsed().max(PATIENCE);
                    }
                    None => return Ok(session),
                    Some(other) => {
                        let (taken, left) = match load(&session) < load(&other) {
                            true => (session, other),
                            false => (other, session),
                        };
                        tokio::spawn(left.close());
                        return Ok(taken);
                    }
                },
                Some(Ok((server, Err(error)))) => failures.push((server, error)),
                Some(Err(error)) => failures.push((String::new(), Unavailable::Task(error).into())),
                None => match (best.take(), waiting.next()) {
                    (Some(session), _) => return Ok(session),
                    (None, Some(connector)) => {
                        begin(&mut attempts, connector);
                        wake = Instant::now() + HEAD_START;
                    }
                    (None, None) => return Err(joined(failures)),
                },
            },
            () = sleep_until(wake.into()), if best.is_some() || waiting.len() > 0 => match best.take() {
                Some(session) => return Ok(session),
                None => {
                    waiting.by_ref().take(1).for_each(|connector| begin(&mut attempts, connector));
                    wake = Instant::now() + HEAD_START;
                }
            },
        }
    }
}

/// What servers are chosen by: the waiting, and where that is the same the connections. One that does not say comes last.
fn load(session: &Session) -> (Duration, u32) {
    session
        .client
        .standing()
        .map_or((Duration::MAX, u32::MAX), |standing| (standing.wait, standing.connections))
}

/// The failures at several servers as one: it lasts only if all do.
fn joined(mut failures: Vec<(String, ConnectError)>) -> ConnectError {
    if failures.len() < 2 {
        return failures.pop().map_or_else(|| Unavailable::NoAnswer.into(), |(_, error)| error);
    }
    let is_silence = |error: &ConnectError| matches!(error, ConnectError::Transient(Unavailable::NoAnswer));
    if failures.iter().all(|(_, error)| is_silence(error)) {
        return Unavailable::NoAnswer.into();
    }
    if failures.iter().any(|(_, error)| matches!(error, ConnectError::Transient(_))) {
        let texts: Vec<_> =
            failures.iter().map(|(server, error)| format!("{server}: {}", Chain(error))).collect();
        let retry = failures.iter().filter_map(|(_, error)| match error {
            ConnectError::Transient(Unavailable::Busy(refusal)) => refusal.retry,
            _ => None,
        });
        return Unavailable::Several { reasons: texts.join("; "), retry: retry.min() }.into();
    }
    let unproven = failures.iter().position(|(_, error)| matches!(error, ConnectError::Unproven(_)));
    failures.swap_remove(unproven.unwrap_or(0)).1
}

/// Puts things into a random order.
fn shuffle<T>(things: &mut [T]) {
    for last in (1..things.len()).rev() {
        things.swap(last, ((last + 1) as f64 * jitter()) as usize % (last + 1));
    }
}

#[cfg(test)]
mod tests {
    use narrows_wire::{Refusal, RefusalCode};

    use super::*;
    use crate::Error;

    #[test]
    fn a_failure_lasts_only_where_it_does_at_every_server() {
        let silent = || ("a:1".to_owned(), ConnectError::from(Unavailable::NoAnswer));
        let lasting =
            || ("b:1".to_owned(), ConnectError::Permanent(Error::usage("--server", "refuses this head")));
        assert!(matches!(joined(vec![silent(), silent()]), ConnectError::Transient(Unavailable::NoAnswer)));
        assert!(matches!(joined(vec![lasting(), lasting()]), ConnectError::Permanent(_)));
        let both = joined(vec![silent(), lasting()]);
        let text = Chain(&both).to_string();
        assert!(matches!(both, ConnectError::Transient(Unavailable::Several { retry: None, .. })), "{text}");
        assert!(text.contains("a:1: it does not answer; b:1: ") && text.contains("refuses"), "{text}");
        let busy = |seconds| {
            let refusal =
                Refusal { retry: Some(Duration::from_secs(seconds)), ..Refusal::new(RefusalCode::Busy, "") };
            ("c:1".to_owned(), ConnectError::from(Unavailable::Busy(refusal)))
        };
        let hint = match joined(vec![busy(9), silent(), busy(5)]) {
            ConnectError::Transient(Unavailable::Several { retry, .. }) => retry,
            _ => None,
        };
        assert_eq!(hint, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_shuffle_loses_nothing() {
        let mut things: Vec<u32> = (0..20).collect();
        shuffle(&mut things);
        things.sort_unstable();
        assert_eq!(things, (0..20).collect::<Vec<_>>());
    }
}
