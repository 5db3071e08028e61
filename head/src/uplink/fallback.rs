//! Answers from this device while the server is away.
#![expect(clippy::disallowed_methods, reason = "every stage is timed here")]

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
    time::Instant,
};

use crate::{
    Error,
    error::{Chain, caught},
    frame::{Encoded, Finished, Frame, Outcome, Timings},
    source::Reloader,
    stage::Local,
};

/// A frame for the fallback, and why no server answers it.
pub(crate) type FallbackFrame = (Frame<Encoded>, Arc<str>);

/// Where frames go that this device answers instead of the server.
#[derive(Debug, Clone)]
pub(crate) struct Fallback(pub(crate) SyncSender<FallbackFrame>);

impl Fallback {
    /// Has this device answer `frame`, because of `reason`.
    pub(super) fn answer(&self, frame: Frame<Encoded>, reason: Arc<str>) {
        // The channel has room for every frame that can exist, and the thread that answers outlives the uplink unless it has
        // failed, which ends the run.
        self.0.send((frame, reason)).ok();
    }
}

/// Answers frames with the bundle's local network. It runs in a thread of its own, so that the uplink can go on
/// looking for the server.
#[derive(Debug)]
pub(crate) struct LocalAnswers {
    pub(crate) local: Local,
    pub(crate) reloader: Reloader,
    pub(crate) frames: Receiver<FallbackFrame>,
    pub(crate) finished: SyncSender<Frame<Finished>>,
}

impl LocalAnswers {
    /// Answers until no frame can come any more.
    pub(crate) fn run(mut self) {
        while let Ok((frame, reason)) = self.frames.recv() {
            let started = Instant::now();
            // Files are read again, because keeping every picture until its answer would take memory for nothing.
            let loaded;
            let (pixels, decode) = match &frame.stage.pixels {
                Some(pixels) => (Ok(pixels), frame.stage.stats.timings.decode),
                None => {
                    loaded = match frame.origin.file() {
                        Some(file) => self.reloader.load(file),
                        None => Err(Error::Gone),
                    };
                    (loaded.as_ref(), started.elapsed())
                }
            };
            let mut answer =
                |pixels| caught("the local network failed", || self.local.answer(pixels)).flatten();
            let outcome = match pixels.map(&mut answer) {
                Ok(Ok(answer)) => Outcome::Local {
                    classes: answer.classes(),
                    timings: Timings { decode, ..answer.timings },
                    answered_at: Instant::now(),
                    fallback: Some(reason),
                },
                Ok(Err(error)) => failed(&reason, &error),
                Err(error) => failed(&reason, error),
            };
            // The receiver outlives every sender unless it has failed, which the run reports.
            if self.finished.send(frame.finish(outcome)).is_err() {
                return;
            }
        }
    }
}

fn failed(reason: &str, error: &Error) -> Outcome {
    Outcome::Failed(format!("{reason}; on this device: {}", Chain(error)))
}
