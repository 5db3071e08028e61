//! The signals by which a process is asked to end.

use std::{
    io,
    sync::{Arc, OnceLock},
    thread,
};

use rustix::process::Signal as Number;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::Error;

/// What asked a run to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// SIGINT, which a terminal sends on Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// The reader of standard output closed it.
    Unread,
}

/// SIGINT and SIGTERM, which no longer end the process by themselves once this exists.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Registers for both signals; needs the context of a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Device`] if the operating system refuses.
    pub(crate) fn watch() -> Result<Self, Error> {
        let watch = |kind| {
            signal(kind).map_err(|source| Error::Device { problem: "signals cannot be watched", source })
        };
        Ok(Signals { interrupt: watch(SignalKind::interrupt())?, terminate: watch(SignalKind::terminate())? })
    }

    /// Waits for SIGINT or SIGTERM on a thread of its own; the cell is set to the first of them.
    ///
    /// # Errors
    /// [`Error::Device`] if the operating system refuses.
    pub(crate) fn watch_aside() -> Result<Arc<OnceLock<Stop>>, Error> {
        let device = |source: io::Error| Error::Device { problem: "signals cannot be watched", source };
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(device)?;
        let mut signals = {
            let _inside = runtime.enter();
            Signals::watch()?
        };
        let stop = Arc::new(OnceLock::new());
        let cell = Arc::clone(&stop);
        let thread = thread::Builder::new().name("signals".to_owned());
        thread
            .spawn(move || {
                let which = runtime.block_on(signals.next());
                // Only this thread sets it.
                let _ = cell.set(which);
            })
            .map_err(device)?;
        Ok(stop)
    }

    /// Has a file that grows past the limit of file sizes (`ulimit -f`) reported as an error of the write instead of
    /// ending the process.
    ///
    /// # Errors
    /// [`Error::Device`] if the operating system refuses.
    pub(crate) fn survive_file_size_limit() -> Result<(), Error> {
        // The signal stays caught after this is dropped.
        signal(SignalKind::from_raw(Number::XFSZ.as_raw()))
            .map(drop)
            .map_err(|source| Error::Device { problem: "signals cannot be watched", source })
    }

    /// Waits for the next of them.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}
