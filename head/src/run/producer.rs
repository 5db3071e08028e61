//! The thread that captures frames and runs their stages.

use std::sync::{Arc, mpsc::SyncSender};

use narrows_policy::Entry;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    error::Chain,
    frame::{Decisions, Encoded, Finished, Frame, FrameId, Outcome},
    policy::FixedPolicy,
    report::{RunState, Totals},
    shutdown::StopSignal,
    source::FrameSource,
    stage::{Staged, Stages},
    uplink::DecisionLog,
};

/// Captures frames while there are places in flight, and passes them on encoded or finished.
pub(super) struct Producer<S> {
    pub(super) source: S,
    pub(super) policy: FixedPolicy,
    pub(super) stages: Stages,
    /// As many as frames may be in flight.
    pub(super) places: Arc<Semaphore>,
    pub(super) encoded: mpsc::Sender<Frame<Encoded>>,
    pub(super) finished: SyncSender<Frame<Finished>>,
    pub(super) stop: StopSignal,
    pub(super) totals: Arc<Totals>,
    /// Where decisions are recorded, if they are.
    pub(super) decisions: Option<DecisionLog>,
    pub(super) state: Arc<RunState>,
    /// Frames that were begun before.
    pub(super) begun: u64,
}

impl<S: FrameSource> Producer<S> {
    /// Works until the source ends or is to be left; counts the frames that were begun. Returns the source and their number.
    pub(super) fn run(mut self) -> (S, u64) {
        self.work();
        self.source.rest();
        self.state.note_waiting();
        (self.source, self.begun)
    }

    fn work(&mut self) {
        loop {
            self.state.note_working();
            if self.places.available_permits() == 0 {
                self.source.rest();
            }
            // The semaphore is never closed, so only the end of the run ends the wait for a place.
            let Some(Ok(permit)) = self.stop.block_on(Arc::clone(&self.places).acquire_owned()) else {
                return;
            };
            self.state.note_waiting();
            let Some(capture) = self.source.next_frame(&self.stop) else { return };
            self.state.note_working();
            let plan = self.policy.plan(&capture);
            let (frame, captured) = Frame::begin(FrameId(self.begun), capture, plan, permit);
            self.begun += 1;
            self.totals.begin();
            let finished = match captured {
                Err(error) => frame.finish(Outcome::Failed(Chain(&error).to_string()), None),
                Ok(captured) => match self.stages.process(frame.with(captured)) {
                    Staged::Finished(frame) => {
                        self.record(frame.id, &frame.decisions);
                        frame
                    }
                    Staged::Encoded(frame) => {
                        self.record(frame.id, &frame.decisions);
                        match self.encoded.blocking_send(frame) {
                            Ok(()) => continue,
                            Err(returned) => {
                                let reason = "not sent: the run was ending".to_owned();
                                returned.0.finish(Outcome::Failed(reason))
                            }
                        }
                    }
                },
            };
            if self.finished.send(finished).is_err() {
                return;
            }
        }
    }

    /// Records what was decided about a frame before it could be sent.
    fn record(&self, frame: FrameId, decisions: &Decisions) {
        let Some(log) = &self.decisions else { return };
        if let Some((costs, tried)) = decisions.trial {
            log.note_alone(Entry::ExitTried { frame: frame.0, costs, tried });
        }
        for by in decisions.figures() {
            log.note_alone(Entry::Stayed { frame: frame.0, stays: by.stays(), by });
        }
    }
}
