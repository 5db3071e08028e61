//! Frames of live sources, decoded in a thread of their own while the network works on the frame before.
//!
//! One decoded frame waits. Where newer frames replace older ones, the newest that has arrived meanwhile is decoded and takes
//! its place, so that what is taken is as new as decoding allows. While no frame is wanted, none takes the place of one that
//! waits. The thread lives as long as the sources, whatever settings use them; it ends with the run or when this is dropped.
#![expect(clippy::disallowed_methods, reason = "a frame that waits is replaced where the next one is due")]

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    intake::Intake,
    live::{Closer, Live, at_its_turn},
};
use crate::{
    Error,
    frame::{Capture, Origin},
    report::Totals,
    shutdown::{Shutdown, StopSignal},
};

/// How long the thread is waited for at the end, and how often it is looked at. It ends the cameras, which takes their time.
const END: Duration = Duration::from_millis(900);
const STEP: Duration = Duration::from_millis(5);

/// Live sources whose frames are decoded ahead.
#[derive(Debug)]
pub(super) struct Ahead {
    handover: Arc<Handover>,
    intake: Arc<Intake>,
    totals: Arc<Totals>,
    closer: Closer,
    names: Vec<Option<Arc<str>>>,
    total: Option<u64>,
    /// Until the first frame is wanted.
    live: Option<Box<Live>>,
    /// The thread and what ends it.
    thread: Option<(JoinHandle<()>, Shutdown)>,
}

/// Where the decoded frame waits.
#[derive(Debug, Default)]
struct Handover {
    state: Mutex<State>,
    /// Rung when a frame was decoded, and at the end.
    decoded: Notify,
    /// Rung when a frame was taken, and when frames are wanted again.
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: Option<Decoded>,
    /// For each source, frames that were decoded and replaced since the last one that was handed over.
    replaced: Vec<u64>,
    /// Whether no frame is wanted.
    rests: bool,
    /// Whether there will be no more.
    has_ended: bool,
}

/// A decoded frame and the place of its source.
#[derive(Debug)]
struct Decoded {
    source: usize,
    capture: Capture,
}

impl Ahead {
    pub(super) fn new(live: Box<Live>) -> Self {
        let intake = live.intake();
        let state = State { replaced: vec![0; intake.len()], ..State::default() };
        Ahead {
            handover: Arc::new(Handover { state: Mutex::new(state), ..Handover::default() }),
            intake,
            totals: live.totals(),
            closer: live.closer(),
            names: live.names(),
            total: live.total(),
            live: Some(live),
            thread: None,
        }
    }

    pub(super) fn closer(&self) -> Closer {
        self.closer.clone()
    }

    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }

    pub(super) fn names(&self) -> Vec<Option<Arc<str>>> {
        self.names.clone()
    }

    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Has `totals` tell what becomes of the frames of cameras.
    pub(super) fn count_in(&self, totals: &Totals) {
        self.live.iter().for_each(|live| live.count_in(totals));
    }

    /// No frame is wanted until the next call of [`Ahead::next_frame`].
    pub(super) fn rest(&mut self) {
        self.handover.lock().rests = true;
    }

    /// Waits for the next frame, until `stop` is raised. The sources go on after that.
    pub(super) fn next_frame(&mut self, stop: &StopSignal) -> Option<Capture> {
        if let Some(live) = self.live.take() {
            self.start(live, stop);
        }
        loop {
            {
                let mut state = self.handover.lock();
                if std::mem::take(&mut state.rests) {
                    // What was decoded before the rest may be old.
                    if let Some(old) = state.waiting.take_if(|frame| self.has_newer(frame.source)) {
                        state.replace(old, &self.intake);
                    }
                    self.handover.taken.notify_one();
                }
                if let Some(Decoded { source, capture }) = state.waiting.take() {
                    self.handover.taken.notify_one();
                    self.intake.member(source).tally.count_taken();
                    return Some(at_its_turn(capture, Instant::now()));
                }
                if state.has_ended {
                    return None;
                }
            }
            stop.block_on(self.handover.decoded.notified())?;
        }
    }

    /// Whether a frame waits that replaces the decoded one of its source now.
    fn has_newer(&self, source: usize) -> bool {
        self.intake.member(source).is_newest
            && self.intake.inbox.has(source)
            && self.intake.wait(source, Instant::now()).is_none()
    }

    fn start(&mut self, live: Box<Live>, stop: &StopSignal) {
        let (end, stop) = stop.of_run().part();
        let (handover, totals) = (Arc::clone(&self.handover), Arc::clone(&self.totals));
        let guard = EndOnDrop { handover: Arc::clone(&handover), totals: Arc::clone(&totals) };
        let intake = Arc::clone(&self.intake);
        let work = move || {
            let _guard = guard;
            Decoder { live, intake, handover }.run(&stop);
        };
        match thread::Builder::new().name("decoder".to_owned()).spawn(work) {
            Ok(thread) => self.thread = Some((thread, end)),
            Err(source) => {
                let problem =
                    "no thread can be started for decoding; raise the limit of processes (ulimit -u)";
                totals.note_error(Error::Device { problem, source });
                self.handover.lock().has_ended = true;
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.closer.close();
        let Some((thread, end)) = self.thread.take() else { return };
        end.drain();
        let mut left = END;
        while !thread.is_finished() && !left.is_zero() {
            thread::sleep(STEP);
            left = left.saturating_sub(STEP);
        }
    }
}

/// The thread that decodes.
struct Decoder {
    live: Box<Live>,
    intake: Arc<Intake>,
    handover: Arc<Handover>,
}

/// What the thread does next.
enum Next {
    /// Decodes the next frame.
    Decode,
    /// Decodes a newer frame of this source, if one comes before the decoded one is taken.
    Renew(usize),
    /// Waits until the decoded frame is taken.
    Wait,
}

impl Decoder {
    /// Decodes until the sources end or `stop` is raised.
    fn run(mut self, stop: &StopSignal) {
        loop {
            let next = match &*self.handover.lock() {
                State { waiting: None, .. } => Next::Decode,
                State { waiting: Some(frame), rests: false, .. }
                    if self.intake.member(frame.source).is_newest =>
                {
                    Next::Renew(frame.source)
                }
                _ => Next::Wait,
            };
            let renews = match next {
                Next::Decode => match self.live.next_frame(stop) {
                    Some((source, capture)) => {
                        self.put(Decoded { source, capture });
                        continue;
                    }
                    None => return,
                },
                Next::Renew(source) => {
                    if let Some(capture) = self.live.newer_frame(source) {
                        self.put(Decoded { source, capture });
                        continue;
                    }
                    true
                }
                Next::Wait => false,
            };
            let waited = stop.block_on(async {
                tokio::select! {
                    () = self.handover.taken.notified() => {}
                    () = self.intake.inbox.bell.notified(), if renews => {}
                }
            });
            if waited.is_none() {
                return;
            }
        }
    }

    /// Has a frame wait, in place of an older one of its source.
    fn put(&self, mut frame: Decoded) {
        let mut state = self.handover.lock();
        if let Some(older) = state.waiting.take() {
            state.replace(older, &self.intake);
        }
        if let Origin::Camera { replaced, .. } = &mut frame.capture.origin {
            *replaced += std::mem::take(&mut state.replaced[frame.source]);
        }
        state.waiting = Some(frame);
        drop(state);
        self.handover.decoded.notify_one();
    }
}

impl State {
    /// Counts a decoded frame as replaced by the next one of its source.
    fn replace(&mut self, frame: Decoded, intake: &Intake) {
        intake.member(frame.source).tally.count_replaced();
        if let Origin::Camera { replaced, .. } = frame.capture.origin {
            self.replaced[frame.source] += replaced + 1;
        }
    }
}

impl Handover {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes the end of the thread, and an error where it panics.
struct EndOnDrop {
    handover: Arc<Handover>,
    totals: Arc<Totals>,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if thread::panicking() {
            self.totals.note_error(Error::Thread { task: "decodes frames" });
        }
        self.handover.lock().has_ended = true;
        self.handover.decoded.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use narrows_video::Raw;
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::source::{
        Settings, Spec,
        inbox::{Arrival, Content, Keep},
    };

    /// Sources whose one camera delivers nothing by itself, and a run with a runtime that waits for it.
    fn ahead(every: bool) -> (Ahead, Shutdown, Runtime) {
        let settings = Settings {
            passes: None,
            budget: Duration::from_secs(1),
            rate: None,
            stall: Duration::from_secs(60),
            every,
            began: SystemTime::UNIX_EPOCH,
            views: Arc::default(),
        };
        let specs = [Spec::parse("command:sleep 20".as_ref()).unwrap()];
        let live = Live::open(&specs, &settings, &Arc::default()).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        (Ahead::new(Box::new(live)), Shutdown::new(), runtime)
    }

    /// A frame arrives that is as bright as this.
    fn put(ahead: &Ahead, brightness: u8) {
        let (b, grey) = (brightness, 128);
        let raw = Raw::new("i420:2x2,full".parse().unwrap(), vec![b, b, b, b, grey, grey]).unwrap();
        let (at, on) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let arrival = Arrival { content: Content::Raw(raw), at, on, file: None };
        ahead.intake.inbox.put(0, arrival, Keep::Newest);
    }

    /// Waits until the thread has decoded all that arrived.
    fn settle(ahead: &Ahead) {
        while ahead.intake.inbox.has(0) || ahead.handover.lock().waiting.is_none() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Brightness of a frame, and how many it replaced.
    fn seen(capture: &Capture) -> (u8, u64) {
        let Origin::Camera { replaced, .. } = capture.origin else { panic!("{capture:?}") };
        (capture.picture.as_ref().unwrap().image().unwrap().as_raw()[0], replaced)
    }

    #[test]
    fn a_newer_frame_takes_the_place_of_a_decoded_one_and_both_are_counted() {
        let (mut ahead, run, runtime) = ahead(false);
        let stop = run.part().signal(runtime.handle().clone());
        put(&ahead, 1);
        assert_eq!(seen(&ahead.next_frame(&stop).unwrap()), (1, 0));
        for brightness in 2..5 {
            put(&ahead, brightness);
            settle(&ahead);
        }
        assert_eq!(seen(&ahead.next_frame(&stop).unwrap()), (4, 2));
        // While frames are not wanted the decoded one stays; after that the newest comes.
        put(&ahead, 5);
        settle(&ahead);
        ahead.rest();
        (6..9).for_each(|brightness| put(&ahead, brightness));
        thread::sleep(Duration::from_millis(20));
        assert!(ahead.intake.inbox.has(0), "nothing is decoded while frames are not wanted");
        assert_eq!(seen(&ahead.next_frame(&stop).unwrap()), (8, 3));
        let counts = ahead.intake.member(0).tally.summary();
        assert_eq!((counts.arrived, counts.taken, counts.replaced), (8, 3, 5));
    }

    #[test]
    fn every_frame_is_handed_over_where_none_is_to_be_replaced() {
        let (mut ahead, run, runtime) = ahead(true);
        let stop = run.signal(runtime.handle().clone());
        put(&ahead, 1);
        assert_eq!(seen(&ahead.next_frame(&stop).unwrap()), (1, 0));
        put(&ahead, 2);
        settle(&ahead);
        put(&ahead, 3);
        for brightness in [2, 3] {
            assert_eq!(seen(&ahead.next_frame(&stop).unwrap()), (brightness, 0));
        }
    }

    #[test]
    fn the_budget_of_a_stored_picture_begins_when_it_is_taken() {
        let (mut ahead, run, runtime) = ahead(true);
        let stop = run.signal(runtime.handle().clone());
        put(&ahead, 1);
        let first = ahead.next_frame(&stop).unwrap();
        ahead.intake.inbox.put(0, Capture { can_reload: true, ..first }.into(), Keep::Every);
        settle(&ahead);
        let asked = Instant::now();
        let taken = ahead.next_frame(&stop).unwrap();
        assert!(taken.captured_at + taken.decode >= asked, "it waited decoded at the cost of its budget");
    }

    #[test]
    fn sources_go_on_from_one_part_of_a_run_to_the_next_and_end_with_the_run() {
        let (mut ahead, run, runtime) = ahead(false);
        let first = run.part();
        let stop = first.signal(runtime.handle().clone());
        put(&ahead, 1);
        assert!(ahead.next_frame(&stop).is_some());
        first.drain();
        assert!(ahead.next_frame(&stop).is_none());
        ahead.intake().set_rate(Some(1000.0));
        let stop = run.part().signal(runtime.handle().clone());
        put(&ahead, 2);
        assert_eq!(seen(&ahead.next_frame(&stop).unwrap()).0, 2);
        run.drain();
        assert!(ahead.next_frame(&stop).is_none());
        let (thread, _) = ahead.thread.as_ref().unwrap();
        let begin = Instant::now();
        while !thread.is_finished() {
            assert!(begin.elapsed() < Duration::from_secs(10), "the thread does not end");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
