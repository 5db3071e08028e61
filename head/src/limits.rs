//! What a process must be allowed by the operating system, checked before it is needed: where a limit is met later, some
//! libraries panic and the allocator ends the process.

use std::{fs::File, io};

use crate::Error;

/// File descriptors of a run beside the standard streams: two event loops, signals, sockets, files.
const DESCRIPTORS: usize = 24;
/// Bytes that a run with the shipped bundle allocates, with room for a picture of some megapixels.
const MEMORY: usize = 160 << 20;

/// Checks that a run can open as many descriptors and allocate as much memory as it needs.
///
/// # Errors
/// [`Error::Device`] with the limit.
pub(crate) fn check() -> Result<(), Error> {
    let open = || (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<File>>>();
    open().map_err(|source| Error::Device {
        problem: "a run needs 24 file descriptors beside the standard streams; raise the limit (ulimit -n)",
        source,
    })?;
    let mut memory = Vec::<u8>::new();
    memory.try_reserve_exact(MEMORY).map_err(|error| Error::Device {
        problem: "a run needs 160 MiB of memory; raise the limit of the address space (ulimit -v)",
        source: io::Error::other(error),
    })
}
