//! What a sink was offered, what it delivered and what it lost.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use super::SinkStatus;

/// Counts of one sink, shared by those that fill it, run it and report on it.
#[derive(Debug)]
pub(crate) struct Tally {
    name: String,
    offered: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
    /// Whether what has not arrived counts as lost, whatever the sink still does.
    is_settled: AtomicBool,
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
            is_settled: AtomicBool::new(false),
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
            tracing::warn!("{}: works again; {} lost so far", self.name, self.lost.load(Relaxed));
        }
    }

    /// How many answers have arrived or are lost.
    pub(crate) fn settled(&self) -> u64 {
        self.delivered.load(Relaxed) + self.lost.load(Relaxed)
    }

    /// Counts what was offered and has not arrived as lost. Only at the end: until then it may still be on its way.
    pub(crate) fn settle(&self) {
        self.is_settled.store(true, Relaxed);
    }

    /// The counts at present.
    pub(crate) fn status(&self) -> SinkStatus {
        let delivered = self.delivered.load(Relaxed);
        let lost = match self.is_settled.load(Relaxed) {
            true => self.offered.load(Relaxed).saturating_sub(delivered),
            false => self.lost.load(Relaxed),
        };
        SinkStatus {
            name: self.name.clone(),
            delivered,
            lost,
            trouble: self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_arrived_at_the_end_is_lost_once() {
        let tally = Tally::new("x");
        (0..5).for_each(|_| tally.offer());
        tally.deliver();
        tally.lose(2);
        assert_eq!((tally.status().delivered, tally.status().lost, tally.settled()), (1, 2, 3));
        tally.settle();
        // A sink that was left behind may still count.
        tally.lose(2);
        assert_eq!((tally.status().delivered, tally.status().lost), (1, 4));
    }
}
