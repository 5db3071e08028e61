//! What a variant's frames over one link come to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Percentiles of milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 95th.
    pub p95: f64,
    /// 99th.
    pub p99: f64,
}

/// What was measured of one variant at one task over one link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the link; [`NO_LINK`](super::NO_LINK) where nothing is sent.
    pub link: String,
    /// Name of the variant.
    pub variant: String,
    /// Name of the task.
    pub task: String,
    /// Answered frames, one at a time, that the percentiles are of.
    pub frames: usize,
    /// Frames without an answer.
    pub failed: usize,
    /// From reading the photo to having the answer, one frame at a time.
    pub total: Percentiles,
    /// 95 % confidence interval of the median, resampling runs.
    pub p50_interval: (f64, f64),
    /// The stages of `total`, by the names of [`STAGES`](super::STAGES).
    pub stages: BTreeMap<String, Percentiles>,
    /// Mean bytes of a packet or image file.
    pub packet: Option<f64>,
    /// Mean bytes of a request and of a reply, before QUIC's own headers.
    pub request: Option<(f64, f64)>,
    /// Bytes per frame on the wire, up and down, with all headers and acknowledgements.
    pub wire: Option<(f64, f64)>,
    /// Frames per second with several under way.
    pub pipelined: Option<Pipelined>,
    /// Joules on the device.
    pub energy: Energy,
    /// What physics asks for, and whether the runtime adds more than it may.
    pub floor: Option<Floor>,
}

/// Throughput with several frames under way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pipelined {
    /// Frames under way.
    pub in_flight: usize,
    /// Answers that were counted.
    pub frames: usize,
    /// Answers per second.
    pub rate: f64,
}

/// Joules of a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Energy {
    /// A sensor was read.
    Measured {
        /// Joules per frame, all that the device drew.
        gross: f64,
        /// Joules per frame above the idle device.
        net: f64,
        /// Rail, method and interval.
        source: String,
        /// Joules per frame that a model of the radio adds.
        radio: Option<Radio>,
    },
    /// No sensor was read.
    Unknown {
        /// Why.
        why: String,
        /// Joules per frame that a model of the radio gives.
        radio: Option<Radio>,
    },
}

impl Energy {
    /// What the radio model says.
    pub fn radio(&self) -> Option<&Radio> {
        match self {
            Energy::Measured { radio, .. } | Energy::Unknown { radio, .. } => radio.as_ref(),
        }
    }
}

/// Energy of the radio by a model: modelled, not measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Radio {
    /// Joules per frame.
    pub joules: f64,
    /// Whose coefficients.
    pub source: String,
}

/// What a frame takes at least: its stages, its bytes at the link's rate, one round trip.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Median of the frame's stages but the network, in milliseconds.
    pub stages: f64,
    /// Milliseconds that its bytes take at the link's rate, up and down.
    pub bytes: f64,
    /// Milliseconds of one round trip.
    pub rtt: f64,
    /// Whether the median of the total is within 10 % + 2 ms of their sum.
    pub holds: bool,
}

impl Floor {
    /// The sum, in milliseconds.
    pub fn sum(&self) -> f64 {
        self.stages + self.bytes + self.rtt
    }

    /// The largest median that passes.
    pub fn bound(&self) -> f64 {
        1.1 * self.sum() + 2.0
    }
}
