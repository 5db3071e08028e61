//! Asking a run to end, in two steps.

use std::future::Future;

use tokio::{runtime::Handle, sync::watch};

/// How far a run has been asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Draining,
    Stopped,
}

/// Asks a run to end and tells that it was asked to; clones belong to the same run.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(watch::Sender<Phase>);

/// Lets a thread wait for something asynchronous, but not longer than frames are wanted.
#[derive(Debug, Clone)]
pub(crate) struct StopSignal {
    shutdown: Shutdown,
    runtime: Handle,
}

impl Shutdown {
    /// A run that nobody has asked to end.
    pub(crate) fn new() -> Self {
        Shutdown(watch::Sender::new(Phase::Running))
    }

    /// Step one: no new frame is captured, frames in flight are still answered.
    pub(crate) fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Step two: frames in flight are given up as well.
    pub(crate) fn stop(&self) {
        self.advance(Phase::Stopped);
    }

    /// Waits for [`Shutdown::drain`] or [`Shutdown::stop`].
    pub(crate) async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits for [`Shutdown::stop`].
    pub(crate) async fn stopped(&self) {
        self.reached(Phase::Stopped).await;
    }

    /// For a thread that captures frames, which waits by the reactor of `runtime`.
    pub(crate) fn signal(&self, runtime: Handle) -> StopSignal {
        StopSignal { shutdown: self.clone(), runtime }
    }

    fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let advances = *current < phase;
            *current = phase.max(*current);
            advances
        });
    }

    async fn reached(&self, phase: Phase) {
        // An error would mean that every sender is gone, and `self` holds one.
        let _ = self.0.subscribe().wait_for(|current| *current >= phase).await;
    }
}

impl StopSignal {
    /// Blocks this thread until `future` is ready; `None` if the run begins to drain before that.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.shutdown.draining() => None,
                value = future => Some(value),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_later_step_includes_the_earlier_one_and_is_never_taken_back() {
        let shutdown = Shutdown::new();
        shutdown.stop();
        shutdown.drain();
        shutdown.draining().await;
        shutdown.stopped().await;
    }

    #[test]
    fn a_thread_stops_waiting_when_the_run_drains() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let shutdown = Shutdown::new();
        let signal = shutdown.signal(runtime.handle().clone());
        let waiting = std::thread::spawn(move || {
            let ready = signal.block_on(std::future::ready(7));
            (ready, signal.block_on(std::future::pending::<()>()))
        });
        shutdown.drain();
        let (ready, never) = waiting.join().unwrap();
        assert!(matches!(ready, Some(7) | None) && never.is_none());
    }
}
