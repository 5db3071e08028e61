//! What a run has done so far, readable at any time by the thread that ends it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{CameraSummary, CameraTally, FrameCounts, SinkStatus, SourceStatus, SpoolTally, Summary, Tally};
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

impl State {
    /// What became of the frames of each camera; one that was opened anew in the course of the run is told once.
    fn cameras(&self) -> Vec<CameraSummary> {
        let mut cameras: Vec<CameraSummary> = Vec::new();
        for camera in self.cameras.iter().map(|camera| camera.summary()) {
            match cameras.iter_mut().find(|other| other.name == camera.name) {
                Some(other) => other.add(&camera),
                None => cameras.push(camera),
            }
        }
        cameras
    }

    /// What each sink delivered and lost; one that was opened anew is told once.
    fn sinks(&self) -> Vec<SinkStatus> {
        let mut sinks: Vec<SinkStatus> = Vec::new();
        for sink in self.sinks.iter().map(|sink| sink.status()) {
            match sinks.iter_mut().find(|other| other.name == sink.name) {
                Some(other) => {
                    (other.delivered, other.lost) =
                        (other.delivered + sink.delivered, other.lost + sink.lost);
                    other.trouble = sink.trouble;
                }
                None => sinks.push(sink),
            }
        }
        sinks
    }
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
        state.sinks.iter().for_each(|sink| sink.settle());
        let mut summary = state.summary.clone();
        summary.cameras = state.cameras();
        summary.unfinished = state.begun.saturating_sub(summary.finished());
        summary.not_begun = state.total.map_or(0, |total| total.saturating_sub(state.begun));
        summary.spool = state.spool.as_ref().map(|tally| tally.lock().clone());
        summary.sinks = state.sinks();
        (summary, state.unread.then_some(Stop::Unread), state.error.take())
    }

    /// Outcomes of all frames at present.
    pub(crate) fn frames(&self) -> FrameCounts {
        let state = self.lock();
        let Summary { answered, refused, failed, dropped, spooled, local, kept, .. } = state.summary;
        let in_flight = state.begun.saturating_sub(state.summary.finished());
        FrameCounts { answered, refused, failed, dropped, spooled, local, kept, in_flight }
    }

    /// What became of the frames of each camera at present.
    pub(crate) fn sources(&self) -> Vec<SourceStatus> {
        let state = self.lock();
        let status = |CameraSummary { name, arrived, taken, replaced, damaged, outages }: CameraSummary| {
            let newest = state.cameras.iter().rev().find(|tally| tally.name() == name);
            let trouble = newest.and_then(|tally| tally.trouble());
            SourceStatus { name, arrived, taken, replaced, damaged, outages, trouble }
        };
        state.cameras().into_iter().map(status).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts are changed in one step each, so a panic elsewhere leaves them right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
