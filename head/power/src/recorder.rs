//! Reads sources when they are due and keeps their readings. The caller brings the clock.

use std::time::Duration;

use serde::Serialize;

use crate::{Rail, Source, Trace};

/// Sources, the time at which each is due, and their readings so far.
pub struct Recorder {
    channels: Vec<Channel>,
    readings: Vec<f64>,
}

/// A source with its schedule and its readings.
struct Channel {
    source: Box<dyn Source>,
    every: Duration,
    due: Duration,
    traces: Vec<Trace>,
    reads: u64,
    failures: u64,
    failure: Option<String>,
}

/// The readings of all sources, on the clock of the recorder.
#[derive(Debug)]
pub struct Recording {
    rails: Vec<(Rail, Trace)>,
    /// Cost of measuring.
    pub cost: Cost,
    /// One line per source with failed reads: how many, and the last error.
    pub failures: Vec<String>,
    /// Reasons to rely less on the readings.
    pub remarks: Vec<String>,
}

/// Cost of measuring.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Cost {
    /// Processor seconds of the sampling thread; `None` where the system does not report them.
    pub cpu_s: Option<f64>,
    /// Seconds spent waiting for helper programs, an upper bound of their processor time.
    pub helpers_s: f64,
    /// Duration of the sampling in seconds.
    pub wall_s: f64,
    /// Number of reads of all sources.
    pub reads: u64,
}

impl Cost {
    /// Share of one core that sampling took; `None` where the system does not report it.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        self.cpu_s.filter(|_| self.wall_s > 0.0).map(|cpu| (cpu + self.helpers_s) / self.wall_s)
    }
}

impl Recorder {
    /// Starts without readings; every source is due at `now`.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn Source>>, now: Duration) -> Self {
        let channel = |source: Box<dyn Source>| {
            let every = source.every();
            let traces = source.rails().iter().map(|rail| Trace::new(rail, every)).collect();
            Channel { source, every, due: now, traces, reads: 0, failures: 0, failure: None }
        };
        Recorder { channels: sources.into_iter().map(channel).collect(), readings: Vec::new() }
    }

    /// Reads every source that is due and returns the time at which the next is due; `None` without sources.
    pub fn poll(&mut self, clock: &mut dyn FnMut() -> Duration) -> Option<Duration> {
        for channel in &mut self.channels {
            let now = clock();
            if channel.due <= now {
                channel.read(clock, &mut self.readings);
                // Due times stay on the grid; those that have passed are left out.
                let late = (now - channel.due).as_nanos() / channel.every.as_nanos().max(1);
                channel.due += channel.every * (u32::try_from(late).unwrap_or(u32::MAX).saturating_add(1));
            }
        }
        self.channels.iter().map(|channel| channel.due).min()
    }

    /// Reads every source, due or not, and returns the time after that, which is the edge of a window.
    pub fn mark(&mut self, clock: &mut dyn FnMut() -> Duration) -> Duration {
        for channel in &mut self.channels {
            channel.read(clock, &mut self.readings);
        }
        clock()
    }

    /// Ends the recording. `cpu_s` and `wall_s` are processor seconds and duration of the sampling.
    #[must_use]
    pub fn finish(self, cpu_s: Option<f64>, wall_s: f64) -> Recording {
        let helpers: Duration = self.channels.iter().map(|channel| channel.source.helpers()).sum();
        let reads = self.channels.iter().map(|channel| channel.reads).sum();
        let cost = Cost { cpu_s, helpers_s: helpers.as_secs_f64(), wall_s, reads };
        let mut recording = Recording { rails: Vec::new(), cost, failures: Vec::new(), remarks: Vec::new() };
        for channel in self.channels {
            if let Some(failure) = channel.failure {
                recording
                    .failures
                    .push(format!("{} of {} reads failed: {failure}", channel.failures, channel.reads));
            }
            recording.remarks.extend(channel.source.remarks());
            recording.rails.extend(channel.source.rails().iter().cloned().zip(channel.traces));
        }
        recording
    }
}

impl Channel {
    fn read(&mut self, clock: &mut dyn FnMut() -> Duration, readings: &mut Vec<f64>) {
        readings.clear();
        let before = clock();
        let read = self.source.read(readings);
        // The reading is dated to the middle of the read.
        let at = before + (clock().saturating_sub(before)) / 2;
        self.reads += 1;
        match read {
            Ok(()) => {
                self.traces.iter_mut().zip(readings.iter()).for_each(|(trace, &value)| trace.push(at, value))
            }
            Err(error) => {
                self.failures += 1;
                self.failure = Some(error.report());
            }
        }
    }
}

impl Recording {
    /// Returns the rails with their readings.
    pub fn rails(&self) -> impl Iterator<Item = (&Rail, &Trace)> {
        self.rails.iter().map(|(rail, trace)| (rail, trace))
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("sources", &self.channels.len()).finish_non_exhaustive()
    }
}
