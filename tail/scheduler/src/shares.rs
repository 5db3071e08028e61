//! The devices' shares of one network, by deficit round robin.
//!
//! In each round a device with frames waiting gets a quantum of the network's time, and what its frames take is deducted. A
//! device whose account is above zero is within its share. When none of those that wait is, the next round begins (M. Shreedhar
//! and G. Varghese, Efficient Fair Queuing Using Deficit Round Robin, SIGCOMM 1995). Two devices that always have frames waiting
//! differ by at most a quantum and a run, whatever each of them offers. Unlike there, the order within a round is not that of a
//! list: the deadlines decide it. And a device that waits alone is lent what it takes, up to a limit, so that one which uses the
//! time that the others leave makes way for them as soon as they come.

use std::{collections::BTreeMap, time::Duration};

use crate::accounts::Slot;

/// Quanta that an account may hold.
const MOST_QUANTA: i64 = 4;

/// Runs of the largest size that a device may be in debt for.
const MOST_RUNS_LENT: i64 = 8;

/// The shares of the devices of one class in one network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    round: u64,
    devices: BTreeMap<Slot, Share>,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    /// Nanoseconds that are left in this round, below 0 where it took more.
    deficit: i64,
    /// The round of the last quantum.
    round: u64,
    waiting: usize,
    running: usize,
}

impl Shares {
    /// The number of devices with frames waiting.
    pub(crate) fn active(&self) -> usize {
        self.devices.values().filter(|share| share.waiting > 0).count()
    }

    /// Counts a frame as waiting. A device without others takes part from this round on, with the quantum of it.
    pub(crate) fn wait(&mut self, slot: Slot, quantum: i64) {
        let round = self.round;
        let share =
            self.devices.entry(slot).or_insert(Share { deficit: quantum, round, waiting: 0, running: 0 });
        if share.waiting == 0 && share.round < round {
            // Debts are forgiven at the speed of the rounds that it did not take part in.
            let missed = i64::try_from(round - share.round).unwrap_or(i64::MAX);
            let paid = share.deficit.saturating_add(missed.saturating_mul(quantum));
            share.deficit = paid.min(0).saturating_add(quantum);
            share.round = round;
        }
        share.waiting += 1;
    }

    /// Counts a frame that waited as gone.
    pub(crate) fn give_up(&mut self, slot: Slot) {
        if let Some(share) = self.devices.get_mut(&slot) {
            share.waiting -= 1;
        }
    }

    /// Counts a frame that waited as running, and deducts the time that it is expected to take. `full` is the time of a run of
    /// the largest size.
    pub(crate) fn begin(&mut self, slot: Slot, expected: Duration, full: Duration) {
        if let Some(share) = self.devices.get_mut(&slot) {
            share.waiting -= 1;
            share.running += 1;
            let least = -nanos(full).saturating_mul(MOST_RUNS_LENT);
            share.deficit = share.deficit.min(share.deficit.saturating_sub(nanos(expected)).max(least));
        }
    }

    /// Counts a frame that ran as done, and settles what was expected against the time that it took.
    pub(crate) fn finish(&mut self, slot: Slot, expected: Duration, took: Duration) {
        if let Some(share) = self.devices.get_mut(&slot) {
            share.running -= 1;
            share.deficit = share.deficit.saturating_add(nanos(expected)).saturating_sub(nanos(took));
        }
    }

    /// Nanoseconds that the device may still take in this round.
    pub(crate) fn left(&self, slot: Slot) -> i64 {
        self.devices.get(&slot).map_or(0, |share| share.deficit)
    }

    /// Begins rounds until one of `slots`, which have frames waiting, is within its share.
    pub(crate) fn begin_rounds(&mut self, slots: impl Iterator<Item = Slot>, quantum: i64) {
        let quantum = quantum.max(1);
        let rounds = slots.map(|slot| match self.left(slot) {
            left if left > 0 => 0,
            left => (-left) / quantum + 1,
        });
        let rounds = rounds.min().unwrap_or(0);
        if rounds == 0 {
            return;
        }
        self.round += rounds.unsigned_abs();
        for share in self.devices.values_mut().filter(|share| share.waiting > 0) {
            let deficit = share.deficit.saturating_add(rounds.saturating_mul(quantum));
            share.deficit = deficit.min(share.deficit.max(MOST_QUANTA.saturating_mul(quantum)));
            share.round = self.round;
        }
        // Those that have left and owe nothing any more are as new ones would be.
        let round = self.round;
        self.devices.retain(|_, share| {
            let missed = i64::try_from(round - share.round).unwrap_or(i64::MAX);
            share.waiting + share.running > 0
                || share.deficit.saturating_add(missed.saturating_mul(quantum)) < 0
        });
    }

    /// Forgets a device without frames.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.devices.remove(&slot);
    }
}

/// Nanoseconds, for sums with a sign.
pub(crate) fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}
