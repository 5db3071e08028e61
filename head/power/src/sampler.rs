//! A [`Recorder`] on a thread of its own, with the system's monotonic clock.
#![expect(clippy::disallowed_methods, reason = "the clock of a measurement starts and is read here")]

use std::{
    fs,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Recorder, Recording, Source};

/// Sleep of the thread when it has no sources.
const IDLE: Duration = Duration::from_secs(1);

/// Reads sources on a thread in the background.
#[derive(Debug)]
pub struct Sampler {
    requests: Sender<Sender<Duration>>,
    thread: thread::JoinHandle<Recording>,
    began: Instant,
}

impl Sampler {
    /// Starts the thread. Without sources it keeps the time alone, so that callers need no special case.
    ///
    /// # Errors
    /// [`Error::Thread`] if no thread can be started.
    pub fn start(sources: Vec<Box<dyn Source>>) -> Result<Self, Error> {
        let (requests, received) = channel();
        let began = Instant::now();
        let thread = thread::Builder::new().name("power".to_owned());
        let thread = thread.spawn(move || sample(sources, &received, began));
        let thread = thread.map_err(Error::Thread)?;
        Ok(Sampler { requests, thread, began })
    }

    /// Reads every source now and returns the time after that, which is the edge of a window.
    ///
    /// # Errors
    /// [`Error::Device`] if the thread has ended.
    pub fn mark(&self) -> Result<Duration, Error> {
        let gone = || Error::Device("the thread that reads the sensors has ended".to_owned());
        let (reply, time) = channel();
        self.requests.send(reply).map_err(|_| gone())?;
        time.recv().map_err(|_| gone())
    }

    /// Converts a moment to the clock of the sampler.
    #[must_use]
    pub fn time_of(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.began)
    }

    /// Reads every source a last time, ends the thread and returns the recording.
    ///
    /// # Errors
    /// [`Error::Device`] if the thread failed.
    pub fn stop(self) -> Result<Recording, Error> {
        drop(self.requests);
        self.thread.join().map_err(|_| Error::Device("the thread that reads the sensors failed".to_owned()))
    }
}

fn sample(sources: Vec<Box<dyn Source>>, requests: &Receiver<Sender<Duration>>, began: Instant) -> Recording {
    let before = cpu();
    let mut clock = || began.elapsed();
    let mut recorder = Recorder::new(sources, clock());
    loop {
        let due = recorder.poll(&mut clock);
        let pause = due.map_or(IDLE, |due| due.saturating_sub(clock()));
        match requests.recv_timeout(pause) {
            Ok(reply) => drop(reply.send(recorder.mark(&mut clock))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    recorder.mark(&mut clock);
    let cpu = cpu().zip(before).map(|(now, before)| now - before);
    recorder.finish(cpu, clock().as_secs_f64())
}

/// Processor seconds of the calling thread, from the scheduler's statistics.
fn cpu() -> Option<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Plan, Window, total};

    #[test]
    fn without_sources_it_keeps_time_and_says_why_joules_are_unknown() {
        let sampler = Sampler::start(Vec::new()).unwrap();
        let (start, end) = (sampler.mark().unwrap(), sampler.mark().unwrap());
        assert!(end >= start);
        let recording = sampler.stop().unwrap();
        let measured = recording.over(&Plan::of(Window::new(start, end)));
        assert!(total(&measured).unwrap_err().contains("no power sensor"));
        assert_eq!(recording.cost.reads, 0);
    }
}
