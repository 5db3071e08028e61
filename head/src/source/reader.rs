//! Reading of files in a thread of its own, so that one that never answers holds nobody up.
#![expect(
    clippy::disallowed_methods,
    reason = "captures are timestamped, and files are waited for within a given time"
)]

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use narrows_video::Parser;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};
use tokio::sync::oneshot;

use crate::{image::FILE_MAX, name::Escaped};

/// How much longer than the thread itself its answer is waited for: a thread that is not back by then is stuck in the
/// operating system, for example on a network file system whose server is gone.
const STUCK: Duration = Duration::from_millis(100);

/// Most threads that are left behind. Behind the last one files wait, so a device whose network file system is gone for days
/// does not run out of threads.
const MOST_STUCK: usize = 8;

/// Pictures in a FIFO from which on it is a stream. A JPEG of a phone may have another one behind it.
const STREAM: u64 = 3;

/// Reads whole files. A thread that is stuck is left behind, and the next file gets a new one, up to [`MOST_STUCK`].
#[derive(Debug)]
pub(super) struct Reader {
    jobs: Option<Sender<Job>>,
    /// Held by every thread while it lives.
    threads: Arc<()>,
    /// Time for each file.
    budget: Duration,
    /// The answer of a thread that still waits for the first byte of a file, with what says that it is wanted.
    waiting: Option<(oneshot::Receiver<Reading>, Arc<()>)>,
}

/// How long to wait for the first byte of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as for the whole file.
    Budget,
    /// Without end: somebody will write when there is something.
    Endless,
}

/// What came of reading a file.
#[derive(Debug)]
pub(super) struct Reading {
    /// When its first bytes were there.
    pub(super) captured_at: Instant,
    /// The same moment on this device's calendar.
    pub(super) captured_on: SystemTime,
    /// Its bytes, at most one more than [`FILE_MAX`].
    pub(super) bytes: io::Result<Vec<u8>>,
    /// The size that the file system gives, or what was read if that is more.
    pub(super) size: u64,
    /// Whether reading it again gives the same bytes.
    pub(super) is_regular: bool,
}

struct Job {
    path: PathBuf,
    patience: Patience,
    budget: Duration,
    /// Dropped by who waits for the answer.
    wanted: Weak<()>,
    answer: Box<dyn FnOnce(Reading) + Send>,
}

impl Reader {
    /// A reader that gives each file so much time.
    pub(super) fn new(budget: Duration) -> Self {
        Reader { jobs: None, threads: Arc::default(), budget, waiting: None }
    }

    /// Reads a file. Where this is dropped while it waits without end, the next call, which must be for the same file, goes on
    /// with that wait, so that nothing that was written is lost.
    pub(super) async fn read(&mut self, path: &Path, patience: Patience) -> Reading {
        let begin = Instant::now();
        let mut waiting = match self.waiting.take() {
            Some(waiting) => waiting,
            None => {
                let (answer, reading) = oneshot::channel();
                // Nobody waits any more where the file took too long.
                match self.begin(path, patience, |reading| drop(answer.send(reading))) {
                    Ok(wanted) => (reading, wanted),
                    Err(error) => return failed(begin, error),
                }
            }
        };
        let reading = match patience {
            Patience::Endless => {
                let waiting = self.waiting.insert(waiting);
                let reading = (&mut waiting.0).await.ok();
                self.waiting = None;
                reading
            }
            Patience::Budget => match tokio::time::timeout(self.budget + STUCK, &mut waiting.0).await {
                Ok(reading) => reading.ok(),
                Err(_) => {
                    self.leave_behind();
                    return failed(begin, too_slow(self.budget));
                }
            },
        };
        reading.unwrap_or_else(|| self.thread_failed(begin))
    }

    /// Reads a file as [`Reader::read`] does, and blocks meanwhile.
    pub(super) fn read_blocking(&mut self, path: &Path) -> Reading {
        let begin = Instant::now();
        let (answer, reading) = mpsc::channel();
        let _wanted = match self.begin(path, Patience::Budget, move |reading| drop(answer.send(reading))) {
            Ok(wanted) => wanted,
            Err(error) => return failed(begin, error),
        };
        match reading.recv_timeout(self.budget + STUCK) {
            Ok(reading) => reading,
            Err(RecvTimeoutError::Disconnected) => self.thread_failed(begin),
            Err(RecvTimeoutError::Timeout) => {
                self.leave_behind();
                failed(begin, too_slow(self.budget))
            }
        }
    }

    fn thread_failed(&mut self, begin: Instant) -> Reading {
        self.jobs = None;
        failed(begin, io::Error::other("the thread that reads files failed"))
    }

    /// Lets the next file have a new thread, unless too many are stuck.
    fn leave_behind(&mut self) {
        if Arc::strong_count(&self.threads) - 1 < MOST_STUCK {
            self.jobs = None;
        }
    }

    /// Has a thread read a file. It does not begin once what this returns is dropped.
    fn begin(
        &mut self,
        path: &Path,
        patience: Patience,
        answer: impl FnOnce(Reading) + Send + 'static,
    ) -> io::Result<Arc<()>> {
        let wanted = Arc::new(());
        let job = Job {
            path: path.to_owned(),
            patience,
            budget: self.budget,
            wanted: Arc::downgrade(&wanted),
            answer: Box::new(answer),
        };
        let unsent = match &self.jobs {
            Some(jobs) => jobs.send(job).err().map(|unsent| unsent.0),
            None => Some(job),
        };
        if let Some(job) = unsent {
            let (jobs, received) = mpsc::channel::<Job>();
            let lives = Arc::clone(&self.threads);
            let work = move || {
                let _lives = lives;
                for Job { path, patience, budget, answer, .. } in
                    received.into_iter().filter(|job| job.wanted.strong_count() > 0)
                {
                    answer(read_file(&path, patience, budget));
                }
            };
            let thread = thread::Builder::new().name("reader".to_owned()).spawn(work);
            thread.map_err(|error| no_thread(&error))?;
            // The thread has just been started and waits for it.
            let _ = jobs.send(job);
            self.jobs = Some(jobs);
        }
        Ok(wanted)
    }
}

fn failed(begin: Instant, error: io::Error) -> Reading {
    let captured_on = SystemTime::now();
    Reading { captured_at: begin, captured_on, bytes: Err(error), size: 0, is_regular: true }
}

/// Reads a file of any type. Those that can make their reader wait, such as FIFOs and terminals, are waited for.
pub(super) fn read_file(path: &Path, patience: Patience, budget: Duration) -> Reading {
    let (captured_at, captured_on) = (Instant::now(), SystemTime::now());
    let mut reading = Reading { captured_at, captured_on, bytes: Ok(Vec::new()), size: 0, is_regular: true };
    let mut bytes = Vec::new();
    let read = read_into(path, patience, budget, &mut bytes, &mut reading);
    reading.size = reading.size.max(bytes.len() as u64);
    reading.bytes = read.map(|()| bytes);
    reading
}

fn read_into(
    path: &Path,
    patience: Patience,
    budget: Duration,
    bytes: &mut Vec<u8>,
    reading: &mut Reading,
) -> io::Result<()> {
    // Without blocking, opening a FIFO does not wait for its writer. Regular files are read as ever.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let meta = file.metadata()?;
    (reading.is_regular, reading.size) = (meta.is_file(), meta.len());
    if meta.is_file() || meta.is_dir() {
        file.take(FILE_MAX + 1).read_to_end(bytes)?;
        return Ok(());
    }
    let mut deadline = (patience == Patience::Budget).then(|| reading.captured_at + budget);
    let mut part = vec![0; 1 << 16];
    let (mut stream, mut pictures) = (Parser::new(None, FILE_MAX as usize), 0);
    loop {
        wait(&file, deadline, budget)?;
        if bytes.is_empty() {
            (reading.captured_at, reading.captured_on) = (Instant::now(), SystemTime::now());
            deadline = reading.captured_at.checked_add(budget);
        }
        match (&file).read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                bytes.extend(&part[..read]);
                let mut count = 0;
                // What is no stream is a file, and told apart when it is decoded.
                let _ = stream.push(&part[..read], &mut |_| count += 1);
                pictures += count;
                if pictures >= STREAM {
                    let reason = format!("it carries a stream of pictures: give pipe:{}", Escaped(path));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        if bytes.len() as u64 > FILE_MAX {
            return Ok(());
        }
    }
}

/// Waits until a file can be read or its writer is gone.
fn wait(file: &File, deadline: Option<Instant>, budget: Duration) -> io::Result<()> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // A time that cannot be expressed is longer than anybody waits.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(file, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return Err(too_slow(budget)),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn no_thread(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("no thread to read it: {error}"))
}

fn too_slow(budget: Duration) -> io::Error {
    let reason = format!("reading it takes longer than the budget of {} ms", budget.as_millis());
    io::Error::new(io::ErrorKind::TimedOut, reason)
}
