//! Ctrl-C and SIGTERM: remembered, and passed on to a child.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};

use crate::pair;

/// Exit code after Ctrl-C: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Whether the user wants to stop.
#[derive(Clone, Debug)]
pub struct Interrupt {
    seen: Arc<AtomicBool>,
    child: Arc<AtomicU32>,
}

impl Interrupt {
    /// Watches from now on; once per process.
    ///
    /// # Errors
    /// When the signals cannot be watched.
    pub fn watch() -> Result<Self> {
        let interrupt = Interrupt::never();
        let (seen, child) = (Arc::clone(&interrupt.seen), Arc::clone(&interrupt.child));
        ctrlc::set_handler(move || {
            seen.store(true, Ordering::SeqCst);
            // Nobody to tell, or it has ended: then its output has ended too.
            let _ = pair::terminate(child.load(Ordering::SeqCst));
        })
        .context("Ctrl-C cannot be watched")?;
        Ok(interrupt)
    }

    /// One that no signal reaches.
    pub fn never() -> Self {
        Interrupt { seen: Arc::default(), child: Arc::default() }
    }

    /// From now on the process `child` is told, too.
    pub fn passes_to(&self, child: u32) {
        self.child.store(child, Ordering::SeqCst);
        if self.seen() {
            let _ = pair::terminate(child);
        }
    }

    /// True once the user wants to stop.
    pub fn seen(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }

    /// Prints a command's error and gives its exit code: success, failure, or that it was interrupted.
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
}
