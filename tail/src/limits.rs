//! The threads and open files that the server needs, tried before anything depends on them: the asynchronous runtime ends in
//! a panic where the first ones are missing and waits for ever for later ones, and ONNX Runtime blames the network.

use std::{
    fs::File,
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

/// Too few threads or open files.
#[derive(Debug, thiserror::Error)]
#[error("this server needs {needed} more {what}, the operating system grants {granted}; raise {raise}")]
pub struct Shortage {
    /// What is limited.
    what: &'static str,
    /// How many are needed.
    needed: usize,
    /// How many are granted.
    granted: usize,
    /// The limits that may stand in the way.
    raise: &'static str,
    /// The error of the operating system.
    source: io::Error,
}

/// Open files that a server without bundles needs, with a few to spare: sockets, queues of the kernel, signals, a file that is
/// being read.
const FILES: usize = 32;

/// Checks that this process may have [`FILES`] more open files.
///
/// # Errors
/// The [`Shortage`], with the limits that may stand in the way.
pub(crate) fn check_files() -> Result<(), Shortage> {
    let mut files = Vec::with_capacity(FILES);
    for count in 0..FILES {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(source) => {
                let (what, raise) = ("open files", "ulimit -n, or LimitNOFILE= of the service");
                return Err(Shortage { what, needed: FILES, granted: count, raise, source });
            }
        }
    }
    Ok(())
}

/// Checks that this process may start `count` more threads: starts them all at once and ends them again.
///
/// # Errors
/// The [`Shortage`], with the limits that may stand in the way.
pub(crate) fn check_threads(count: usize) -> Result<(), Shortage> {
    let ended = Arc::new((Mutex::new(false), Condvar::new()));
    let start = || {
        let ended = Arc::clone(&ended);
        thread::Builder::new().name("probe".into()).spawn(move || {
            let lock = ended.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(ended.1.wait_while(lock, |ended| !*ended));
        })
    };
    let started: Vec<io::Result<_>> = (0..count).map(|_| start()).collect();
    *ended.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    ended.1.notify_all();
    let granted = started.iter().filter(|thread| thread.is_ok()).count();
    let mut refused = None;
    for thread in started {
        match thread {
            // It cannot panic.
            Ok(thread) => drop(thread.join()),
            Err(source) => refused = Some(source),
        }
    }
    match refused {
        None => Ok(()),
        Some(source) => {
            let (what, raise) = ("threads", "ulimit -u, ulimit -v, or TasksMax= of the service");
            Err(Shortage { what, needed: count, granted, raise, source })
        }
    }
}
