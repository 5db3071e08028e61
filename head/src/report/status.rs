//! How a running device and its cameras are doing.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Bytes, ClassScore, SpoolStatus, Status};

/// The state of a running device, as the page serves it at `/status` and MQTT publishes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Name of the device.
    pub device: String,
    /// Version of the program.
    pub version: String,
    /// The first 12 digits of the identity of the bundle.
    pub bundle: String,
    /// Seconds since the run began.
    pub uptime_s: f64,
    /// Cameras by name, from their first frame on.
    pub cameras: BTreeMap<String, CameraStatus>,
    /// The sinks beside standard output.
    pub sinks: Vec<SinkStatus>,
    /// The frames on disk, with `--spool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolStatus>,
    /// Where the network runs: `split`, `image` or `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The rate level that was set: a number or `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The server, where one is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerStatus>,
    /// Outcomes of all frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<FrameCounts>,
    /// Live sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceStatus>,
    /// Temperature and throttling, once they were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<BoardStatus>,
    /// The configuration file, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsStatus>,
}

/// The connection to the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its address.
    pub address: String,
    /// Whether it is connected to.
    pub connected: bool,
    /// Seconds since it has been connected to, or away.
    pub since_s: f64,
    /// Why it is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Outcomes of all frames since the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounts {
    /// Answered.
    pub answered: u64,
    /// Refused by the server.
    pub refused: u64,
    /// Answered by nobody.
    pub failed: u64,
    /// Replaced by newer ones.
    pub dropped: u64,
    /// Waiting on disk for a server.
    pub spooled: u64,
    /// Of the answered ones, those that this device answered.
    pub local: u64,
    /// Of the answered ones, those that kept the answer to an earlier frame.
    pub kept: u64,
    /// Begun and without an outcome yet.
    pub in_flight: u64,
}

/// What became of the frames of one live source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// Frames that arrived whole.
    pub arrived: u64,
    /// Frames that were taken.
    pub taken: u64,
    /// Frames that a newer one replaced before they were taken.
    pub replaced: u64,
    /// Frames that did not arrive whole.
    pub damaged: u64,
    /// How often it ended, failed or stalled.
    pub outages: u64,
    /// Why it delivers nothing at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Temperature and throttling of the board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoardStatus {
    /// The thermal zone nearest to its limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its temperature in °C.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celsius: Option<f64>,
    /// The temperature in °C from which the board slows down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_celsius: Option<f64>,
    /// Why the board is throttled at present; empty where it is not.
    pub throttled: Vec<String>,
    /// How often throttling has begun since the run began.
    pub throttled_times: u64,
}

/// The configuration file of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsStatus {
    /// The file.
    pub file: PathBuf,
    /// How often it was read and used.
    pub used: u64,
    /// Why its present content is not used, or not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The state of one camera. Rates and latencies are those of the last ten seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraStatus {
    /// Frames whose outcome is known, since the run began.
    pub frames: u64,
    /// Of these, the frames that were answered.
    pub answered: u64,
    /// Frames that the server refused.
    pub refused: u64,
    /// Frames that nobody answered.
    pub failed: u64,
    /// Frames whose place newer ones took.
    pub dropped: u64,
    /// Frames that wait on disk for a server.
    #[serde(default)]
    pub spooled: u64,
    /// Answered frames that this device answered in the server's place.
    pub fallback: u64,
    /// Frames a second.
    pub fps: f64,
    /// Seconds since the last outcome.
    pub age_s: f64,
    /// Outcome of the last frame that was not dropped.
    pub status: Status,
    /// The path of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Rate level of that frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<usize>,
    /// The best class of the last answer; of a class map, the class with the largest share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassScore>,
    /// Milliseconds from capture to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Latency>,
    /// Sizes of that frame, where the server replied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// Bytes sent to the server since the run began, without QUIC's own headers.
    pub sent_total: u64,
    /// Bytes received from the server since the run began, without QUIC's own headers.
    pub received_total: u64,
    /// Why that frame has no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Milliseconds from capture to answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Of the last answer.
    #[serde(serialize_with = "super::three_digits")]
    pub last: f64,
    /// The median.
    #[serde(serialize_with = "super::three_digits")]
    pub p50: f64,
    /// The 95th percentile, by nearest rank.
    #[serde(serialize_with = "super::three_digits")]
    pub p95: f64,
}

/// What a sink delivered and lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// The sink's kind and address.
    pub name: String,
    /// Answers that have arrived.
    pub delivered: u64,
    /// Answers that will not arrive.
    pub lost: u64,
    /// Why nothing is delivered at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl fmt::Display for SinkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SinkStatus { name, delivered, lost, trouble } = self;
        write!(f, "{name}: {delivered} delivered, {lost} lost")?;
        match trouble {
            Some(trouble) => write!(f, "; {trouble}"),
            None => Ok(()),
        }
    }
}
