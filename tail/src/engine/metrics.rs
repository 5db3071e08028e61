//! The engine's counters and distributions.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use narrows_models::Bundle;
use narrows_scheduler::Refused;

use super::ort::Provider;

/// Counters of an engine, from its start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Bundles whose networks were loaded.
    pub bundles_loaded: Counter,
    /// Bundles whose networks could not be loaded.
    pub bundles_failed: Counter,
    /// Bundles that were unloaded because nothing used them any more.
    pub bundles_left: Counter,
    /// Bundles that were unloaded to make room for another.
    pub bundles_evicted: Counter,
    /// Packets and images that could not be decoded.
    pub decode_failures: Counter,
    /// Images refused because too many waited for a decoder.
    pub images_busy: Counter,
    /// Pieces of work that were dropped because their deadline passed before a run began.
    pub expired: Counter,
    /// Pieces of work that were dropped because a run that began then would have ended after their deadline.
    pub hopeless: Counter,
    /// Pieces of work that made room for one of a device with fewer frames in the queue.
    pub displaced: Counter,
    /// Frames or pieces of work refused because the queue was full and no device had more frames in it.
    pub queue_full: Counter,
    /// Frames or pieces of work refused because their device's own frames were estimated to outlast their deadline.
    pub backlog_too_long: Counter,
    /// Frames refused because their device's quota of frames a second was used up.
    pub frame_quota: Counter,
    /// Frames refused because their device's quota of network time was used up.
    pub time_quota: Counter,
}

/// The inference runs of one network.
#[derive(Debug, Default)]
pub struct Runs {
    counts: Mutex<Counts>,
    /// Frames of the largest run.
    pub largest: Counter,
    /// Runs that failed. They are not among the sizes.
    pub failed: Counter,
}

#[derive(Debug, Default)]
struct Counts {
    sizes: Histogram,
    /// The geometries and sizes of the runs.
    used: BTreeSet<(usize, usize)>,
}

/// One network of an engine, as it is now.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NetworkStatus<'a> {
    /// What tells it from every other network that the engine has or had.
    pub number: usize,
    /// The bundle.
    pub bundle: &'a Bundle,
    /// The task that the network answers.
    pub task: &'a str,
    /// Whether it takes images; else it takes the latents of packets.
    pub unsplit: bool,
    /// Where it runs.
    pub provider: Provider,
    /// Frames that wait for it.
    pub waiting: usize,
    /// Its inference runs from the start.
    pub runs: &'a Runs,
}

/// How many values fell into each of some ranges, and their sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// The values up to each bound, and above the one before it; at the end those above the last.
    counts: Box<[u64]>,
    sum: f64,
}

/// The sizes of batches up to which runs are counted apart.
const BATCH_SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// A counter that many threads may raise.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Metrics {
    /// Counts a frame or piece of work that was not admitted.
    pub(super) fn count_refused(&self, refused: &Refused) {
        match refused {
            Refused::TooLong { .. } => self.backlog_too_long.add(1),
            Refused::FrameQuota { .. } => self.frame_quota.add(1),
            Refused::TimeQuota { .. } => self.time_quota.add(1),
            _ => self.queue_full.add(1),
        }
    }
}

impl Runs {
    /// Counts a run over this many frames of a geometry.
    pub(super) fn count(&self, geometry: usize, frames: usize) {
        let mut counts = self.lock();
        counts.sizes.record(frames as f64);
        counts.used.insert((geometry, frames));
        drop(counts);
        self.largest.raise_to(frames as u64);
    }

    /// The geometries and sizes of the runs.
    pub(super) fn used(&self) -> Vec<(usize, usize)> {
        self.lock().used.iter().copied().collect()
    }

    /// How many frames shared each run.
    #[must_use]
    pub fn sizes(&self) -> Histogram {
        self.lock().sizes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram::new(BATCH_SIZES)
    }
}

impl Histogram {
    /// An empty histogram with these upper bounds, which ascend.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len() + 1].into(), sum: 0.0 }
    }

    /// Adds a value.
    pub fn record(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    /// Adds the values of another histogram with the same bounds.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, count)| *own += count);
        self.sum += other.sum;
    }

    /// The number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Each upper bound, the last one infinite, with the number of values in its range.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.bounds.iter().copied().chain([f64::INFINITY]).zip(self.counts.iter().copied())
    }
}

impl Counter {
    /// Adds `value`.
    pub fn add(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    /// Sets the counter to `value` if it is lower.
    fn raise_to(&self, value: u64) {
        self.0.fetch_max(value, Relaxed);
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_up_to_its_bound_and_histograms_add_up() {
        let mut sizes = Histogram::default();
        [1.0, 2.0, 3.0, 4.0, 300.0].iter().for_each(|size| sizes.record(*size));
        let counts: Vec<u64> = sizes.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 1, 2, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(sizes.buckets().last(), Some((f64::INFINITY, 1)));
        let other = sizes.clone();
        sizes.merge(&other);
        assert_eq!((sizes.count(), sizes.sum()), (10, 620.0));
    }
}
