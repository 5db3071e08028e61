//! What became of the frames of each live source, readable at any time.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Counts of one camera that is running.
#[derive(Debug, Default)]
pub(crate) struct CameraTally {
    name: String,
    arrived: AtomicU64,
    taken: AtomicU64,
    replaced: AtomicU64,
    damaged: AtomicU64,
    outages: AtomicU64,
    /// Why it delivers nothing at present.
    trouble: Mutex<Option<String>>,
}

/// What became of the frames of one live source.
///
/// Every frame that arrived was taken or replaced, except those that were waiting at the end: the last one that arrived, and one
/// that was decoded already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CameraSummary {
    /// Its name.
    pub name: String,
    /// Frames that arrived whole.
    pub arrived: u64,
    /// Frames that were taken; each has a line.
    pub taken: u64,
    /// Frames that a newer one replaced before they were taken.
    pub replaced: u64,
    /// Frames that were begun and did not arrive whole.
    pub damaged: u64,
    /// How often it ended, failed or stalled.
    pub outages: u64,
}

impl CameraTally {
    pub(crate) fn new(name: String) -> Self {
        CameraTally { name, ..CameraTally::default() }
    }

    /// The camera's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn count_arrival(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_replaced(&self) {
        self.replaced.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_damaged(&self, frames: u64) {
        self.damaged.fetch_add(frames, Ordering::Relaxed);
    }

    pub(crate) fn count_outage(&self) {
        self.outages.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note of why the camera delivers nothing, or with `None` that it delivers.
    pub(crate) fn note_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why the camera delivers nothing at present.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The counts so far.
    pub(crate) fn summary(&self) -> CameraSummary {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CameraSummary {
            name: self.name.clone(),
            arrived: value(&self.arrived),
            taken: value(&self.taken),
            replaced: value(&self.replaced),
            damaged: value(&self.damaged),
            outages: value(&self.outages),
        }
    }
}

impl CameraSummary {
    /// Adds the counts of the same camera before it was opened anew.
    pub(crate) fn add(&mut self, other: &CameraSummary) {
        self.arrived += other.arrived;
        self.taken += other.taken;
        self.replaced += other.replaced;
        self.damaged += other.damaged;
        self.outages += other.outages;
    }
}

impl fmt::Display for CameraSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CameraSummary { name, arrived, taken, replaced, damaged, outages } = self;
        let s = if *arrived == 1 { "" } else { "s" };
        write!(
            f,
            "camera {name}: {arrived} frame{s} arrived, {taken} taken, {replaced} replaced by newer ones"
        )?;
        let waiting = arrived.saturating_sub(taken + replaced);
        if waiting > 0 {
            write!(f, ", {waiting} waiting at the end")?;
        }
        if *damaged > 0 {
            write!(f, ", {damaged} damaged")?;
        }
        if *outages > 0 {
            write!(f, "; lost {outages} time{}", if *outages == 1 { "" } else { "s" })?;
        }
        Ok(())
    }
}
