//! Answers from this device while the server is away.
#![expect(clippy::disallowed_methods, reason = "every stage is timed here")]

use std::{
    pin::pin,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
    time::{Duration, Instant},
};

use super::{
    connect::{ConnectError, Connector, Session},
    queue::FrameQueue,
};
use crate::{
    Error,
    error::Chain,
    frame::{Encoded, Finished, Frame, Outcome, Timings},
    shutdown::Shutdown,
    source::load,
    stage::Local,
};

/// Pause between attempts to reach the server during the fallback, and the longest duration of each.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// A frame for the fallback, and why no server answers it.
pub(crate) type FallbackFrame = (Frame<Encoded>, Arc<str>);

/// Answers frames with the bundle's local network. It runs in a thread of its own, so that the uplink can go on
/// looking for the server.
#[derive(Debug)]
pub(crate) struct LocalAnswers {
    pub(crate) local: Local,
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
                    loaded = load(&frame.file);
                    (loaded.as_ref(), started.elapsed())
                }
            };
            let outcome = match pixels.map(|pixels| self.local.answer(pixels)) {
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

/// Has frames answered on this device until the server is back. Returns the new session, or `None` when no frame is left
/// or the run was stopped.
///
/// # Errors
/// `error` if it does not say that the server is away or if there is no local network, and any error that ends all hope for
/// the server. The remaining frames have failed then.
pub(super) async fn serve_locally(
    queue: &mut FrameQueue,
    connector: &Connector,
    fallback: Option<&SyncSender<FallbackFrame>>,
    shutdown: &Shutdown,
    error: Error,
) -> Result<Option<Session>, Error> {
    let (Some(fallback), Error::Unreachable { .. }) = (fallback, &error) else {
        queue.fail_remaining(&format!("no answer: {}", Chain(&error)));
        return Err(error);
    };
    let reason: Arc<str> = Chain(&error).to_string().into();
    tracing::warn!("{reason}; this device answers until the server is back");
    loop {
        let attempt = {
            let mut attempt = pin!(async {
                tokio::time::sleep(RETRY_PERIOD).await;
                connector.connect(RETRY_PERIOD).await
            });
            loop {
                while let Some(frame) = queue.pop_any() {
                    // The thread that answers outlives the uplink unless it has failed, which ends the run.
                    fallback.send((frame, Arc::clone(&reason))).ok();
                }
                tokio::select! {
                    () = shutdown.stopped() => break None,
                    frame = queue.receive() => match frame {
                        Some(frame) => queue.push(frame),
                        None => return Ok(None),
                    },
                    attempt = &mut attempt => break Some(attempt),
                }
            }
        };
        match attempt {
            None => {
                queue.fail_remaining("interrupted before the answer came");
                return Ok(None);
            }
            Some(Ok(session)) => {
                tracing::warn!("the server at {} is back", connector.server());
                return Ok(Some(session));
            }
            Some(Err(ConnectError::Permanent(error))) => {
                queue.fail_remaining(&format!("no answer: {}", Chain(&error)));
                return Err(error);
            }
            Some(Err(ConnectError::Transient(_))) => {}
        }
    }
}
