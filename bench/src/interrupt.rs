//! Ctrl-C and SIGTERM: remembered, and passed on to the head that runs meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::pair;

/// Exit code after Ctrl-C: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Whether the run was asked to end.
#[derive(Debug, Default)]
pub struct Interrupt {
    seen: Arc<AtomicBool>,
    head: Arc<AtomicU32>,
}

impl Interrupt {
    /// Watches the process's signals.
    ///
    /// # Errors
    /// When they are watched already.
    pub fn watch() -> Result<Self> {
        let interrupt = Interrupt::default();
        let (seen, head) = (Arc::clone(&interrupt.seen), Arc::clone(&interrupt.head));
        ctrlc::set_handler(move || {
            seen.store(true, Ordering::SeqCst);
            // Nobody to tell, or it has ended: then its output has ended too.
            let _ = pair::terminate(head.load(Ordering::SeqCst));
        })
        .context("Ctrl-C cannot be watched")?;
        Ok(interrupt)
    }

    /// The process that is asked to end too; 0 is none.
    pub fn passes_to(&self, head: u32) {
        self.head.store(head, Ordering::SeqCst);
        if self.seen() {
            let _ = pair::terminate(head);
        }
    }

    /// Whether it has come.
    pub fn seen(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }
}
