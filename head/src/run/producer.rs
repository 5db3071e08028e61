//! The thread that captures frames and runs their stages.

use std::sync::{Arc, mpsc::SyncSender};

use tokio::sync::{Semaphore, mpsc};

use crate::{
    error::Chain,
    frame::{Encoded, Finished, Frame, FrameId, Outcome},
    policy::FixedPolicy,
    shutdown::StopSignal,
    source::FrameSource,
    stage::{Staged, Stages},
};

/// Captures frames while there are places in flight, and passes them on encoded or finished.
pub(super) struct Producer<S> {
    source: S,
    policy: FixedPolicy,
    stages: Stages,
    places: Arc<Semaphore>,
    encoded: mpsc::Sender<Frame<Encoded>>,
    finished: SyncSender<Frame<Finished>>,
    stop: StopSignal,
}

impl<S: FrameSource> Producer<S> {
    /// A producer of at most `in_flight` frames at a time.
    pub(super) fn new(
        source: S,
        policy: FixedPolicy,
        stages: Stages,
        in_flight: usize,
        encoded: mpsc::Sender<Frame<Encoded>>,
        finished: SyncSender<Frame<Finished>>,
        stop: StopSignal,
    ) -> Self {
        let places = Arc::new(Semaphore::new(in_flight));
        Producer { source, policy, stages, places, encoded, finished, stop }
    }

    /// Works until the source ends or the run drains; returns how many frames were begun.
    pub(super) fn run(mut self) -> u64 {
        let mut begun = 0;
        loop {
            // The semaphore is never closed, so only the end of the run ends the wait for a place.
            let Some(Ok(permit)) = self.stop.block_on(Arc::clone(&self.places).acquire_owned()) else {
                return begun;
            };
            let Some(capture) = self.source.next_frame(&self.stop) else { return begun };
            let plan = self.policy.plan(&capture);
            let (frame, captured) = Frame::begin(FrameId(begun), capture, plan, permit);
            begun += 1;
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
                return begun;
            }
        }
    }
}
