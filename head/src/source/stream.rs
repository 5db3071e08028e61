//! Reading a stream of pictures as fast as it comes, with a watch on the time.
#![expect(clippy::disallowed_methods, reason = "frames are timestamped when they arrive, and stalls noticed")]

use std::{
    fs::File,
    io::{self, PipeReader, Read},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    process::ChildStdout,
    time::{Duration, Instant, SystemTime},
};

use narrows_video::{Parser, Picture, RawFormat, StreamFault};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

use super::child::Running;
use crate::image::FILE_MAX;

/// Bytes that are read at once.
const PART: usize = 1 << 18;

/// An open stream.
#[derive(Debug)]
pub(super) enum Stream {
    Stdin(File),
    Pipe(File),
    Program(Running),
}

/// Why a stream was read no further.
#[derive(Debug)]
pub(super) enum Pause {
    /// The run ends.
    Stopped,
    /// The stream ended.
    Ended,
    /// No frame came for so long.
    Stalled(Duration),
    /// The stream is of no use.
    Fault(StreamFault),
    Read(io::Error),
}

/// What a stream has had since it was opened.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) parser: Parser,
    /// When the last frame arrived, or the stream was opened.
    pub(super) last: Instant,
    /// Whether a frame has arrived.
    pub(super) has_frames: bool,
}

impl Stream {
    /// Standard input, which stays open for others.
    ///
    /// # Errors
    /// That of the operating system.
    pub(super) fn stdin() -> io::Result<Self> {
        Ok(Stream::Stdin(File::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// A FIFO, without waiting for its writer, or a device.
    ///
    /// # Errors
    /// That of the operating system.
    pub(super) fn pipe(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(Stream::Pipe(File::options().read(true).custom_flags(flags.bits() as i32).open(path)?))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Stdin(file) | Stream::Pipe(file) => file.as_fd(),
            Stream::Program(program) => program.output.as_fd(),
        }
    }

    fn read(&mut self, part: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Stdin(file) | Stream::Pipe(file) => file.read(part),
            Stream::Program(Running { output, .. }) => ChildStdout::read(output, part),
        }
    }

    fn messages(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Stream::Program(program) => program.messages.as_ref().map(AsFd::as_fd),
            _ => None,
        }
    }
}

impl Session {
    /// A session that begins now.
    pub(super) fn new(raw: Option<RawFormat>) -> Self {
        let parser = Parser::new(raw, usize::try_from(FILE_MAX).unwrap_or(usize::MAX));
        Session { parser, last: Instant::now(), has_frames: false }
    }

    /// Reads `stream` and delivers frames, until it ends, `stop` is closed, or no frame has come for `patience`; the first one
    /// is waited for four times as long.
    pub(super) fn read(
        &mut self,
        stream: &mut Stream,
        stop: &PipeReader,
        patience: Duration,
        deliver: &mut dyn FnMut(Picture, Instant, SystemTime),
    ) -> Pause {
        let mut part = vec![0; PART];
        loop {
            let patience = if self.has_frames { patience } else { 4 * patience };
            let left = patience.saturating_sub(self.last.elapsed());
            let ready = match wait(stream, stop, left) {
                Ok(ready) => ready,
                Err(error) => return Pause::Read(error),
            };
            if ready.stopped {
                return Pause::Stopped;
            }
            if ready.messages
                && let Stream::Program(program) = stream
            {
                program.hear();
            }
            if ready.frames {
                match stream.read(&mut part) {
                    Ok(0) => return Pause::Ended,
                    Ok(read) => {
                        let (at, on) = (Instant::now(), SystemTime::now());
                        let mut came = false;
                        let pushed = self.parser.push(&part[..read], &mut |picture| {
                            came = true;
                            deliver(picture, at, on);
                        });
                        if came {
                            // Delivering may have waited for a place.
                            (self.last, self.has_frames) = (Instant::now(), true);
                        }
                        if let Err(fault) = pushed {
                            return Pause::Fault(fault);
                        }
                    }
                    Err(error)
                        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    }
                    Err(error) => return Pause::Read(error),
                }
            }
            if self.last.elapsed() >= patience {
                return Pause::Stalled(self.last.elapsed());
            }
        }
    }
}

/// What is ready.
struct Ready {
    stopped: bool,
    frames: bool,
    messages: bool,
}

fn wait(stream: &Stream, stop: &PipeReader, time: Duration) -> io::Result<Ready> {
    let mut sources = vec![PollFd::new(stop, PollFlags::IN)];
    sources.push(PollFd::from_borrowed_fd(stream.fd(), PollFlags::IN));
    sources.extend(stream.messages().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    // A time that cannot be expressed is longer than anybody waits.
    let time = Timespec::try_from(time).ok();
    match poll(&mut sources, time.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Ready { stopped: false, frames: false, messages: false }),
        Err(error) => return Err(error.into()),
    }
    let is_ready = |place: usize| sources.get(place).is_some_and(|source| !source.revents().is_empty());
    Ok(Ready { stopped: is_ready(0), frames: is_ready(1), messages: is_ready(2) })
}

/// Waits for so long, or until `stop` is closed; returns whether it is.
pub(super) fn is_stopped_within(stop: &PipeReader, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).ok();
        match poll(&mut [PollFd::new(stop, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => {}
            // Where it cannot be waited for, the camera is given up.
            _ => return true,
        }
    }
}
