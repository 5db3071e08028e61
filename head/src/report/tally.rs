//! What a sink was offered, what it delivered and what it lost.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::SinkStatus;

/// Counts of one sink, shared by those that fill it, run it and report on it.
#[derive(Debug)]
pub(crate) struct Tally {
    name: String,
    offered: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
    /// Why nothing is delivered at present.
    trouble: Mutex<Option<String>>,
}

impl Tally {
    /// Counts of the sink that messages call `name`.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        let zero = || AtomicU64::new(0);
        Tally {
            name: name.into(),
            offered: zero(),
            delivered: zero(),
            lost: zero(),
            trouble: Mutex::new(None),
        }
    }

    /// Counts an answer that the sink is to deliver.
    pub(crate) fn offer(&self) {
        self.offered.fetch_add(1, Relaxed);
    }

    /// Counts an answer that has arrived.
    pub(crate) fn deliver(&self) {
        self.delivered.fetch_add(1, Relaxed);
    }

    /// Counts answers that will not arrive.
    pub(crate) fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
    }

    /// Notes why nothing is delivered, and says so on standard error where that is new.
    pub(crate) fn note_trouble(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_deref() != Some(&reason) {
            tracing::warn!("{}: {reason}", self.name);
            *trouble = Some(reason);
        }
    }

    /// Notes that the sink works, and says so where it did not.
    pub(crate) fn note_recovery(&self) {
        if self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::warn!(
                "{}: works again; {} answers were lost so far",
                self.name,
                self.lost.load(Relaxed)
            );
        }
    }

    /// How many answers have arrived or are lost.
    pub(crate) fn settled(&self) -> u64 {
        self.delivered.load(Relaxed) + self.lost.load(Relaxed)
    }

    /// Counts what was offered and has not arrived as lost. Only at the end: until then it may still be on its way.
    pub(crate) fn settle(&self) {
        let lost = self.offered.load(Relaxed).saturating_sub(self.delivered.load(Relaxed));
        self.lost.store(lost, Relaxed);
    }

    /// The counts at present.
    pub(crate) fn status(&self) -> SinkStatus {
        SinkStatus {
            name: self.name.clone(),
            delivered: self.delivered.load(Relaxed),
            lost: self.lost.load(Relaxed),
            trouble: self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
