//! What a device may ask for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The class of a device. Work of a higher class is run first; a lower one that waits gets every ninth run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before the others.
    High,
    /// The usual class.
    #[default]
    Normal,
    /// After the others.
    Low,
}

impl Priority {
    /// All classes, the highest first.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

    /// The place among [`Priority::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        }
    }
}

/// The class and the quotas of a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    /// The class.
    pub priority: Priority,
    /// Frames per second, above 0; `None` is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_per_second: Option<f64>,
    /// Milliseconds of the networks' time per second, above 0; `None` is no limit. A run's time is divided among its frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail_ms_per_second: Option<f64>,
    /// The time whose quota may be used at once: so many seconds' worth of frames (at least one frame) and of milliseconds.
    pub burst_seconds: f64,
}

impl Default for Terms {
    fn default() -> Self {
        Terms {
            priority: Priority::Normal,
            frames_per_second: None,
            tail_ms_per_second: None,
            burst_seconds: 1.0,
        }
    }
}

impl Terms {
    /// Rate and capacity of the bucket of frames.
    pub(crate) fn frames(&self) -> Option<(f64, f64)> {
        self.frames_per_second.map(|rate| (rate, (rate * self.burst_seconds).max(1.0)))
    }

    /// Rate and capacity of the bucket of network time, in seconds.
    pub(crate) fn time(&self) -> Option<(f64, f64)> {
        self.tail_ms_per_second.map(|rate| (rate / 1e3, rate / 1e3 * self.burst_seconds))
    }
}

/// Limits of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkLimits {
    /// Frames in one run, at least 1.
    pub batch: usize,
    /// Time that a frame may wait for others of its shape while a worker is free.
    pub wait: Duration,
    /// Frames that may wait in all, at least 1.
    pub queue: usize,
    /// Workers, which run batches in parallel, at least 1.
    pub workers: usize,
}
