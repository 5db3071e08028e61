//! Admission of work for one network, and its order (pure).
//!
//! Work is admitted while the queue has room and, for work with a deadline, while the queue is estimated to be served
//! before it. Admitted work runs in the batches that the [`Batcher`] forms, oldest first.

use std::time::{Duration, Instant};

use super::batcher::{BatchLimits, Batcher, Decision};

/// The limits of one network's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Of one batch.
    pub(super) batch: BatchLimits,
    /// Frames that may wait in all, at least 1.
    pub(super) queue: usize,
    /// Workers that serve the queue, for the estimates.
    pub(super) workers: usize,
}

/// The queue of one network.
#[derive(Debug)]
pub(super) struct Scheduler<K, W> {
    batcher: Batcher<K, W>,
    queue: usize,
    workers: usize,
    /// Smoothed time of one run, once there was one.
    run_time: Option<Duration>,
}

/// The reason why work was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(super) enum Rejected {
    /// The queue is full.
    Full {
        /// Frames that wait.
        waiting: usize,
        /// The estimated time until all of them are done.
        retry: Duration,
    },
    /// The queue is estimated to last longer than the frame's deadline allows.
    TooLong {
        /// The estimated time until the frame's run would begin.
        wait: Duration,
    },
}

impl<K: Ord + Copy, W> Scheduler<K, W> {
    /// An empty queue.
    pub(super) fn new(limits: Limits) -> Self {
        let Limits { batch, queue, workers } = limits;
        let batch = BatchLimits { size: batch.size.max(1), ..batch };
        Scheduler { batcher: Batcher::new(batch), queue, workers: workers.max(1), run_time: None }
    }

    /// The number of frames that wait.
    pub(super) fn waiting(&self) -> usize {
        self.batcher.waiting()
    }

    /// Checks whether work with this deadline would be admitted now.
    ///
    /// # Errors
    /// [`Rejected`] if it would not.
    pub(super) fn admit(&self, now: Instant, deadline: Option<Instant>) -> Result<(), Rejected> {
        let waiting = self.batcher.waiting();
        if waiting >= self.queue {
            return Err(Rejected::Full { waiting, retry: self.time_to_empty() });
        }
        let wait = self.time_to_next_free_place();
        match deadline.is_some_and(|deadline| wait > Duration::ZERO && deadline <= now + wait) {
            true => Err(Rejected::TooLong { wait }),
            false => Ok(()),
        }
    }

    /// Queues work if it is admitted; otherwise returns it with the reason.
    ///
    /// # Errors
    /// The work and the reason if it is not admitted.
    pub(super) fn push(
        &mut self,
        now: Instant,
        key: K,
        deadline: Option<Instant>,
        work: W,
    ) -> Result<(), (W, Rejected)> {
        if let Err(rejected) = self.admit(now, deadline) {
            return Err((work, rejected));
        }
        self.batcher.push(now, key, deadline, work);
        Ok(())
    }

    /// Decides what a free worker does next; `wanted` tells whether anybody still waits for a piece of work. After a run
    /// the worker calls [`Scheduler::record_run`].
    pub(super) fn decide(&mut self, now: Instant, wanted: impl Fn(&W) -> bool) -> Decision<K, W> {
        self.batcher.decide(now, self.run_time(), wanted)
    }

    /// Takes the time of a finished run into the estimate.
    pub(super) fn record_run(&mut self, took: Duration) {
        self.run_time = Some(self.run_time.map_or(took, |time| (time * 7 + took) / 8));
    }

    fn run_time(&self) -> Duration {
        self.run_time.unwrap_or_default()
    }

    /// The least time until a run can hold one more frame: runs in progress count as finished, and the last batch of the
    /// queue as not yet full.
    fn time_to_next_free_place(&self) -> Duration {
        let runs = self.batcher.waiting() / self.batcher.limits().size / self.workers;
        self.run_time() * u32::try_from(runs).unwrap_or(u32::MAX)
    }

    /// The time until everything that waits is done, and one frame more.
    fn time_to_empty(&self) -> Duration {
        let runs = (self.batcher.waiting() + 1).div_ceil(self.batcher.limits().size).div_ceil(self.workers);
        self.run_time() * u32::try_from(runs).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::batcher::Next, *};

    const MS: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn scheduler(size: usize, wait: Duration, queue: usize) -> Scheduler<u8, u32> {
        Scheduler::new(Limits { batch: BatchLimits { size, wait }, queue, workers: 1 })
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let (now, mut scheduler) = (epoch(), scheduler(2, Duration::ZERO, 4));
        scheduler.record_run(MS * 30);
        (0..4).for_each(|work| scheduler.push(now, 0, None, work).unwrap());
        assert_eq!(scheduler.admit(now, None), Err(Rejected::Full { waiting: 4, retry: MS * 90 }));
        let (work, rejected) = scheduler.push(now, 0, None, 9).unwrap_err();
        assert_eq!((work, rejected), (9, Rejected::Full { waiting: 4, retry: MS * 90 }));
    }

    #[test]
    fn a_frame_whose_budget_the_queue_outlasts_is_refused_at_once() {
        let (now, mut scheduler) = (epoch(), scheduler(1, Duration::ZERO, 64));
        scheduler.record_run(MS * 30);
        (0..2).for_each(|work| scheduler.push(now, 0, None, work).unwrap());
        assert_eq!(scheduler.admit(now, None), Ok(()));
        assert_eq!(scheduler.admit(now, Some(now + MS * 60)), Err(Rejected::TooLong { wait: MS * 60 }));
        let (_, rejected) = scheduler.push(now, 0, Some(now + MS * 60), 9).unwrap_err();
        assert_eq!(rejected, Rejected::TooLong { wait: MS * 60 });
        scheduler.push(now, 0, Some(now + MS * 61), 9).unwrap();
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
            let mut scheduler = scheduler(1 + roll(5) as usize, MS * roll(20) as u32, 16);
            let (mut seen, mut rejected) = (Vec::new(), 0);
            let mut free = 0;
            for at in 0..2000u32 {
                let now = start + MS * at;
                if roll(3) == 0 {
                    let deadline = (roll(2) == 0).then(|| now + MS * roll(60) as u32);
                    rejected += u32::from(scheduler.push(now, roll(3) as u8, deadline, at).is_err());
                } else {
                    rejected += 1;
                }
                if at < free {
                    continue;
                }
                let decision = scheduler.decide(now, |work| work % 7 != 0);
                seen.extend(decision.expired);
                seen.extend(decision.unwanted);
                if let Next::Run { items, .. } = decision.next {
                    assert!(items.iter().all(|item| item.deadline.is_none_or(|deadline| deadline > now)));
                    assert!(items.iter().all(|item| item.work % 7 != 0));
                    seen.extend(items.into_iter().map(|item| item.work));
                    free = at + 10;
                    scheduler.record_run(MS * 10);
                }
            }
            // Long after every wait and deadline the queue empties.
            loop {
                let decision = scheduler.decide(start + MS * 1_000_000, |_| true);
                seen.extend(decision.expired);
                let Next::Run { items, .. } = decision.next else { break };
                seen.extend(items.into_iter().map(|item| item.work));
            }
            assert_eq!(scheduler.batcher.waiting(), 0);
            let all = seen.len();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), all, "seed {seed}: a frame came out twice");
            assert_eq!(all + rejected as usize, 2000, "seed {seed}");
        }
    }
}
