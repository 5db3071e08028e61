//! Frames that wait for the server, and the way by which every one of them ends.
#![expect(clippy::disallowed_methods, reason = "frames past their deadline are dropped")]

use std::{
    collections::VecDeque,
    sync::{Arc, mpsc::SyncSender},
    time::Instant,
};

use narrows_wire::RefusalCode;
use tokio::sync::mpsc::Receiver;

use super::{
    fallback::Fallback,
    spool::{SpoolWay, may_be_sent_later},
};
use crate::frame::{Encoded, Finished, Frame, Outcome, SpoolEnd};

/// Encoded frames on their way to the server. Every frame that enters ends as a finished one.
#[derive(Debug)]
pub(crate) struct FrameQueue {
    incoming: Receiver<Frame<Encoded>>,
    finished: SyncSender<Frame<Finished>>,
    /// Frames that were in flight when a connection was lost, oldest first. At most as many as the run has in flight.
    resend: VecDeque<Frame<Encoded>>,
    /// Where frames wait that no server answered, if they do.
    spool: Option<SpoolWay>,
}

impl FrameQueue {
    pub(crate) fn new(incoming: Receiver<Frame<Encoded>>, finished: SyncSender<Frame<Finished>>) -> Self {
        FrameQueue { incoming, finished, resend: VecDeque::new(), spool: None }
    }

    /// Has frames that no server answers wait on disk.
    pub(crate) fn spooling(self, spool: Option<SpoolWay>) -> Self {
        FrameQueue { spool, ..self }
    }

    /// Where frames wait that no server answered.
    pub(super) fn spool(&self) -> Option<&SpoolWay> {
        self.spool.as_ref()
    }

    /// Waits for the next frame that was not sent before; `None` when no more can come. Cancel safe.
    pub(super) async fn receive(&mut self) -> Option<Frame<Encoded>> {
        self.incoming.recv().await
    }

    /// Puts a frame at the end of the resend queue. One from the spool stays on disk.
    pub(super) fn push(&mut self, frame: Frame<Encoded>) {
        if !frame.is_from_spool() {
            self.resend.push_back(frame);
        }
    }

    /// Puts frames into the resend queue and sorts it by age. Those from the spool stay on disk.
    pub(super) fn push_unanswered(&mut self, frames: impl Iterator<Item = Frame<Encoded>>) {
        self.resend.extend(frames.filter(|frame| !frame.is_from_spool()));
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

    /// Puts the frames of the resend queue on disk: all of them, or those that have waited for half of their time at `now`.
    pub(super) fn spool_waiting(&mut self, reason: &str, now: Option<Instant>) {
        for frame in std::mem::take(&mut self.resend) {
            match now.is_none_or(|now| frame.halfway() <= now) {
                true => self.finish(frame, Outcome::Failed(reason.to_owned())),
                false => self.resend.push_back(frame),
            }
        }
    }

    /// When the next frame of the resend queue is to be answered on this device or put on disk, or where it can be neither
    /// fails.
    pub(super) fn next_due(&self, has_alternative: bool) -> Option<Instant> {
        let due =
            |frame: &Frame<Encoded>| if has_alternative { frame.halfway() } else { frame.plan.deadline };
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
    pub(super) async fn fail_remaining(&mut self, reason: &str) {
        self.incoming.close();
        while let Some(frame) = self.resend.pop_front() {
            self.finish(frame, Outcome::Failed(reason.to_owned()));
        }
        // A frame whose place in the channel was reserved before it closed still comes.
        while let Some(frame) = self.incoming.recv().await {
            self.finish(frame, Outcome::Failed(reason.to_owned()));
        }
    }

    /// Ends a frame. One that no server answered is put on disk, where there is a spool, or stays there.
    pub(super) fn finish(&self, mut frame: Frame<Encoded>, outcome: Outcome) {
        if may_be_sent_later(&outcome) {
            if frame.is_from_spool() {
                let failed = matches!(&outcome, Outcome::Refused { refusal, .. } if refusal.code == RefusalCode::Internal);
                if let Some(spooled) = frame.spooled.as_mut().filter(|_| failed) {
                    spooled.end(SpoolEnd::Failed);
                }
                return;
            }
            if let Some(spool) = &self.spool {
                return spool.store(frame, outcome);
            }
        }
        self.send(frame, outcome);
    }

    /// Fails a frame that no server could ever answer.
    pub(super) fn reject(&self, frame: Frame<Encoded>, reason: String) {
        self.send(frame, Outcome::Failed(reason));
    }

    fn send(&self, frame: Frame<Encoded>, outcome: Outcome) {
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

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver as FinishedReceiver, sync_channel},
        time::Duration,
    };

    use tokio::sync::mpsc;

    use super::{
        super::{fallback::FallbackFrame, tests::frame as framed},
        *,
    };

    const BUDGET: Duration = Duration::from_secs(100);

    /// A frame that was captured `age` before `now`.
    fn frame(id: u64, now: Instant, age: Duration) -> Frame<Encoded> {
        framed(id, now - age, BUDGET)
    }

    struct Ends {
        queue: FrameQueue,
        incoming: mpsc::Sender<Frame<Encoded>>,
        finished: FinishedReceiver<Frame<Finished>>,
        fallback: Fallback,
        local: FinishedReceiver<FallbackFrame>,
    }

    fn ends(ages: &[u64], now: Instant) -> Ends {
        let (incoming, receiver) = mpsc::channel(8);
        let (finished_in, finished) = sync_channel(8);
        let (local_in, local) = sync_channel(8);
        let mut queue = FrameQueue::new(receiver, finished_in);
        for (id, &age) in ages.iter().enumerate() {
            queue.push(frame(id as u64, now, Duration::from_secs(age)));
        }
        Ends { queue, incoming, finished, fallback: Fallback::new(local_in), local }
    }

    fn ids(frames: &FinishedReceiver<FallbackFrame>) -> Vec<u64> {
        frames.try_iter().map(|(frame, _)| frame.id.0).collect()
    }

    #[test]
    fn frames_that_waited_for_half_of_their_time_are_answered_here() {
        let now = Instant::now();
        let mut ends = ends(&[60, 10, 50, 49], now);
        ends.queue.answer_locally(&ends.fallback, "away", Some(now));
        assert_eq!(ids(&ends.local), [0, 2]);
        assert_eq!(ends.queue.next_due(true), Some(now + Duration::from_secs(1)));
        assert_eq!(ends.queue.next_due(false), Some(now + Duration::from_secs(51)));
        ends.queue.answer_locally(&ends.fallback, "away", None);
        assert_eq!(ids(&ends.local), [1, 3]);
        assert!(ends.queue.is_empty() && ends.queue.next_due(true).is_none());
        assert!(ends.finished.try_recv().is_err(), "none of them has failed");
    }

    #[test]
    fn frames_past_their_deadline_fail_with_their_budget() {
        let now = Instant::now();
        let mut ends = ends(&[101, 10, 200], now);
        ends.queue.drop_expired();
        let failed: Vec<_> = ends.finished.try_iter().collect();
        assert_eq!(failed.iter().map(|frame| frame.id.0).collect::<Vec<_>>(), [0, 2]);
        let Outcome::Failed(reason) = &failed[0].stage.outcome else { panic!("it failed") };
        assert!(reason.contains("100000 ms"), "{reason}");
        ends.queue.push(frame(9, now, Duration::from_secs(300)));
        assert_eq!(ends.queue.len(), 2);
        assert_eq!(ends.queue.pop().map(|frame| frame.id.0), Some(1));
        assert!(ends.queue.pop().is_none());
        assert_eq!(ends.finished.try_iter().map(|frame| frame.id.0).collect::<Vec<_>>(), [9]);
    }

    #[tokio::test]
    async fn unanswered_frames_are_sent_again_oldest_first_and_what_is_left_fails() {
        let now = Instant::now();
        let mut ends = ends(&[1, 1, 1], now);
        let young = ends.queue.pop().unwrap();
        ends.queue.push_unanswered([frame(7, now, Duration::ZERO), young].into_iter());
        assert_eq!(ends.queue.pop().map(|frame| frame.id.0), Some(0));
        ends.incoming.try_send(frame(8, now, Duration::ZERO)).unwrap();
        drop(ends.incoming);
        assert!(!ends.queue.is_exhausted());
        ends.queue.fail_remaining("gone").await;
        assert!(ends.queue.is_exhausted());
        let failed: Vec<u64> = ends.finished.try_iter().map(|frame| frame.id.0).collect();
        assert_eq!(failed, [1, 2, 7, 8]);
    }
}
