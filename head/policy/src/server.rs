//! The server's share of a frame's time, from its replies.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Link;

/// How far one reply moves the estimate.
const WEIGHT: f64 = 0.2;

/// The time that is assumed before the first reply.
const ASSUMED: Duration = Duration::from_millis(30);

/// The mean time of late from the arrival of a packet to the departure of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerTime {
    seconds: f64,
}

impl Default for ServerTime {
    fn default() -> Self {
        ServerTime { seconds: ASSUMED.as_secs_f64() }
    }
}

impl ServerTime {
    /// Takes note of the server's time for a frame.
    pub fn observe(&mut self, took: Duration) {
        self.seconds += WEIGHT * (took.as_secs_f64() - self.seconds);
    }

    /// When the bytes of a frame must be at the server, so that the answer is here at `last_answer`.
    #[must_use]
    pub fn due(&self, last_answer: Duration, link: &Link) -> Duration {
        let own = Duration::try_from_secs_f64(self.seconds).unwrap_or_default();
        last_answer.saturating_sub(link.base_rtt() / 2 + own)
    }
}
