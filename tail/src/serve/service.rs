//! What a server tells its service manager: that it is ready, what it does, that it works, and that it ends.
#![expect(clippy::disallowed_methods, reason = "a network that hangs is one that did nothing for a time")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_service::{Notifier, next_tick, ticker};
use tokio::sync::watch;

use crate::{
    engine::Engine,
    frontend::{metrics::Outcome, quic::Shared},
};

/// How often the service manager is told what the server does, where that has changed.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// How long a network may have work and finish none of it before the server counts as stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Tells the service manager what the server does until the server ends.
pub(super) async fn report(
    notifier: Arc<Notifier>,
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    mut drain: watch::Receiver<bool>,
) {
    let mut ping = Notifier::watchdog().map(ticker);
    let mut status = ticker(STATUS_EVERY);
    let mut progress = Progress::default();
    let mut is_draining = false;
    loop {
        tokio::select! {
            () = next_tick(&mut ping) => {
                let expired = engine.metrics().expired.value();
                let models = engine.models();
                let networks = models.iter().flat_map(|model| model.networks()).map(|network| Load {
                    number: network.number,
                    waiting: network.waiting,
                    runs: network.runs.sizes().count() + network.runs.failed.value(),
                });
                if progress.goes_on(networks, expired, Instant::now()) {
                    notifier.alive();
                }
            }
            _ = status.tick() => if !is_draining {
                notifier.status(&words(&shared));
            },
            _ = drain.wait_for(|draining| *draining), if !is_draining => {
                is_draining = true;
                notifier.stopping("answering the frames that were accepted");
            }
        }
    }
}

/// In a few words what the server does.
pub(super) fn words(shared: &Shared) -> String {
    let (connections, totals) = (shared.peers().open(), shared.metrics().totals());
    let s = if connections == 1 { "" } else { "s" };
    let refused = totals.count(Outcome::Refused) + totals.count(Outcome::NotAccepted);
    format!(
        "{connections} connection{s}; {} frames answered, {refused} refused",
        totals.count(Outcome::Answered)
    )
}

/// The work of one network at a moment.
struct Load {
    /// What tells the network from others.
    number: usize,
    waiting: usize,
    /// Runs that have ended.
    runs: u64,
}

/// Whether the networks finish the work that they have.
#[derive(Default)]
struct Progress {
    /// Of each network: the runs that had ended, and since when it has had work without finishing any.
    networks: BTreeMap<usize, (u64, Instant)>,
    expired: u64,
}

impl Progress {
    /// Takes note of the work of every network at `now`, and of the frames that have expired in all; returns whether each has
    /// finished some within [`STUCK`], or had none.
    fn goes_on(&mut self, networks: impl Iterator<Item = Load>, expired: u64, now: Instant) -> bool {
        // Behind a run that hangs frames expire, and none may wait when it is looked.
        let has_expired = std::mem::replace(&mut self.expired, expired) != expired;
        let mut goes_on = true;
        let known = std::mem::take(&mut self.networks);
        for Load { number, waiting, runs } in networks {
            let last = known.get(&number).copied().unwrap_or((runs, now));
            let (before, since) = self.networks.entry(number).or_insert(last);
            if *before != runs || waiting == 0 && !has_expired {
                (*before, *since) = (runs, now);
            }
            goes_on &= now.saturating_duration_since(*since) < STUCK;
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_has_work_and_finishes_none_is_stuck() {
        let begin = Instant::now();
        let mut progress = Progress::default();
        let mut at = |second: u64, loads: [(usize, u64); 2], expired: u64| {
            let load = |(number, (waiting, runs))| Load { number, waiting, runs };
            let loads = loads.into_iter().enumerate().map(load);
            progress.goes_on(loads, expired, begin + Duration::from_secs(second))
        };
        assert!(at(0, [(0, 0), (5, 7)], 0));
        assert!(at(100, [(0, 0), (5, 8)], 0), "one network is idle, the other works");
        assert!(at(130, [(0, 0), (5, 8)], 0));
        assert!(at(159, [(3, 0), (5, 9)], 0));
        assert!(at(189, [(3, 0), (5, 10)], 0), "its work may have waited for less");
        assert!(!at(220, [(0, 0), (5, 11)], 4), "frames expire behind a run that hangs");
        assert!(at(230, [(0, 1), (5, 12)], 4));
    }
}
