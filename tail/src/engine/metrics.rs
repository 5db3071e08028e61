//! The engine's counters.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of an engine, from its start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Packets and images that could not be decoded.
    pub decode_failures: Counter,
    /// Images refused because too many waited for a decoder.
    pub images_busy: Counter,
    /// Pieces of work that were dropped because their deadline passed before a run began.
    pub expired: Counter,
    /// Inference runs.
    pub runs: Counter,
    /// Frames in all those runs.
    pub run_frames: Counter,
    /// Frames of the largest run.
    pub largest_run: Counter,
    /// Inference runs that failed.
    pub runs_failed: Counter,
}

/// A counter that many threads may raise.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Metrics {
    /// Counts an inference run over this many frames.
    pub(super) fn count_run(&self, frames: usize) {
        let frames = frames as u64;
        self.runs.add(1);
        self.run_frames.add(frames);
        self.largest_run.raise_to(frames);
    }
}

impl Counter {
    /// Adds `value`.
    pub fn add(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    /// Sets the counter to `value` if it is lower.
    pub fn raise_to(&self, value: u64) {
        self.0.fetch_max(value, Relaxed);
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
