//! Why a frame is not run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The reason why a frame was not admitted. None of them depends on what other devices have queued, except that of a queue in
/// which no device has more frames than this one.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The queue is full, and no device has more frames in it than this one.
    #[error("{waiting} frames wait, {own} of them of this device")]
    Full {
        /// Frames that wait.
        waiting: usize,
        /// Those of this device.
        own: usize,
        /// The estimated time until the device's frames are done.
        retry: Duration,
    },
    /// The device's own frames that wait are estimated to outlast the frame's deadline.
    #[error("the {own} frames of this device that wait take {} ms, longer than the budget", wait.as_millis())]
    TooLong {
        /// Frames of the device that wait.
        own: usize,
        /// The estimated time until this frame's run would begin.
        wait: Duration,
    },
    /// The device has used up its quota of frames.
    #[error("the device's quota of {quota} frames a second is used up")]
    FrameQuota {
        /// Frames per second.
        quota: f64,
        /// The time until another frame is admitted.
        retry: Duration,
    },
    /// The device has used up its quota of network time.
    #[error("the device's quota of {quota} ms of the networks' time a second is used up")]
    TimeQuota {
        /// Milliseconds per second.
        quota: f64,
        /// The time until another frame is admitted.
        retry: Duration,
    },
}

impl Refused {
    /// The time after which another attempt may succeed.
    #[must_use]
    pub fn retry(&self) -> Duration {
        match *self {
            Refused::Full { retry, .. }
            | Refused::FrameQuota { retry, .. }
            | Refused::TimeQuota { retry, .. } => retry,
            Refused::TooLong { wait, .. } => wait,
        }
    }
}

/// The reason why a frame that was admitted will not be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Dropped {
    /// Its deadline has passed.
    Expired,
    /// Its deadline lies before the end of a run that begins now, even of a quick one.
    Hopeless,
    /// The queue was full, and a frame of a device with fewer frames in it took its place.
    Displaced,
    /// Nobody waits for it any more.
    Unwanted,
}
