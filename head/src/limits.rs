//! What a process must be allowed by the operating system, checked before it is needed: where a limit is met later, some
//! libraries panic and the allocator ends the process.

use std::{fs::File, io, sync::RwLock, thread};

use crate::Error;

/// File descriptors of a run beside the standard streams: two event loops, signals, sockets, files.
const DESCRIPTORS: usize = 24;
/// Bytes that a run with the shipped bundle allocates, with room for a picture of some megapixels.
const MEMORY: usize = 160 << 20;
/// Threads of a run beside the first one: the run, its producer, its sink, its fallback, a reader for each of producer and
/// fallback, and a resolver of names.
const THREADS: usize = 7;

/// Checks that a run can open as many descriptors, allocate as much memory and start as many threads as it needs.
///
/// # Errors
/// [`Error::Device`] with the limit.
pub(crate) fn check() -> Result<(), Error> {
    descriptors()?;
    memory()?;
    threads()
}

/// Checks that a run can open as many descriptors as it needs.
///
/// # Errors
/// [`Error::Device`] with the limit.
pub(crate) fn descriptors() -> Result<(), Error> {
    let open = || (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<File>>>();
    let problem = "a run needs 24 file descriptors beside the standard streams; raise the limit (ulimit -n)";
    open().map(drop).map_err(|source| Error::Device { problem, source })
}

fn memory() -> Result<(), Error> {
    let problem = "a run needs 160 MiB of memory; raise the limit of the address space (ulimit -v)";
    let reserved = Vec::<u8>::new().try_reserve_exact(MEMORY);
    reserved.map_err(|error| Error::Device { problem, source: io::Error::other(error) })
}

fn threads() -> Result<(), Error> {
    let problem = "a run needs seven threads beside the first one; raise the limit of processes (ulimit -u)";
    // The threads wait behind the gate, so that all of them exist at once.
    let gate = RwLock::new(());
    let closed = gate.write();
    thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, || drop(gate.read())).map(drop);
        let started: io::Result<()> = (0..THREADS).try_for_each(start);
        drop(closed);
        started.map_err(|source| Error::Device { problem, source })
    })
}
