//! The files that the runtime of a connection needs.

use std::{io, os::unix::net::UnixStream};

/// Checks that a tokio runtime can open its files. tokio opens three for events and then a pair of sockets for signals, and
/// panics where it cannot open that pair, so programs check before they build a runtime.
///
/// # Errors
/// The operating system does not allow six more open files.
pub fn check_files() -> io::Result<()> {
    let _all = [UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?];
    Ok(())
}
