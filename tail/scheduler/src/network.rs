//! The queue of one network: the frames that wait for it, the devices' shares, and the times of its runs.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    NetworkLimits, Priority,
    accounts::Slot,
    cost::CostTable,
    plan::Candidate,
    refused::Refused,
    shares::{Shares, nanos},
};

/// The time after which a frame without a deadline is as urgent as one that is due.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Frames of a device that may wait whatever their deadlines are.
const FEW: usize = 8;

/// A frame that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub(crate) u64);

#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) limits: NetworkLimits,
    pub(crate) waiting: BTreeMap<FrameId, Waiting>,
    /// Frames that wait, by their account.
    pub(crate) backlog: BTreeMap<Slot, usize>,
    /// The devices' shares, by class.
    pub(crate) shares: [Shares; 3],
    pub(crate) costs: BTreeMap<usize, CostTable>,
    /// Runs in which a class was passed over while its frames waited.
    pub(crate) passed_over: [u32; 3],
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) slot: Slot,
    pub(crate) class: Priority,
    pub(crate) shape: usize,
    pub(crate) arrived: Duration,
    pub(crate) deadline: Option<Duration>,
    pub(crate) reserved: Duration,
}

impl Waiting {
    /// The time by which its order is determined.
    pub(crate) fn key(&self) -> Duration {
        self.deadline.unwrap_or(self.arrived + PATIENCE)
    }
}

impl Network {
    /// The mean time of the largest run that is worth while, of the shape that takes longest.
    pub(crate) fn full_run(&self) -> Duration {
        self.costs.values().map(CostTable::full).max().unwrap_or_default()
    }

    /// The time that these frames take when nothing else runs, in whole runs begun before the last one.
    pub(crate) fn time_of(&self, frames: usize) -> Duration {
        let time = |cost: &CostTable| {
            let runs = frames / cost.size() / self.limits.workers;
            cost.full().saturating_mul(u32::try_from(runs).unwrap_or(u32::MAX))
        };
        self.costs.values().map(time).max().unwrap_or_default()
    }

    pub(crate) fn cost_share(&self, shape: usize) -> Duration {
        self.costs.get(&shape).map_or(Duration::ZERO, CostTable::share)
    }

    pub(crate) fn remove(&mut self, frame: FrameId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&frame)?;
        if let Some(count) = self.backlog.get_mut(&waiting.slot) {
            *count -= 1;
            if *count == 0 {
                self.backlog.remove(&waiting.slot);
            }
        }
        Some(waiting)
    }

    /// Removes a frame that will not be run.
    pub(crate) fn give_up(&mut self, frame: FrameId) -> Option<Waiting> {
        let waiting = self.remove(frame)?;
        self.shares[waiting.class.index()].give_up(waiting.slot);
        Some(waiting)
    }

    /// Time that a device of a class gets in a round: that of a full run, divided among the devices of the class that have
    /// frames waiting and `more`, and at least that of one frame.
    pub(crate) fn quantum(&self, class: Priority, more: usize) -> i64 {
        let devices = (self.shares[class.index()].active() + more).max(1);
        let frame = self.costs.values().map(CostTable::share).max().unwrap_or_default();
        let each = nanos(self.full_run()) / i64::try_from(devices).unwrap_or(i64::MAX);
        each.max(nanos(frame)).max(1)
    }

    pub(crate) fn own(&self, slot: Slot) -> usize {
        self.backlog.get(&slot).copied().unwrap_or_default()
    }

    /// The least time until the run of a further frame with this deadline begins, where the device's own frames that are more
    /// urgent are run before it, and as many of every other device, since all have the same share. Zero for a few frames: which
    /// of them meet their deadlines is decided when they are run.
    pub(crate) fn own_wait(&self, slot: Slot, deadline: Duration) -> Duration {
        if self.own(slot) < FEW {
            return Duration::ZERO;
        }
        let before = |frame: &&Waiting| frame.slot == slot && frame.key() <= deadline;
        let own = self.waiting.values().filter(before).count();
        if own < FEW {
            return Duration::ZERO;
        }
        self.time_of(self.backlog.values().map(|count| own.min(*count)).sum())
    }

    /// Whether a further frame of the device finds a place, possibly that of another device's frame.
    ///
    /// # Errors
    /// [`Refused::Full`], or [`Refused::TooLong`] where the device's own frames outlast the deadline.
    pub(crate) fn check(&self, now: Duration, slot: Slot, deadline: Option<Duration>) -> Result<(), Refused> {
        let (own, waiting) = (self.own(slot), self.waiting.len());
        if waiting >= self.limits.queue && self.longest(own).is_none() {
            let of_each = self.backlog.values().map(|count| own.min(*count) + 1).sum::<usize>().min(waiting);
            let retry = self.time_of(of_each.max(self.limits.batch * self.limits.workers));
            return Err(Refused::Full { waiting, own, retry: retry.max(Duration::from_millis(1)) });
        }
        if let Some(deadline) = deadline {
            let wait = self.own_wait(slot, deadline);
            if !wait.is_zero() && now + wait >= deadline {
                return Err(Refused::TooLong { own, wait });
            }
        }
        Ok(())
    }

    /// The device with the most frames that wait, if these are at least two more than `own`.
    pub(crate) fn longest(&self, own: usize) -> Option<Slot> {
        let longest = self.backlog.iter().max_by_key(|(_, count)| **count)?;
        (*longest.1 > own + 1).then_some(*longest.0)
    }
}

impl Network {
    /// The time until which frames of a shape wait for others while a worker is free: until the batch is full, the time that
    /// the limits allow is over, or the time to a deadline is just enough for a run.
    pub(crate) fn due(&self, now: Duration, shape: usize, cost: &CostTable) -> Duration {
        let frames = || self.waiting.values().filter(|frame| frame.shape == shape);
        let count = frames().count();
        if self.limits.wait.is_zero() || count >= cost.size() {
            return now;
        }
        let due = |frame: &Waiting| {
            let waited = frame.arrived + self.limits.wait;
            let latest = frame.deadline.map(|deadline| deadline.saturating_sub(cost.mean(count)));
            latest.map_or(waited, |latest| latest.min(waited))
        };
        frames().map(due).min().unwrap_or(now)
    }

    /// What [`Choice`](crate::plan::Choice) needs of the frames that wait: their numbers, the frames in the same order, and by
    /// device how many frames are within its share and whether it is in debt for less than a run. Frames for which `leads` is
    /// true use up the shares first. `alone` is a device without others, all of whose frames are within its share.
    pub(crate) fn candidates(
        &self,
        shapes: &[usize],
        class: Priority,
        alone: Option<Slot>,
        leads: impl Fn(&Waiting) -> bool,
    ) -> (Vec<FrameId>, Vec<Candidate>, Vec<usize>, Vec<bool>) {
        let mut waiting: Vec<(FrameId, &Waiting)> =
            self.waiting.iter().map(|(id, frame)| (*id, frame)).collect();
        waiting.sort_by_key(|(id, frame)| (!leads(frame), frame.key(), *id));
        let devices: Vec<Slot> = self.backlog.keys().copied().collect();
        let left = |slot: &Slot| match alone {
            Some(alone) if alone == *slot => i64::MAX,
            _ => self.shares[class.index()].left(*slot),
        };
        let mut left: Vec<i64> = devices.iter().map(left).collect();
        let full = nanos(self.full_run());
        let fills = left.iter().map(|left| *left > -full).collect();
        let mut shares = vec![0; devices.len()];
        let candidate = |(id, frame): (FrameId, &Waiting)| {
            let device = devices.binary_search(&frame.slot).unwrap_or_default();
            shares[device] += usize::from(left[device] > 0);
            left[device] -= nanos(self.cost_share(frame.shape));
            let lane = shapes.binary_search(&frame.shape).unwrap_or_default();
            let (key, deadline, class) = (frame.key(), frame.deadline, frame.class);
            (id, Candidate { lane, device, key, deadline, class })
        };
        let (ids, candidates) = waiting.into_iter().map(candidate).unzip();
        (ids, candidates, shares, fills)
    }
}
