//! Ctrl-C and SIGTERM: remembered, and passed on to a child process.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::{Context, Result};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

use crate::program::terminate;

/// Exit code after an interrupt: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Whether the user wants to stop.
#[derive(Clone, Debug)]
pub struct Interrupt {
    seen: Arc<AtomicBool>,
    child: Arc<AtomicU32>,
}

impl Interrupt {
    /// Watches SIGINT and SIGTERM from now on, on a thread of its own that lives as long as the process.
    ///
    /// # Errors
    /// The signals cannot be watched, or no thread can be started.
    pub fn watch() -> Result<Self> {
        let interrupt = Interrupt::never();
        let watched = interrupt.clone();
        let (ready, started) = mpsc::channel();
        let watch = move || {
            let runtime = match runtime::Builder::new_current_thread().enable_io().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                let signals = signal(SignalKind::interrupt())
                    .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
                let (mut interrupt, mut terminate) = match signals {
                    Ok(signals) => signals,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                // The receiver waits for this one message.
                let _ = ready.send(Ok(()));
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => watched.note(),
                        _ = terminate.recv() => watched.note(),
                    }
                }
            });
        };
        thread::Builder::new().name("signals".to_owned()).spawn(watch).context("no thread for signals")?;
        started.recv().context("the thread for signals ended")?.context("signals cannot be watched")?;
        Ok(interrupt)
    }

    /// An interrupt that no signal reaches.
    #[must_use]
    pub fn never() -> Self {
        Interrupt { seen: Arc::default(), child: Arc::default() }
    }

    /// Passes the interrupt on to the process `child` from now on, also one that has already come.
    pub fn passes_to(&self, child: u32) {
        self.child.store(child, Ordering::SeqCst);
        if self.seen() {
            let _ = terminate(child);
        }
    }

    /// True once the user wants to stop.
    #[must_use]
    pub fn seen(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }

    /// Prints a command's error and gives its exit code: success, failure, or that it was interrupted.
    #[must_use]
    pub fn exit(&self, command: &str, result: Result<()>) -> ExitCode {
        match result {
            _ if self.seen() => {
                eprintln!("narrows-bench {command}: interrupted; what was measured is marked incomplete");
                ExitCode::from(INTERRUPTED)
            }
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("narrows-bench {command}: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn note(&self) {
        self.seen.store(true, Ordering::SeqCst);
        // Without a child, or with one that has ended, there is nobody to tell.
        let _ = terminate(self.child.load(Ordering::SeqCst));
    }
}
