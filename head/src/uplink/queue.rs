//! Frames that wait for the server, and the way by which every one of them ends.
#![expect(clippy::disallowed_methods, reason = "frames past their deadline are dropped")]

use std::{
    collections::VecDeque,
    sync::{Arc, mpsc::SyncSender},
    time::Instant,
};

use tokio::sync::mpsc::Receiver;

use super::fallback::Fallback;
use crate::frame::{Encoded, Finished, Frame, Outcome};

/// Encoded frames on their way to the server. Every frame that enters ends as a finished one.
#[derive(Debug)]
pub(crate) struct FrameQueue {
    incoming: Receiver<Frame<Encoded>>,
    finished: SyncSender<Frame<Finished>>,
    /// Frames that were in flight when a connection was lost, oldest first. At most as many as the run has in flight.
    resend: VecDeque<Frame<Encoded>>,
}

impl FrameQueue {
    pub(crate) fn new(incoming: Receiver<Frame<Encoded>>, finished: SyncSender<Frame<Finished>>) -> Self {
        FrameQueue { incoming, finished, resend: VecDeque::new() }
    }

    /// Waits for the next frame that was not sent before; `None` when no more can come. Cancel safe.
    pub(super) async fn receive(&mut self) -> Option<Frame<Encoded>> {
        self.incoming.recv().await
    }

    /// Puts a frame at the end of the resend queue.
    pub(super) fn push(&mut self, frame: Frame<Encoded>) {
        self.resend.push_back(frame);
    }

    /// Puts frames into the resend queue and sorts it by age.
    pub(super) fn push_unanswered(&mut self, frames: impl Iterator<Item = Frame<Encoded>>) {
        self.resend.extend(frames);
        self.resend.make_contiguous().sort_by_key(|frame| frame.id);
    }

    /// Takes the oldest frame of the resend queue whose deadline has not passed; frames past theirs fail.
    pub(super) fn pop(&mut self) -> Option<Frame<Encoded>> {
        loop {
            let frame = self.resend.pop_front()?;
            if frame.plan.deadline > Instant::now() {
                return Some(frame);
            }
            self.fail_expired(frame);
        }
    }

    /// Has this device answer the frames of the resend queue: all of them, or those that have waited for half of their time
    /// at `now`.
    pub(super) fn answer_locally(&mut self, fallback: &Fallback, reason: &str, now: Option<Instant>) {
        let due = |frame: &Frame<Encoded>| now.is_none_or(|now| frame.halfway() <= now);
        if !self.resend.iter().any(due) {
            return;
        }
        let reason: Arc<str> = reason.into();
        for frame in std::mem::take(&mut self.resend) {
            match due(&frame) {
                true => fallback.answer(frame, Arc::clone(&reason)),
                false => self.resend.push_back(frame),
            }
        }
    }

    /// When the next frame of the resend queue is to be answered on this device, or without a local network fails.
    pub(super) fn next_due(&self, has_fallback: bool) -> Option<Instant> {
        let due = |frame: &Frame<Encoded>| if has_fallback { frame.halfway() } else { frame.plan.deadline };
        self.resend.iter().map(due).min()
    }

    /// Fails the frames of the resend queue whose deadlines have passed.
    pub(super) fn drop_expired(&mut self) {
        let now = Instant::now();
        let waiting = std::mem::take(&mut self.resend);
        for frame in waiting {
            match frame.plan.deadline > now {
                true => self.resend.push_back(frame),
                false => self.fail_expired(frame),
            }
        }
    }

    /// Frames in the resend queue.
    pub(super) fn len(&self) -> usize {
        self.resend.len()
    }

    /// Whether the resend queue is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.resend.is_empty()
    }

    /// Whether there is no frame and none can come.
    pub(super) fn is_exhausted(&self) -> bool {
        self.resend.is_empty() && self.incoming.is_closed() && self.incoming.is_empty()
    }

    /// Fails every frame that is left and accepts no more.
    pub(super) fn fail_remaining(&mut self, reason: &str) {
        self.incoming.close();
        while let Some(frame) = self.resend.pop_front().or_else(|| self.incoming.try_recv().ok()) {
            self.finish(frame, Outcome::Failed(reason.to_owned()));
        }
    }

    /// Ends a frame.
    pub(super) fn finish(&self, frame: Frame<Encoded>, outcome: Outcome) {
        // The channel has room for every frame that can exist, and its receiver outlives the uplink unless it has failed,
        // which the run reports.
        self.finished.send(frame.finish(outcome)).ok();
    }

    fn fail_expired(&self, frame: Frame<Encoded>) {
        let budget = frame.budget().as_millis();
        let reason = format!("its budget of {budget} ms was spent while the server was away");
        self.finish(frame, Outcome::Failed(reason));
    }
}
