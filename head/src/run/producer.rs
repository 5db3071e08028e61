//! The thread that captures frames and runs their stages.

use std::sync::{Arc, mpsc::SyncSender};

use tokio::sync::{Semaphore, mpsc};

use crate::{
    error::Chain,
    frame::{Encoded, Finished, Frame, FrameId, Outcome},
    policy::FixedPolicy,
    report::Totals,
    shutdown::StopSignal,
    source::FrameSource,
    stage::{Staged, Stages},
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
}

impl<S: FrameSource> Producer<S> {
    /// Works until the source ends or the run drains; counts the frames that were begun.
    pub(super) fn run(mut self) {
        let mut begun = 0;
        loop {
            // The semaphore is never closed, so only the end of the run ends the wait for a place.
            let Some(Ok(permit)) = self.stop.block_on(Arc::clone(&self.places).acquire_owned()) else {
                return;
            };
            let Some(capture) = self.source.next_frame(&self.stop) else { return };
            let plan = self.policy.plan(&capture);
            let (frame, captured) = Frame::begin(FrameId(begun), capture, plan, permit);
            begun += 1;
            self.totals.begin();
            let finished = match captured {
                Err(error) => frame.finish(Outcome::Failed(Chain(&error).to_string()), None),
                Ok(captured) => match self.stages.process(frame.with(captured)) {
                    Staged::Finished(frame) => frame,
                    Staged::Encoded(frame) => match self.encoded.blocking_send(frame) {
                        Ok(()) => continue,
                        Err(returned) => {
                            let reason = "not sent: the run was ending".to_owned();
                            returned.0.finish(Outcome::Failed(reason))
                        }
                    },
                },
            };
            if self.finished.send(finished).is_err() {
                return;
            }
        }
    }
}
