//! What a run has done so far, readable at any time by the thread that ends it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{CameraTally, SpoolTally, Summary, Tally};
use crate::{Error, signals::Stop};

/// Counts and errors of a run that is under way.
#[derive(Debug, Default)]
pub(crate) struct Totals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Frames of the source, if that is known.
    total: Option<u64>,
    begun: u64,
    cameras: Vec<Arc<CameraTally>>,
    /// Frames whose outcome is known.
    summary: Summary,
    /// Counts of the sinks beside standard output.
    sinks: Vec<Arc<Tally>>,
    spool: Option<Arc<SpoolTally>>,
    unread: bool,
    error: Option<Error>,
}

impl Totals {
    /// Notes how many frames the source has.
    pub(crate) fn expect(&self, total: Option<u64>) {
        self.lock().total = total;
    }

    /// Takes up the counts of a camera.
    pub(crate) fn watch(&self, camera: Arc<CameraTally>) {
        self.lock().cameras.push(camera);
    }

    /// Has the summary tell what a sink delivered and lost.
    pub(crate) fn add_sink(&self, tally: Arc<Tally>) {
        self.lock().sinks.push(tally);
    }

    /// Has the summary tell what became of the frames of the spool.
    pub(crate) fn add_spool(&self, tally: Arc<SpoolTally>) {
        self.lock().spool = Some(tally);
    }

    /// What became of the frames of the spool, if there is one.
    pub(crate) fn spool(&self) -> Option<Arc<SpoolTally>> {
        self.lock().spool.clone()
    }

    /// Counts a frame that was begun.
    pub(crate) fn begin(&self) {
        self.lock().begun += 1;
    }

    /// Changes the counts of frames whose outcome is known.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Summary)) {
        change(&mut self.lock().summary);
    }

    /// Notes that the reader of the lines has closed them.
    pub(crate) fn note_unread(&self) {
        self.lock().unread = true;
    }

    /// Notes an error of the output; the first one is kept.
    pub(crate) fn note_error(&self, error: Error) {
        self.lock().error.get_or_insert(error);
    }

    /// Ends the counting: the summary, why the run ended early if the output was the reason, and the first error.
    pub(crate) fn take(&self) -> (Summary, Option<Stop>, Option<Error>) {
        let mut state = self.lock();
        let mut summary = state.summary.clone();
        summary.cameras = state.cameras.iter().map(|camera| camera.summary()).collect();
        summary.unfinished = state.begun.saturating_sub(summary.finished());
        summary.not_begun = state.total.map_or(0, |total| total.saturating_sub(state.begun));
        summary.spool = state.spool.as_ref().map(|tally| tally.lock().clone());
        state.sinks.iter().for_each(|sink| sink.settle());
        summary.sinks = state.sinks.iter().map(|sink| sink.status()).collect();
        (summary, state.unread.then_some(Stop::Unread), state.error.take())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts are changed in one step each, so a panic elsewhere leaves them right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
