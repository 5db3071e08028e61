//! The choice of the next batch.
//!
//! A batch holds frames of one shape. The most urgent frame of the devices that are within their shares leads, and the batch is
//! as large as it can be without making one of its frames miss a deadline that the frame would meet alone. Where that leaves
//! every frame that waits in time, it is taken. Otherwise some have to be late, and other batches are tried: of other shapes,
//! smaller, and without the most urgent frames. Each is judged by the deadlines that are met when all that wait is run after
//! it, the most urgent first. Deadlines of frames within their devices' shares count before those of others.

use std::{cmp::Reverse, time::Duration};

use crate::{Priority, cost::CostTable};

/// Frames, the most urgent ones, that a batch is judged by. Those behind them wait for several runs, until which others arrive.
const HORIZON: usize = 48;

/// Frames for which every order of batches after the first is tried. Where more wait, the most urgent one leads each batch.
const SEARCHED: usize = 8;

/// Runs that are tried in such orders before one batch is chosen. Several shapes make many more orders than one; those behind are
/// judged as where more frames wait, so that a choice takes a bounded time.
const TRIED: usize = 4000;

/// Most urgent frames that a batch may leave out, one after another.
const MOST_SKIPPED: usize = 7;

/// The time by which frames of devices that are in debt, or of another class, may lengthen the run of others, as a part of it.
const LENGTHENED: u32 = 8;

/// A frame that waits for the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// The index of its lane.
    pub(crate) lane: usize,
    /// The index of its device.
    pub(crate) device: usize,
    /// The time by which its order is determined.
    pub(crate) key: Duration,
    /// The time by which its run should end.
    pub(crate) deadline: Option<Duration>,
    /// Its device's class.
    pub(crate) class: Priority,
}

/// The frames of one shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane<'a> {
    /// The time of their runs.
    pub(crate) cost: &'a CostTable,
    /// Frames in one run.
    pub(crate) size: usize,
    /// Whether they may run now, or wait for others to fill their batch.
    pub(crate) ready: bool,
}

/// What there is to choose from.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) now: Duration,
    /// The frames that wait.
    pub(crate) frames: &'a [Candidate],
    pub(crate) lanes: &'a [Lane<'a>],
    /// The frames that each device may run within its share.
    pub(crate) shares: &'a [usize],
    /// Whether each device is so little in debt that its further frames may fill a batch, and lengthen it.
    pub(crate) fills: &'a [bool],
    /// The class whose frames lead.
    pub(crate) class: Priority,
    /// Runs in parallel.
    pub(crate) workers: u32,
}

/// Deadlines met: within the devices' shares, and beyond.
type Met = (usize, usize);

impl Choice<'_> {
    /// The places in [`Choice::frames`] of the frames to run now. Empty if no device of the class that is within its share has
    /// a frame in a lane that is ready.
    pub(crate) fn batch(&self) -> Vec<usize> {
        let mut urgent: Vec<usize> = (0..self.frames.len()).collect();
        urgent.sort_by_key(|&at| (self.frames[at].key, at));
        let Some(lead) = urgent.iter().copied().find(|&at| self.leads(at)) else { return Vec::new() };
        let lanes: Vec<Vec<usize>> = (0..self.lanes.len()).map(|lane| self.order(&urgent, lane)).collect();
        let lane = self.frames[lead].lane;
        let first = self.form(&lanes[lane], 0, self.lanes[lane].size);
        let horizon = &urgent[..urgent.len().min(HORIZON)];
        let possible = horizon.iter().filter(|at| self.frames[**at].deadline.is_some()).count();
        let mut tries = TRIED;
        let mut best = (self.judge(&first, horizon, &mut tries), first);
        if best.0.0 + best.0.1 >= possible {
            return best.1;
        }
        for (order, lane) in lanes.iter().zip(self.lanes) {
            let leaders = order.iter().filter(|at| self.leads(**at)).count();
            for skipped in 0..leaders.min(MOST_SKIPPED) {
                let mut size = lane.size.min(order.len() - skipped);
                while size > 0 {
                    let batch = self.form(order, skipped, size);
                    let value = self.judge(&batch, horizon, &mut tries);
                    if value > best.0 {
                        best = (value, batch);
                    }
                    // Small batches are tried one by one.
                    size = if size > 8 { size / 2 } else { size - 1 };
                }
            }
        }
        best.1
    }

    /// Whether a frame may lead a batch.
    fn leads(&self, at: usize) -> bool {
        let frame = &self.frames[at];
        frame.class == self.class && self.shares[frame.device] > 0 && self.lanes[frame.lane].ready
    }

    /// The frames of one lane: first those that may lead, then by class and urgency.
    fn order(&self, urgent: &[usize], lane: usize) -> Vec<usize> {
        let mut order: Vec<usize> =
            urgent.iter().copied().filter(|&at| self.frames[at].lane == lane).collect();
        order.sort_by_key(|&at| {
            let frame = &self.frames[at];
            (Reverse(self.leads(at)), frame.class, frame.key)
        });
        order
    }

    /// A batch of at most `size` frames of a lane, led by the frame after the first `skipped` ones that may lead.
    fn form(&self, order: &[usize], skipped: usize, size: usize) -> Vec<usize> {
        let leaders = order.iter().take_while(|at| self.leads(**at)).count();
        let Some(&lead) = order[..leaders].get(skipped) else { return Vec::new() };
        let cost = self.lanes[self.frames[lead].lane].cost;
        // The largest batch with the first frame whose frames are all in time; a smaller run may have room for more of them.
        let mut batch = Vec::new();
        for wanted in (1..=size.min(leaders - skipped)).rev() {
            if batch.len() >= wanted {
                break;
            }
            let found = self.within_shares(&order[skipped..leaders], cost, wanted);
            if found.first() == Some(&lead) && found.len() > batch.len() {
                batch = found;
            }
        }
        let fills = |at: usize| {
            let frame = &self.frames[at];
            frame.class == self.class && self.fills[frame.device]
        };
        self.extend(&mut batch, &order[skipped..], cost, size, None, fills);
        let longest = cost.mean(batch.len()) + cost.mean(batch.len()) / LENGTHENED;
        self.extend(&mut batch, &order[skipped..], cost, size, Some(longest), |_| true);
        batch
    }

    /// Adds as many `eligible` frames to a batch as makes it take no longer than `longest` and none of its frames late.
    fn extend(
        &self,
        batch: &mut Vec<usize>,
        order: &[usize],
        cost: &CostTable,
        size: usize,
        longest: Option<Duration>,
        eligible: impl Fn(usize) -> bool,
    ) {
        let own = batch.len();
        if own >= size {
            return;
        }
        let others: Vec<usize> =
            order.iter().copied().filter(|at| eligible(*at) && !batch.contains(at)).collect();
        for wanted in (own + 1..=size.min(own + others.len())).rev() {
            let in_time = |at: &usize| self.in_time(*at, cost, wanted);
            if longest.is_none_or(|longest| cost.mean(wanted) <= longest) && batch.iter().all(in_time) {
                let fit: Vec<usize> = others.iter().copied().filter(in_time).take(wanted - own).collect();
                // Fewer would run for less time, in which others may be in time.
                if fit.len() == wanted - own {
                    batch.extend(fit);
                    return;
                }
            }
        }
    }

    /// At most `wanted` frames that are in time in a run of so many, and of each device no more than its share.
    fn within_shares(&self, order: &[usize], cost: &CostTable, wanted: usize) -> Vec<usize> {
        let mut left = self.shares.to_vec();
        let take = |at: &&usize| {
            let left = &mut left[self.frames[**at].device];
            let takes = *left > 0 && self.in_time(**at, cost, wanted);
            *left -= usize::from(takes);
            takes
        };
        order.iter().filter(take).take(wanted).copied().collect()
    }

    /// Whether a run of `batch` frames that begins now ends by a frame's deadline, or the frame would be late alone, too.
    fn in_time(&self, at: usize, cost: &CostTable, batch: usize) -> bool {
        self.frames[at].deadline.is_none_or(|deadline| {
            self.now + cost.mean(batch) <= deadline || self.now + cost.mean(1) > deadline
        })
    }

    /// The deadlines met where this batch runs now and after it the others of `horizon`; takes what it tries from `tries`.
    fn judge(&self, batch: &[usize], horizon: &[usize], tries: &mut usize) -> Met {
        let Some(&first) = batch.first() else { return (0, 0) };
        let cost = self.lanes[self.frames[first].lane].cost;
        let mut left = self.shares.to_vec();
        let met = self.meet(batch, self.now + cost.mean(batch.len()), &mut left);
        let rest: Vec<usize> = horizon.iter().copied().filter(|at| !batch.contains(at)).collect();
        let time = self.now + self.step(cost, batch.len());
        let later = match rest.len() <= SEARCHED {
            true => self.search(&rest, time, &mut left, tries),
            false => self.follow(rest, time, &mut left),
        };
        (met.0 + later.0, met.1 + later.1)
    }

    /// The deadlines met by a run of these frames that ends at `end`; `left` is what is left of the devices' shares.
    fn meet(&self, batch: &[usize], end: Duration, left: &mut [usize]) -> Met {
        let mut met = Met::default();
        for frame in batch.iter().map(|&at| &self.frames[at]) {
            if frame.deadline.is_some_and(|deadline| end <= deadline) {
                let left = &mut left[frame.device];
                match *left > 0 && frame.class <= self.class {
                    true => met.0 += 1,
                    false => met.1 += 1,
                }
                *left = left.saturating_sub(1);
            }
        }
        met
    }

    /// The time from the beginning of a run until a worker is free for the next one.
    fn step(&self, cost: &CostTable, batch: usize) -> Duration {
        (cost.mean(batch) / self.workers).max(Duration::from_nanos(1))
    }

    /// The first `size` frames of a lane that are in time where their run ends at `end`.
    fn first_in_time(&self, rest: &[usize], lane: usize, end: Duration, size: usize) -> Vec<usize> {
        let fits = |at: &usize| {
            let frame = &self.frames[*at];
            frame.lane == lane && frame.deadline.is_none_or(|deadline| end <= deadline)
        };
        rest.iter().copied().filter(fits).take(size).collect()
    }

    /// The most deadlines that can be met from `time` on with the frames of `rest`, in runs of the most urgent frames that are
    /// in time. Without `tries` left, those that are met where the most urgent frame leads.
    fn search(&self, rest: &[usize], time: Duration, left: &mut [usize], tries: &mut usize) -> Met {
        if rest.is_empty() {
            return Met::default();
        }
        let mut best = self.follow(rest.to_vec(), time, &mut left.to_vec());
        for (lane, Lane { cost, size, .. }) in self.lanes.iter().enumerate() {
            for size in 1..=(*size).min(rest.len()) {
                let Some(fewer) = tries.checked_sub(1) else { return best };
                *tries = fewer;
                let end = time + cost.mean(size);
                let batch = self.first_in_time(rest, lane, end, size);
                if batch.len() < size {
                    continue;
                }
                let mut left = left.to_vec();
                let met = self.meet(&batch, end, &mut left);
                let others: Vec<usize> = rest.iter().copied().filter(|at| !batch.contains(at)).collect();
                let later = self.search(&others, time + self.step(cost, size), &mut left, tries);
                best = best.max((met.0 + later.0, met.1 + later.1));
            }
        }
        best
    }

    /// The deadlines met from `time` on where the most urgent frame that can be in time always leads the largest batch in which
    /// it is.
    fn follow(&self, mut rest: Vec<usize>, mut time: Duration, left: &mut [usize]) -> Met {
        let mut met = Met::default();
        loop {
            rest.retain(|&at| {
                let frame = &self.frames[at];
                let end = time + self.lanes[frame.lane].cost.mean(1);
                frame.deadline.is_none_or(|deadline| end <= deadline)
            });
            let Some(&first) = rest.first() else { return met };
            let lane = self.frames[first].lane;
            let Lane { cost, size, .. } = self.lanes[lane];
            let batches = (1..=size.min(rest.len())).rev().map(|size| {
                let batch = self.first_in_time(&rest, lane, time + cost.mean(size), size);
                (batch.len() == size && batch[0] == first).then_some(batch)
            });
            // The frame alone is in time.
            let Some(batch) = { batches }.flatten().next() else { return met };
            let own = self.meet(&batch, time + cost.mean(batch.len()), left);
            met = (met.0 + own.0, met.1 + own.1);
            time += self.step(cost, batch.len());
            rest.retain(|at| !batch.contains(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Runs of 10 ms, and of 5 ms for each further frame.
    fn table(first: u32, further: u32) -> CostTable {
        let mut table = CostTable::new(8);
        (1..=8).for_each(|batch| table.record(MS, batch as usize, MS * (first + further * (batch - 1))));
        table
    }

    /// A frame of device 0, which is within its share; device 1 is not.
    fn frame(lane: usize, deadline: u32) -> Candidate {
        let deadline = MS * deadline;
        Candidate { lane, device: 0, key: deadline, deadline: Some(deadline), class: Priority::Normal }
    }

    fn batch(frames: &[Candidate], tables: &[CostTable]) -> Vec<usize> {
        let lanes: Vec<Lane<'_>> = tables.iter().map(|cost| Lane { cost, size: 8, ready: true }).collect();
        let (now, class) = (Duration::ZERO, Priority::Normal);
        Choice { now, frames, lanes: &lanes, shares: &[8, 0], fills: &[true, false], class, workers: 1 }
            .batch()
    }

    #[test]
    fn the_most_urgent_lane_runs_as_large_as_it_may() {
        let tables = [table(10, 5), table(10, 5)];
        let frames = [frame(0, 900), frame(1, 500), frame(0, 950), frame(1, 990)];
        assert_eq!(batch(&frames, &tables), [1, 3]);
    }

    #[test]
    fn a_batch_makes_no_frame_miss_what_it_meets_alone() {
        let tables = [table(10, 5)];
        let frames = [frame(0, 16), frame(0, 200), frame(0, 200)];
        assert_eq!(batch(&frames, &tables), [0, 1]);
        assert_eq!(batch(&[frame(0, 12), frame(0, 200), frame(0, 200)], &tables), [0]);
    }

    #[test]
    fn an_urgent_frame_is_left_out_where_that_meets_more_deadlines() {
        let tables = [table(10, 1)];
        // Alone the first would meet its deadline, and the three others theirs only if they begin now.
        let frames = [frame(0, 10), frame(0, 13), frame(0, 13), frame(0, 13)];
        assert_eq!(batch(&frames, &tables), [1, 2, 3]);
        let tables = [table(20, 20), table(5, 5)];
        let frames = [frame(0, 20), frame(1, 21), frame(1, 22)];
        assert_eq!(batch(&frames, &tables), [1, 2]);
    }

    #[test]
    fn choosing_among_many_shapes_takes_a_bounded_number_of_tries() {
        let tables = [table(10, 5), table(11, 4), table(12, 3), table(13, 2)];
        let frames: Vec<Candidate> = (0..9).map(|at| frame(at as usize % 4, 60 + at % 5)).collect();
        let lanes: Vec<Lane<'_>> = tables.iter().map(|cost| Lane { cost, size: 8, ready: true }).collect();
        let (now, class) = (Duration::ZERO, Priority::Normal);
        let choice =
            Choice { now, frames: &frames, lanes: &lanes, shares: &[9], fills: &[true], class, workers: 1 };
        let horizon: Vec<usize> = (0..9).collect();
        let met = |mut tries: usize| (choice.judge(&[0], &horizon, &mut tries), tries);
        let (all, unused) = met(1_000_000);
        assert!(0 < unused && unused < 1_000_000 - TRIED, "the search is as long as it is: {unused}");
        // What is found is no better with fewer tries, and no less than without any search.
        let (bounded, unused) = met(TRIED);
        assert_eq!(unused, 0);
        assert!(met(0).0 <= bounded && bounded <= all, "{:?} {bounded:?} {all:?}", met(0));
    }

    #[test]
    fn others_ride_along_where_that_costs_little() {
        let beyond = Candidate { device: 1, ..frame(0, 100) };
        let frames = [beyond, frame(0, 900), beyond];
        assert_eq!(batch(&frames, &[table(20, 1)]), [1, 0, 2]);
        assert_eq!(batch(&frames, &[table(10, 1)]), [1, 0]);
        assert_eq!(batch(&frames, &[table(10, 9)]), [1]);
    }
}
