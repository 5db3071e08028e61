//! Whether somebody wants pictures, which decides whether frames keep their pixels.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Counts those who want pictures; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand(Arc<AtomicUsize>);

/// One who wants pictures, as long as this exists.
#[derive(Debug)]
pub(crate) struct Wanted(Demand);

impl Demand {
    /// Wants pictures until the value is dropped.
    pub(crate) fn want(&self) -> Wanted {
        self.0.fetch_add(1, Relaxed);
        Wanted(self.clone())
    }

    /// Whether anybody wants pictures.
    pub(crate) fn exists(&self) -> bool {
        self.0.load(Relaxed) > 0
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}
