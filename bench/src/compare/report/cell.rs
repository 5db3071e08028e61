//! The figures of one variant at one task over one link.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Percentiles in milliseconds. Each is a sample, not an interpolation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 95th percentile; `None` for fewer than 20 frames.
    pub p95: Option<f64>,
    /// 99th percentile; `None` for fewer than 1,000 frames.
    pub p99: Option<f64>,
}

/// The figures of one variant at one task over one link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the link; [`NO_LINK`](super::NO_LINK) where nothing is sent.
    pub link: String,
    /// Name of the variant.
    pub variant: String,
    /// Name of the task.
    pub task: String,
    /// Answered frames, sent one at a time and behind the warm-up: the sample of every figure but `pipelined`.
    pub frames: usize,
    /// Rounds that these frames come from.
    pub rounds: usize,
    /// Frames without an answer.
    pub failed: usize,
    /// Latency from reading the photo to having the answer.
    pub total: Percentiles,
    /// 95 % confidence interval of the median, a bootstrap over rounds; `None` for fewer than five rounds.
    pub p50_interval: Option<(f64, f64)>,
    /// The parts of the latency, by the names of [`STAGES`](super::STAGES).
    pub stages: BTreeMap<String, Percentiles>,
    /// Mean bytes of a packet or image file.
    pub packet: Option<f64>,
    /// Mean bytes of a request and of a reply, without QUIC's headers.
    pub request: Option<(f64, f64)>,
    /// Mean bytes on the wire to the server and back for the same frames, with all headers, acknowledgements and repeats.
    pub wire: Option<(f64, f64)>,
    /// Throughput with several frames under way.
    pub pipelined: Option<Pipelined>,
    /// Energy on the device.
    pub energy: Energy,
    /// The sum of what a frame cannot avoid; `None` without a link.
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

/// Energy of a frame on the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Energy {
    /// A sensor was read.
    Measured {
        /// Joules per frame, all that the device consumed.
        gross: f64,
        /// Joules per frame above the idle device.
        net: f64,
        /// Rail, method and interval.
        source: String,
        /// What a model of the radio adds.
        radio: Option<Radio>,
    },
    /// No sensor was read.
    Unknown {
        /// Why.
        why: String,
        /// What a model of the radio gives.
        radio: Option<Radio>,
    },
}

impl Energy {
    /// The radio's modelled energy.
    #[must_use]
    pub fn radio(&self) -> Option<&Radio> {
        match self {
            Energy::Measured { radio, .. } | Energy::Unknown { radio, .. } => radio.as_ref(),
        }
    }
}

/// Energy of the radio by a published model. It is not measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Radio {
    /// Joules per frame.
    pub joules: f64,
    /// Publication of the coefficients.
    pub source: String,
}

/// What a frame takes at least: its stages, its bytes at the link's rate, one round trip; all in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Median over the frames of the sum of all stages but the network.
    pub stages: f64,
    /// The mean request and reply at the link's rates, with their headers.
    pub bytes: f64,
    /// One round trip.
    pub rtt: f64,
}

impl Floor {
    /// The sum in milliseconds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.stages + self.bytes + self.rtt
    }
}
