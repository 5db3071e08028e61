//! How a running device and its cameras are doing.

use std::{collections::BTreeMap, fmt};

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
