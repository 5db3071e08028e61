//! Answers from this device while the server is away.
#![expect(clippy::disallowed_methods, reason = "every stage is timed here")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender},
    },
    time::{Duration, Instant},
};

use super::spool::SpoolWay;
use crate::{
    Error,
    error::{Chain, caught},
    frame::{Encoded, Finished, Frame, Outcome, Timings},
    picture::Picture,
    source::Reloader,
    stage::Local,
};

/// A frame for the fallback, and why no server answers it.
pub(crate) type FallbackFrame = (Frame<Encoded>, Arc<str>);

/// The time of an answer of the local network that is assumed before the first one.
const LOCAL_TIME: Duration = Duration::from_millis(100);

/// Where frames go that this device answers instead of the server.
#[derive(Debug, Clone)]
pub(crate) struct Fallback {
    frames: SyncSender<FallbackFrame>,
    pace: Arc<LocalPace>,
}

/// How fast this device answers.
#[derive(Debug)]
pub(crate) struct LocalPace {
    /// Time of the latest answer in microseconds.
    micros: AtomicU64,
    /// Frames that wait for their answer.
    waiting: AtomicU32,
}

impl Fallback {
    /// A way to the thread that receives from the other end of `frames`.
    pub(crate) fn new(frames: SyncSender<FallbackFrame>) -> Self {
        let micros = AtomicU64::new(LOCAL_TIME.as_micros() as u64);
        Fallback { frames, pace: Arc::new(LocalPace { micros, waiting: AtomicU32::new(0) }) }
    }

    /// How fast the thread answers.
    pub(crate) fn pace(&self) -> Arc<LocalPace> {
        Arc::clone(&self.pace)
    }

    /// When a frame that the server has not answered is to be answered here, so that its deadline is kept; at the earliest
    /// when half of its time has passed.
    pub(super) fn due<S>(&self, frame: &Frame<S>) -> Instant {
        let frames = self.pace.waiting.load(Ordering::Relaxed) + 1;
        let time = Duration::from_micros(self.pace.micros.load(Ordering::Relaxed)) * frames;
        let due = frame.plan.deadline.checked_sub(time);
        due.map_or(frame.halfway(), |due| due.max(frame.halfway()))
    }

    /// Has this device answer `frame`, because of `reason`.
    pub(super) fn answer(&self, frame: Frame<Encoded>, reason: Arc<str>) {
        // The channel has room for every frame that can exist, and the thread that answers outlives the uplink unless it has
        // failed, which ends the run.
        self.pace.waiting.fetch_add(1, Ordering::Relaxed);
        self.frames.send((frame, reason)).ok();
    }
}

/// Answers frames with the bundle's local network. It runs in a thread of its own, so that the uplink can go on
/// looking for the server.
#[derive(Debug)]
pub(crate) struct LocalAnswers {
    pub(crate) local: Local,
    pub(crate) reloader: Reloader,
    pub(crate) frames: Receiver<FallbackFrame>,
    pub(crate) pace: Arc<LocalPace>,
    pub(crate) finished: SyncSender<Frame<Finished>>,
    /// Where frames wait for the server's answer, if they do, beside that of this device.
    pub(crate) spool: Option<SpoolWay>,
}

impl LocalAnswers {
    /// Answers until no frame can come any more.
    pub(crate) fn run(mut self) {
        while let Ok((mut frame, reason)) = self.frames.recv() {
            let outcome = match frame.decisions.unsure.take() {
                // The local network has run on it for the early exit.
                Some(classes) => {
                    let Timings { decode, exit, .. } = frame.stage.stats.timings;
                    let timings = Timings { decode, exit, ..Timings::default() };
                    Outcome::Local { classes, timings, answered_at: Instant::now(), fallback: Some(reason) }
                }
                None => self.answer(&frame, reason),
            };
            self.pace.waiting.fetch_sub(1, Ordering::Relaxed);
            if let Some(spool) = &self.spool {
                spool.store(frame, outcome);
                continue;
            }
            // The receiver outlives every sender unless it has failed, which the run reports.
            if self.finished.send(frame.finish(outcome)).is_err() {
                return;
            }
        }
    }

    /// Runs the local network on a frame and takes note of how long that takes.
    fn answer(&mut self, frame: &Frame<Encoded>, reason: Arc<str>) -> Outcome {
        let started = Instant::now();
        // Files are read again, because keeping every picture until its answer would take memory for nothing.
        let loaded;
        let (picture, decode) = match &frame.stage.picture {
            Some(picture) => (Ok(picture), frame.stage.stats.timings.decode),
            None => {
                loaded = match frame.origin.file() {
                    Some(file) => self.reloader.load(file).map(Picture::Image),
                    None => Err(Error::Gone),
                };
                (loaded.as_ref(), started.elapsed())
            }
        };
        let mut answer =
            |picture| caught("the local network failed", || self.local.answer_to(picture)).flatten();
        let outcome = match picture.map(&mut answer) {
            Ok(Ok(answer)) => Outcome::Local {
                classes: answer.classes(),
                timings: Timings { decode, ..answer.timings },
                answered_at: Instant::now(),
                fallback: Some(reason),
            },
            Ok(Err(error)) => failed(&reason, &error),
            Err(error) => failed(&reason, error),
        };
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.pace.micros.store(took, Ordering::Relaxed);
        outcome
    }
}

fn failed(reason: &str, error: &Error) -> Outcome {
    Outcome::Failed(format!("{reason}; on this device: {}", Chain(error)))
}
