//! The batcher: a bounded queue that gives a free worker as many frames of one shape as wait (pure).
//!
//! A frame that finds a worker free is run at once; frames gather only while workers are busy, or for the wait
//! that the operator allows. Work whose deadline has passed or that nobody waits for any more never reaches the
//! network. Frames are taken oldest first; frames of one key (geometry) share a run, rate levels may mix.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// The batcher's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Frames in one run, at least 1.
    pub batch: usize,
    /// How long the oldest frame may wait for company while a worker is free.
    pub wait: Duration,
    /// Frames that may wait in all, at least 1.
    pub queue: usize,
    /// Workers that ask for turns, for estimates.
    pub workers: usize,
}

/// Waiting work by key.
#[derive(Debug)]
pub struct Batcher<K, W> {
    limits: Limits,
    lanes: BTreeMap<K, VecDeque<Item<W>>>,
    waiting: usize,
    /// Smoothed time of one run, once there was one.
    cost: Option<Duration>,
}

/// One frame that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<W> {
    /// When it came.
    pub arrived: Instant,
    /// When its answer is due.
    pub deadline: Option<Instant>,
    /// The work.
    pub work: W,
}

/// Why work was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejected {
    /// The queue is full.
    Full {
        /// Frames that wait.
        waiting: usize,
        /// When to try again: the estimated time until all of them are done.
        retry: Duration,
    },
    /// The queue is estimated to last longer than the frame's budget.
    TooLong {
        /// The estimated wait before the frame's run begins.
        wait: Duration,
    },
}

/// What a free worker is to do, and what was dropped on the way.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision<K, W> {
    /// Work that was too late.
    pub expired: Vec<W>,
    /// Work that nobody waits for any more.
    pub unwanted: Vec<W>,
    /// What to do.
    pub next: Next<K, W>,
}

/// What a free worker is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<K, W> {
    /// Run these, oldest first, then call [`Batcher::record_run`].
    Run {
        /// Their key.
        key: K,
        /// At least one, at most [`Limits::batch`].
        items: Vec<Item<W>>,
    },
    /// Ask again at this time, or when work comes.
    Wait(Instant),
    /// Ask again when work comes.
    Idle,
}

impl<K: Ord + Copy, W> Batcher<K, W> {
    /// An empty batcher.
    pub fn new(limits: Limits) -> Self {
        Batcher { limits, lanes: BTreeMap::new(), waiting: 0, cost: None }
    }

    /// Frames that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether work that is due then would be taken now.
    pub fn room(&self, now: Instant, deadline: Option<Instant>) -> Result<(), Rejected> {
        if self.waiting >= self.limits.queue {
            return Err(Rejected::Full { waiting: self.waiting, retry: self.backlog() });
        }
        let wait = self.queue_time();
        match deadline.is_some_and(|deadline| wait > Duration::ZERO && deadline <= now + wait) {
            true => Err(Rejected::TooLong { wait }),
            false => Ok(()),
        }
    }

    /// Takes work in, or says why not and gives it back.
    pub fn push(
        &mut self,
        now: Instant,
        key: K,
        deadline: Option<Instant>,
        work: W,
    ) -> Result<(), (W, Rejected)> {
        if let Err(rejected) = self.room(now, deadline) {
            return Err((work, rejected));
        }
        self.lanes.entry(key).or_default().push_back(Item { arrived: now, deadline, work });
        self.waiting += 1;
        Ok(())
    }

    /// A worker is free: what shall it do? `wanted` tells whether anybody still waits for a piece of work.
    pub fn decide(&mut self, now: Instant, wanted: impl Fn(&W) -> bool) -> Decision<K, W> {
        let (expired, unwanted) = self.sweep(now, wanted);
        let next = self.next(now);
        Decision { expired, unwanted, next }
    }

    /// A run of [`Next::Run`] is over and took this long.
    pub fn record_run(&mut self, took: Duration) {
        self.cost = Some(self.cost.map_or(took, |cost| (cost * 7 + took) / 8));
    }

    /// Takes all that waits, for a worker that cannot go on.
    pub fn clear(&mut self) -> Vec<W> {
        self.waiting = 0;
        std::mem::take(&mut self.lanes).into_values().flatten().map(|item| item.work).collect()
    }

    fn next(&mut self, now: Instant) -> Next<K, W> {
        let due = |lane: &VecDeque<Item<W>>| match lane.len() >= self.limits.batch {
            true => now,
            false => lane.iter().map(|item| self.due(item)).min().unwrap_or(now),
        };
        // Of the lanes that are due, the one whose oldest frame has waited longest.
        let ready = self.lanes.iter().filter(|(_, lane)| due(lane) <= now);
        let Some(key) = ready.min_by_key(|(_, lane)| lane[0].arrived).map(|(key, _)| *key) else {
            return self.lanes.values().map(due).min().map_or(Next::Idle, Next::Wait);
        };
        let Some(lane) = self.lanes.get_mut(&key) else { return Next::Idle };
        let items: Vec<_> = lane.drain(..lane.len().min(self.limits.batch)).collect();
        if lane.is_empty() {
            self.lanes.remove(&key);
        }
        self.waiting -= items.len();
        Next::Run { key, items }
    }

    /// When a frame may wait for company no longer: the operator's wait is over, or one run is all that its budget
    /// still pays for.
    fn due(&self, item: &Item<W>) -> Instant {
        let patience = item.arrived + self.limits.wait;
        let last = item.deadline.and_then(|deadline| deadline.checked_sub(self.cost.unwrap_or_default()));
        last.map_or(patience, |last| last.min(patience))
    }

    fn sweep(&mut self, now: Instant, wanted: impl Fn(&W) -> bool) -> (Vec<W>, Vec<W>) {
        let (mut expired, mut unwanted) = (Vec::new(), Vec::new());
        for lane in self.lanes.values_mut() {
            for _ in 0..lane.len() {
                let Some(item) = lane.pop_front() else { break };
                if !wanted(&item.work) {
                    unwanted.push(item.work);
                } else if item.deadline.is_some_and(|deadline| deadline <= now) {
                    expired.push(item.work);
                } else {
                    lane.push_back(item);
                }
            }
        }
        self.lanes.retain(|_, lane| !lane.is_empty());
        self.waiting -= expired.len() + unwanted.len();
        (expired, unwanted)
    }

    /// The time until a run can hold one more frame, on the hopeful side: runs under way count as over, and the
    /// last batch has room.
    fn queue_time(&self) -> Duration {
        let runs = self.waiting / self.limits.batch / self.limits.workers.max(1);
        self.cost.unwrap_or_default() * u32::try_from(runs).unwrap_or(u32::MAX)
    }

    /// The time until everything that waits is done, on the careful side.
    fn backlog(&self) -> Duration {
        let runs = (self.waiting + 1).div_ceil(self.limits.batch).div_ceil(self.limits.workers.max(1));
        self.cost.unwrap_or_default() * u32::try_from(runs).unwrap_or(u32::MAX)
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

    fn batcher(batch: usize, wait: Duration, queue: usize) -> Batcher<u8, u32> {
        Batcher::new(Limits { batch, wait, queue, workers: 1 })
    }

    fn run(decision: Decision<u8, u32>) -> (u8, Vec<u32>) {
        match decision.next {
            Next::Run { key, items } => (key, items.into_iter().map(|item| item.work).collect()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_single_frame_runs_at_once() {
        let (now, mut batcher) = (epoch(), batcher(8, Duration::ZERO, 64));
        batcher.push(now, 0, None, 1).unwrap();
        assert_eq!(run(batcher.decide(now, |_| true)), (0, vec![1]));
        assert_eq!(batcher.decide(now, |_| true).next, Next::Idle);
    }

    #[test]
    fn what_gathers_while_the_worker_is_busy_runs_together_up_to_the_limit() {
        let (now, mut batcher) = (epoch(), batcher(4, Duration::ZERO, 64));
        (0..6).for_each(|work| batcher.push(now + MS * work, 0, None, work).unwrap());
        assert_eq!(run(batcher.decide(now + MS * 9, |_| true)), (0, vec![0, 1, 2, 3]));
        assert_eq!(run(batcher.decide(now + MS * 9, |_| true)), (0, vec![4, 5]));
        assert_eq!(batcher.waiting(), 0);
    }

    #[test]
    fn keys_do_not_mix_and_the_oldest_goes_first() {
        let (now, mut batcher) = (epoch(), batcher(4, Duration::ZERO, 64));
        for (at, key) in [(0, 1), (1, 0), (2, 1), (3, 0)] {
            batcher.push(now + MS * at, key, None, at).unwrap();
        }
        assert_eq!(run(batcher.decide(now + MS * 4, |_| true)), (1, vec![0, 2]));
        assert_eq!(run(batcher.decide(now + MS * 4, |_| true)), (0, vec![1, 3]));
    }

    #[test]
    fn the_operators_wait_gathers_company_and_a_full_batch_ends_it() {
        let (now, mut batcher) = (epoch(), batcher(3, MS * 10, 64));
        batcher.push(now, 0, None, 1).unwrap();
        assert_eq!(batcher.decide(now, |_| true).next, Next::Wait(now + MS * 10));
        batcher.push(now + MS * 4, 0, None, 2).unwrap();
        assert_eq!(batcher.decide(now + MS * 4, |_| true).next, Next::Wait(now + MS * 10));
        assert_eq!(run(batcher.decide(now + MS * 10, |_| true)), (0, vec![1, 2]));
        (0..3).for_each(|work| batcher.push(now + MS * 20, 0, None, work).unwrap());
        assert_eq!(run(batcher.decide(now + MS * 20, |_| true)), (0, vec![0, 1, 2]));
    }

    #[test]
    fn the_wait_ends_while_the_budget_still_pays_for_a_run() {
        let (now, mut batcher) = (epoch(), batcher(3, MS * 50, 64));
        batcher.record_run(MS * 20);
        batcher.push(now, 0, Some(now + MS * 30), 1).unwrap();
        assert_eq!(batcher.decide(now, |_| true).next, Next::Wait(now + MS * 10));
        assert_eq!(run(batcher.decide(now + MS * 10, |_| true)), (0, vec![1]));
    }

    #[test]
    fn late_and_unwanted_work_never_runs() {
        let (now, mut batcher) = (epoch(), batcher(8, Duration::ZERO, 64));
        batcher.push(now, 0, Some(now + MS * 5), 1).unwrap();
        batcher.push(now, 0, Some(now + MS * 50), 2).unwrap();
        batcher.push(now, 1, None, 3).unwrap();
        batcher.push(now, 0, Some(now + MS * 5), 4).unwrap();
        let decision = batcher.decide(now + MS * 5, |work| *work != 3);
        assert_eq!((&decision.expired, &decision.unwanted), (&vec![1, 4], &vec![3]));
        assert_eq!(run(decision), (0, vec![2]));
        assert_eq!(batcher.waiting(), 0);
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let (now, mut batcher) = (epoch(), batcher(2, Duration::ZERO, 4));
        batcher.record_run(MS * 30);
        (0..4).for_each(|work| batcher.push(now, 0, None, work).unwrap());
        assert_eq!(batcher.room(now, None), Err(Rejected::Full { waiting: 4, retry: MS * 90 }));
        let (work, rejected) = batcher.push(now, 0, None, 9).unwrap_err();
        assert_eq!((work, rejected), (9, Rejected::Full { waiting: 4, retry: MS * 90 }));
    }

    #[test]
    fn a_frame_whose_budget_the_queue_outlasts_is_refused_at_once() {
        let (now, mut batcher) = (epoch(), batcher(1, Duration::ZERO, 64));
        batcher.record_run(MS * 30);
        (0..2).for_each(|work| batcher.push(now, 0, None, work).unwrap());
        assert_eq!(batcher.room(now, None), Ok(()));
        assert_eq!(batcher.room(now, Some(now + MS * 60)), Err(Rejected::TooLong { wait: MS * 60 }));
        let (_, rejected) = batcher.push(now, 0, Some(now + MS * 60), 9).unwrap_err();
        assert_eq!(rejected, Rejected::TooLong { wait: MS * 60 });
        batcher.push(now, 0, Some(now + MS * 61), 9).unwrap();
    }

    #[test]
    fn every_frame_is_run_once_or_dropped_once() {
        for seed in 1..=50u64 {
            let start = epoch();
            let mut dice = seed;
            let mut roll = move |sides: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % sides
            };
            let mut batcher = batcher(1 + roll(5) as usize, MS * roll(20) as u32, 16);
            let (mut seen, mut rejected) = (Vec::new(), 0);
            let mut free = 0;
            for at in 0..2000u32 {
                let now = start + MS * at;
                if roll(3) == 0 {
                    let deadline = (roll(2) == 0).then(|| now + MS * roll(60) as u32);
                    rejected += u32::from(batcher.push(now, roll(3) as u8, deadline, at).is_err());
                } else {
                    rejected += 1;
                }
                if at < free {
                    continue;
                }
                let decision = batcher.decide(now, |work| work % 7 != 0);
                seen.extend(decision.expired);
                seen.extend(decision.unwanted);
                if let Next::Run { items, .. } = decision.next {
                    assert!(items.iter().all(|item| item.deadline.is_none_or(|deadline| deadline > now)));
                    assert!(items.iter().all(|item| item.work % 7 != 0));
                    seen.extend(items.into_iter().map(|item| item.work));
                    free = at + 10;
                    batcher.record_run(MS * 10);
                }
            }
            seen.extend(batcher.clear());
            assert_eq!(batcher.waiting(), 0);
            let all = seen.len();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), all, "seed {seed}: a frame came out twice");
            assert_eq!(all + rejected as usize, 2000, "seed {seed}");
        }
    }
}
