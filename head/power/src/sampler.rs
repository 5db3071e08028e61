//! The recorder on a thread of its own, on the system's monotonic clock.
#![expect(clippy::disallowed_methods, reason = "the clock of a measurement starts and is read here")]

use std::{
    fs,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Recorder, Recording, Source};

/// How long the thread sleeps when it has no sources.
const IDLE: Duration = Duration::from_secs(1);

/// Sources being read in the background.
#[derive(Debug)]
pub struct Sampler {
    orders: Sender<Sender<Duration>>,
    thread: thread::JoinHandle<Recording>,
    began: Instant,
}

impl Sampler {
    /// Starts reading. Without sources it keeps time only, so that callers need not care.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no thread to be had.
    pub fn start(sources: Vec<Box<dyn Source>>) -> Result<Self, Error> {
        let (orders, received) = channel();
        let began = Instant::now();
        let thread = thread::Builder::new().name("power".to_owned());
        let thread = thread.spawn(move || sample(sources, &received, began));
        let thread = thread.map_err(|error| Error::Device(format!("no thread: {error}")))?;
        Ok(Sampler { orders, thread, began })
    }

    /// Reads every source now; the time of that is an edge of windows.
    ///
    /// # Errors
    /// [`Error::Device`] if the sampling thread is gone.
    pub fn mark(&self) -> Result<Duration, Error> {
        let gone = || Error::Device("the thread that reads the sensors is gone".to_owned());
        let (reply, time) = channel();
        self.orders.send(reply).map_err(|_| gone())?;
        time.recv().map_err(|_| gone())
    }

    /// A moment of [`Instant`] on the sampler's clock.
    pub fn time_of(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.began)
    }

    /// Reads every source a last time and hands over what was recorded.
    ///
    /// # Errors
    /// [`Error::Device`] if the sampling thread failed.
    pub fn stop(self) -> Result<Recording, Error> {
        drop(self.orders);
        self.thread.join().map_err(|_| Error::Device("the thread that reads the sensors failed".to_owned()))
    }
}

fn sample(sources: Vec<Box<dyn Source>>, orders: &Receiver<Sender<Duration>>, began: Instant) -> Recording {
    let before = cpu();
    let mut clock = || began.elapsed();
    let mut recorder = Recorder::new(sources, clock());
    loop {
        let due = recorder.poll(&mut clock);
        let pause = due.map_or(IDLE, |due| due.saturating_sub(clock()));
        match orders.recv_timeout(pause) {
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
