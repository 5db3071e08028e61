//! The event loop of one thread, for everything that waits.

use tokio::runtime::{Builder, Runtime};

use crate::Error;

/// An event loop that runs on the thread which waits for it.
///
/// # Errors
/// [`Error::Device`] where the operating system gives no means to wait.
pub(crate) fn event_loop() -> Result<Runtime, Error> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| Error::Device { problem: "no event loop", source })
}
