//! Standard output that takes every byte, also where somebody has made it non-blocking.

use std::io::{self, Stdout, Write};

use rustix::event::{PollFd, PollFlags, poll};

/// Standard output. Processes that share it, such as a terminal's, may have set it not to block; it is waited for then.
#[derive(Debug)]
pub(crate) struct Out(Stdout);

impl Out {
    /// The standard output of this process.
    pub(crate) fn new() -> Self {
        Out(io::stdout())
    }

    fn retry<T>(&mut self, mut attempt: impl FnMut(&mut Stdout) -> io::Result<T>) -> io::Result<T> {
        loop {
            match attempt(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                done => return done,
            }
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(|out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.retry(Stdout::flush)
    }
}
