//! Batches: frames of one shape that wait for a network and may share one inference run (pure).
//!
//! A frame that finds a worker free runs at once; frames gather only while all workers are busy, or for the time that
//! [`BatchLimits::wait`] allows. Work whose deadline has passed, or that nobody waits for any more, never runs. Frames are
//! taken oldest first. Frames of one key share a run; the key is the geometry, so a batch may mix rate levels.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// The limits of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Frames in one run, at least 1.
    pub size: usize,
    /// Time that the oldest frame may wait for others of its shape while a worker is free.
    pub wait: Duration,
}

/// Waiting work by key.
#[derive(Debug)]
pub(super) struct Batcher<K, W> {
    limits: BatchLimits,
    queues: BTreeMap<K, VecDeque<Item<W>>>,
    waiting: usize,
}

/// One frame's work that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item<W> {
    /// The time of its arrival.
    pub(super) arrived: Instant,
    /// The time by which its run must have begun.
    pub(super) deadline: Option<Instant>,
    /// The work.
    pub(super) work: W,
}

/// The next step of a free worker, and the work that was dropped on the way to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision<K, W> {
    /// Work whose deadline has passed.
    pub(super) expired: Vec<W>,
    /// Work that nobody waits for any more.
    pub(super) unwanted: Vec<W>,
    /// The next step.
    pub(super) next: Next<K, W>,
}

/// The next step of a free worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<K, W> {
    /// Run these frames together.
    Run {
        /// Their key.
        key: K,
        /// At least one and at most [`BatchLimits::size`], oldest first.
        items: Vec<Item<W>>,
    },
    /// Decide again at this time, or when work arrives.
    Wait(Instant),
    /// Decide again when work arrives.
    Idle,
}

impl<K: Ord + Copy, W> Batcher<K, W> {
    /// An empty batcher.
    pub(super) fn new(limits: BatchLimits) -> Self {
        Batcher { limits, queues: BTreeMap::new(), waiting: 0 }
    }

    /// The limits of a batch.
    pub(super) fn limits(&self) -> BatchLimits {
        self.limits
    }

    /// The number of frames that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds work. The caller limits how much waits.
    pub(super) fn push(&mut self, now: Instant, key: K, deadline: Option<Instant>, work: W) {
        self.queues.entry(key).or_default().push_back(Item { arrived: now, deadline, work });
        self.waiting += 1;
    }

    /// Decides what a free worker does next. `run_time` is the estimated time of one run; `wanted` tells whether anybody
    /// still waits for a piece of work.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        run_time: Duration,
        wanted: impl Fn(&W) -> bool,
    ) -> Decision<K, W> {
        let (expired, unwanted) = self.remove_expired_and_unwanted(now, wanted);
        let next = self.next(now, run_time);
        Decision { expired, unwanted, next }
    }

    fn next(&mut self, now: Instant, run_time: Duration) -> Next<K, W> {
        let due = |queue: &VecDeque<Item<W>>| match queue.len() >= self.limits.size {
            true => now,
            false => queue.iter().map(|item| self.due(item, run_time)).min().unwrap_or(now),
        };
        // Of the queues that are due, the one whose oldest frame has waited longest.
        let ready = self.queues.iter().filter(|(_, queue)| due(queue) <= now);
        let Some(key) = ready.min_by_key(|(_, queue)| queue[0].arrived).map(|(key, _)| *key) else {
            return self.queues.values().map(due).min().map_or(Next::Idle, Next::Wait);
        };
        let Some(queue) = self.queues.get_mut(&key) else { return Next::Idle };
        let items: Vec<_> = queue.drain(..queue.len().min(self.limits.size)).collect();
        if queue.is_empty() {
            self.queues.remove(&key);
        }
        self.waiting -= items.len();
        Next::Run { key, items }
    }

    /// The time at which a frame stops waiting for others: the wait that the limits allow is over, or the time to its
    /// deadline is just enough for one run.
    fn due(&self, item: &Item<W>, run_time: Duration) -> Instant {
        let waited = item.arrived + self.limits.wait;
        let latest = item.deadline.and_then(|deadline| deadline.checked_sub(run_time));
        latest.map_or(waited, |latest| latest.min(waited))
    }

    /// Removes and returns the work whose deadline has passed and the work that nobody waits for.
    fn remove_expired_and_unwanted(&mut self, now: Instant, wanted: impl Fn(&W) -> bool) -> (Vec<W>, Vec<W>) {
        let (mut expired, mut unwanted) = (Vec::new(), Vec::new());
        for queue in self.queues.values_mut() {
            for _ in 0..queue.len() {
                let Some(item) = queue.pop_front() else { break };
                if !wanted(&item.work) {
                    unwanted.push(item.work);
                } else if item.deadline.is_some_and(|deadline| deadline <= now) {
                    expired.push(item.work);
                } else {
                    queue.push_back(item);
                }
            }
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        self.waiting -= expired.len() + unwanted.len();
        (expired, unwanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn batcher(size: usize, wait: Duration) -> Batcher<u8, u32> {
        Batcher::new(BatchLimits { size, wait })
    }

    fn run(decision: Decision<u8, u32>) -> (u8, Vec<u32>) {
        match decision.next {
            Next::Run { key, items } => (key, items.into_iter().map(|item| item.work).collect()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_single_frame_runs_at_once() {
        let (now, mut batcher) = (epoch(), batcher(8, Duration::ZERO));
        batcher.push(now, 0, None, 1);
        assert_eq!(run(batcher.decide(now, Duration::ZERO, |_| true)), (0, vec![1]));
        assert_eq!(batcher.decide(now, Duration::ZERO, |_| true).next, Next::Idle);
    }

    #[test]
    fn what_gathers_while_the_worker_is_busy_runs_together_up_to_the_limit() {
        let (now, mut batcher) = (epoch(), batcher(4, Duration::ZERO));
        (0..6).for_each(|work| batcher.push(now + MS * work, 0, None, work));
        assert_eq!(run(batcher.decide(now + MS * 9, Duration::ZERO, |_| true)), (0, vec![0, 1, 2, 3]));
        assert_eq!(run(batcher.decide(now + MS * 9, Duration::ZERO, |_| true)), (0, vec![4, 5]));
        assert_eq!(batcher.waiting(), 0);
    }

    #[test]
    fn keys_do_not_mix_and_the_oldest_goes_first() {
        let (now, mut batcher) = (epoch(), batcher(4, Duration::ZERO));
        for (at, key) in [(0, 1), (1, 0), (2, 1), (3, 0)] {
            batcher.push(now + MS * at, key, None, at);
        }
        assert_eq!(run(batcher.decide(now + MS * 4, Duration::ZERO, |_| true)), (1, vec![0, 2]));
        assert_eq!(run(batcher.decide(now + MS * 4, Duration::ZERO, |_| true)), (0, vec![1, 3]));
    }

    #[test]
    fn the_operators_wait_gathers_company_and_a_full_batch_ends_it() {
        let (now, mut batcher) = (epoch(), batcher(3, MS * 10));
        batcher.push(now, 0, None, 1);
        assert_eq!(batcher.decide(now, Duration::ZERO, |_| true).next, Next::Wait(now + MS * 10));
        batcher.push(now + MS * 4, 0, None, 2);
        assert_eq!(batcher.decide(now + MS * 4, Duration::ZERO, |_| true).next, Next::Wait(now + MS * 10));
        assert_eq!(run(batcher.decide(now + MS * 10, Duration::ZERO, |_| true)), (0, vec![1, 2]));
        (0..3).for_each(|work| batcher.push(now + MS * 20, 0, None, work));
        assert_eq!(run(batcher.decide(now + MS * 20, Duration::ZERO, |_| true)), (0, vec![0, 1, 2]));
    }

    #[test]
    fn the_wait_ends_while_the_budget_still_pays_for_a_run() {
        let (now, mut batcher) = (epoch(), batcher(3, MS * 50));
        batcher.push(now, 0, Some(now + MS * 30), 1);
        assert_eq!(batcher.decide(now, MS * 20, |_| true).next, Next::Wait(now + MS * 10));
        assert_eq!(run(batcher.decide(now + MS * 10, MS * 20, |_| true)), (0, vec![1]));
    }

    #[test]
    fn late_and_unwanted_work_never_runs() {
        let (now, mut batcher) = (epoch(), batcher(8, Duration::ZERO));
        batcher.push(now, 0, Some(now + MS * 5), 1);
        batcher.push(now, 0, Some(now + MS * 50), 2);
        batcher.push(now, 1, None, 3);
        batcher.push(now, 0, Some(now + MS * 5), 4);
        let decision = batcher.decide(now + MS * 5, Duration::ZERO, |work| *work != 3);
        assert_eq!((&decision.expired, &decision.unwanted), (&vec![1, 4], &vec![3]));
        assert_eq!(run(decision), (0, vec![2]));
        assert_eq!(batcher.waiting(), 0);
    }
}
