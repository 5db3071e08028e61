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
pub(crate) struct Shutdown {
    own: watch::Sender<Phase>,
    /// The run that this is a part of.
    outer: Option<watch::Sender<Phase>>,
}

/// Lets a thread wait for something asynchronous, but not longer than frames are wanted.
#[derive(Debug, Clone)]
pub(crate) struct StopSignal {
    shutdown: Shutdown,
    runtime: Handle,
}

impl Shutdown {
    /// A run that nobody has asked to end.
    pub(crate) fn new() -> Self {
        Shutdown { own: watch::Sender::new(Phase::Running), outer: None }
    }

    /// A part of the run, which may be asked to end before the run is; it ends with the run.
    pub(crate) fn part(&self) -> Self {
        Shutdown { own: watch::Sender::new(Phase::Running), outer: Some(self.own.clone()) }
    }

    /// Whether the run has been asked to end.
    pub(crate) fn is_draining(&self) -> bool {
        let reached = |phase: &watch::Sender<Phase>| *phase.borrow() >= Phase::Draining;
        reached(&self.own) || self.outer.as_ref().is_some_and(reached)
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
        self.own.send_if_modified(|current| {
            let advances = *current < phase;
            *current = phase.max(*current);
            advances
        });
    }

    async fn reached(&self, phase: Phase) {
        // An error would mean that every sender is gone, and `self` holds one.
        let reaches = async |sender: &watch::Sender<Phase>| {
            let _ = sender.subscribe().wait_for(|current| *current >= phase).await;
        };
        match &self.outer {
            None => reaches(&self.own).await,
            Some(outer) => tokio::select! {
                () = reaches(&self.own) => {}
                () = reaches(outer) => {}
            },
        }
    }
}

impl StopSignal {
    /// The signal of the whole run, where this is that of a part.
    pub(crate) fn of_run(&self) -> Self {
        let own = self.shutdown.outer.clone().unwrap_or_else(|| self.shutdown.own.clone());
        StopSignal { shutdown: Shutdown { own, outer: None }, runtime: self.runtime.clone() }
    }

    /// The signal of a part of this run, and what asks the part to end before the run does.
    pub(crate) fn part(&self) -> (Shutdown, Self) {
        let part = self.shutdown.part();
        (part.clone(), StopSignal { shutdown: part, runtime: self.runtime.clone() })
    }

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

    #[tokio::test]
    async fn a_part_ends_with_the_run_and_not_the_run_with_a_part() {
        let run = Shutdown::new();
        let (first, second) = (run.part(), run.part());
        first.drain();
        first.draining().await;
        assert!(first.is_draining() && !run.is_draining() && !second.is_draining());
        run.stop();
        second.stopped().await;
        assert!(second.is_draining());
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
