//! The threads of a run.

use std::{sync::Arc, thread};

use tokio::sync::oneshot;

use crate::{Error, report::Totals, shutdown::Shutdown};

/// A thread that can be waited for without blocking, or left behind.
pub(super) struct Worker<T> {
    result: oneshot::Receiver<T>,
    task: &'static str,
}

/// Stops the run when a thread of it panics, since without that thread it could not end, and notes the error, since the run
/// may be left as it is before anybody has waited for the thread.
struct StopOnPanic {
    shutdown: Shutdown,
    totals: Arc<Totals>,
    task: &'static str,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread that does `work`, which a message calls `task`.
    ///
    /// # Errors
    /// [`Error::Device`] if no thread can be started.
    pub(super) fn spawn(
        name: &str,
        task: &'static str,
        shutdown: &Shutdown,
        totals: &Arc<Totals>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Self, Error> {
        let (sender, result) = oneshot::channel();
        let guard = StopOnPanic { shutdown: shutdown.clone(), totals: Arc::clone(totals), task };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _guard = guard;
            // Nobody waits any more where the run was left as it is.
            let _ = sender.send(work());
        });
        let problem = "no thread can be started; raise the limits of processes (ulimit -u) and of memory";
        thread.map_err(|source| Error::Device { problem, source })?;
        Ok(Worker { result, task })
    }

    /// Waits for the thread.
    ///
    /// # Errors
    /// [`Error::Thread`] if it panicked.
    pub(super) async fn join(self) -> Result<T, Error> {
        self.result.await.map_err(|_| Error::Thread { task: self.task })
    }
}

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.totals.note_error(Error::Thread { task: self.task });
            self.shutdown.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_panics_stops_the_run_and_is_named() {
        let (shutdown, totals) = (Shutdown::new(), Arc::new(Totals::default()));
        let worker = Worker::spawn("x", "counts", &shutdown, &totals, || panic!("on purpose")).unwrap();
        let error = Worker::<()>::join(worker).await.unwrap_err();
        assert!(matches!(error, Error::Thread { task: "counts" }), "{error}");
        shutdown.stopped().await;
        // Also where nobody waits for the thread any more.
        assert!(matches!(totals.take().2, Some(Error::Thread { task: "counts" })));
    }
}
