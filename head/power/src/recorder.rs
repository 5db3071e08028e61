//! Reads sources when they are due and keeps what they gave. The clock is the caller's.

use std::time::Duration;

use serde::Serialize;

use crate::{Rail, Source, Trace};

/// Sources, when each is due, and their readings so far.
pub struct Recorder {
    feeds: Vec<Feed>,
    readings: Vec<f64>,
}

struct Feed {
    source: Box<dyn Source>,
    every: Duration,
    due: Duration,
    traces: Vec<Trace>,
    reads: u64,
    failures: u64,
    failure: Option<String>,
}

/// What the sources gave, on the clock of the recorder.
#[derive(Debug)]
pub struct Recording {
    rails: Vec<(Rail, Trace)>,
    /// What measuring cost.
    pub cost: Cost,
    /// Reads that failed, and what the last of them said.
    pub failures: Vec<String>,
}

/// What measuring cost.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Cost {
    /// Processor seconds of the thread that samples; `None` where the system does not tell.
    pub cpu_s: Option<f64>,
    /// Seconds spent waiting for helper programs, an upper bound of their processor time.
    pub helpers_s: f64,
    /// How long it sampled, in seconds.
    pub wall_s: f64,
    /// How often a source was read.
    pub reads: u64,
}

impl Cost {
    /// Share of one core that sampling took; `None` where the system does not tell.
    pub fn share(&self) -> Option<f64> {
        self.cpu_s.filter(|_| self.wall_s > 0.0).map(|cpu| (cpu + self.helpers_s) / self.wall_s)
    }
}

impl Recorder {
    /// Nothing read yet; every source is due at `now`.
    pub fn new(sources: Vec<Box<dyn Source>>, now: Duration) -> Self {
        let feed = |source: Box<dyn Source>| {
            let every = source.every();
            let traces = source.rails().iter().map(|rail| Trace::new(rail, every)).collect();
            Feed { source, every, due: now, traces, reads: 0, failures: 0, failure: None }
        };
        Recorder { feeds: sources.into_iter().map(feed).collect(), readings: Vec::new() }
    }

    /// Reads every source that is due and returns when the next one is; `None` without sources.
    pub fn poll(&mut self, clock: &mut dyn FnMut() -> Duration) -> Option<Duration> {
        for feed in &mut self.feeds {
            let now = clock();
            if feed.due <= now {
                feed.read(clock, &mut self.readings);
                // Keeps to its beat; beats that were slept through are left out.
                let late = (now - feed.due).as_nanos() / feed.every.as_nanos().max(1);
                feed.due += feed.every * (u32::try_from(late).unwrap_or(u32::MAX).saturating_add(1));
            }
        }
        self.feeds.iter().map(|feed| feed.due).min()
    }

    /// Reads every source, due or not, and returns the time when that was done: the edge of a window.
    pub fn mark(&mut self, clock: &mut dyn FnMut() -> Duration) -> Duration {
        for feed in &mut self.feeds {
            feed.read(clock, &mut self.readings);
        }
        clock()
    }

    /// Ends the recording. `cpu_s` and `wall_s` are what the caller measured of itself.
    pub fn finish(self, cpu_s: Option<f64>, wall_s: f64) -> Recording {
        let helpers: Duration = self.feeds.iter().map(|feed| feed.source.helpers()).sum();
        let reads = self.feeds.iter().map(|feed| feed.reads).sum();
        let cost = Cost { cpu_s, helpers_s: helpers.as_secs_f64(), wall_s, reads };
        let mut recording = Recording { rails: Vec::new(), cost, failures: Vec::new() };
        for feed in self.feeds {
            if let Some(failure) = feed.failure {
                recording
                    .failures
                    .push(format!("{} of {} reads failed: {failure}", feed.failures, feed.reads));
            }
            recording.rails.extend(feed.source.rails().iter().cloned().zip(feed.traces));
        }
        recording
    }
}

impl Feed {
    fn read(&mut self, clock: &mut dyn FnMut() -> Duration, readings: &mut Vec<f64>) {
        readings.clear();
        let before = clock();
        let read = self.source.read(readings);
        // The middle of the read; a source that takes long is not late by all of it.
        let at = before + (clock().saturating_sub(before)) / 2;
        self.reads += 1;
        match read {
            Ok(()) => {
                self.traces.iter_mut().zip(readings.iter()).for_each(|(trace, &value)| trace.push(at, value))
            }
            Err(error) => {
                self.failures += 1;
                self.failure = Some(error.to_string());
            }
        }
    }
}

impl Recording {
    /// The rails with their readings.
    pub fn rails(&self) -> impl Iterator<Item = (&Rail, &Trace)> {
        self.rails.iter().map(|(rail, trace)| (rail, trace))
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("sources", &self.feeds.len()).finish_non_exhaustive()
    }
}
