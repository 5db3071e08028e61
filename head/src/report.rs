//! The JSON line of each frame, and the summary of a run.

use std::path::PathBuf;

use narrows_wire::Framing;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    encoding::Encoding,
    name::escaped_option,
    policy::{Confidence, Movement},
};

mod cameras;
mod spool;
mod state;
mod status;
mod summary;
mod tally;
mod totals;

pub use cameras::CameraSummary;
pub(crate) use cameras::CameraTally;
pub use spool::SpoolStatus;
pub(crate) use spool::SpoolTally;
pub(crate) use state::RunState;
pub use status::{
    BoardStatus, CameraStatus, DeviceStatus, FrameCounts, Latency, ServerStatus, SettingsStatus, SinkStatus,
    SourceStatus,
};
pub use summary::Summary;
pub(crate) use tally::Tally;
pub(crate) use totals::Totals;

/// The line of one frame on standard output.
///
/// Lines are written in the order in which frames finish; `frame` counts them in the order of capture. Fields that do not
/// apply to a frame are left out. Paths are written as [`Escaped`](crate::name::Escaped) displays them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Position of the frame within the run, from 0.
    pub frame: u64,
    /// The file that it was read from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "escaped_option")]
    pub file: Option<PathBuf>,
    /// Name of the camera, or of a source of files that was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// Position of the frame among all that the camera has delivered, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Frames of the camera that newer ones have replaced since the last one that was taken.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replaced: u64,
    /// When the frame was captured: the end of its arrival, by this device's clock, as RFC 3339 in UTC with milliseconds.
    #[serde(default)]
    pub captured: String,
    /// Name of this device: `--device`, or that of its certificate, or of the host.
    #[serde(default)]
    pub device: String,
    /// The first 12 digits of the identity of the bundle (models/BUNDLE.md).
    #[serde(default)]
    pub bundle: String,
    /// Whether it was answered.
    pub status: Status,
    /// The path that gave the answer: `split`, `image`, `local` for this device alone, or `kept` for the answer to an earlier
    /// frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Address of the server that answered or refused it, as given with `--server`, or as another server named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Why this device answered although the server was to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// With `--spool`, the frame's place on disk: it waits there for the server's answer, or this is that answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolPlace>,
    /// With `--gate`, how far the frame had moved since the last answered one of its source: why that answer was kept, or why it
    /// was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Moved>,
    /// With `--exit`, how sure the local network was: why the frame stayed on this device, or why it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Rate level of the split; 0 is the finest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<usize>,
    /// How much of the packet the answer is from, where packets may end early (`--level auto`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Groups>,
    /// Coding of the split's packet: `static`, `context`, `indexed`, `zstd` or `raw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coding: Option<String>,
    /// How the image is encoded on the image path.
    #[serde(flatten)]
    pub image: Option<ImageSettings>,
    /// Name of the geometry of the network's input; `local` where this device answered.
    pub geometry: String,
    /// The most probable classes, best first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classify: Option<Vec<ClassScore>>,
    /// The class map of the segmentation task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<Segment>,
    /// With `--out`, the photo with bars for the classes, where there is no class map.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "escaped_option")]
    pub overlay: Option<PathBuf>,
    /// Tasks without an answer on a line that has another answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<Unanswered>,
    /// Number of the refusal (wire/PROTOCOL.md, section 7), on refused lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Why there is no answer, on refused, failed and dropped lines; on answered lines, the picture that could not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Sizes, where the server replied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// Durations, where there is an answer or a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<Millis>,
    /// With `--for energy`, what the frame cost this device, by its model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules: Option<Joules>,
}

/// Modelled energy of a frame in joules.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Joules {
    /// Of the stages on this device.
    #[serde(serialize_with = "six_digits")]
    pub computing: f64,
    /// Of the bytes that were sent.
    #[serde(serialize_with = "six_digits")]
    pub sending: f64,
}

/// The place of a frame in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SpoolPlace {
    /// Its number in the spool's folder, which no other frame there has or had.
    pub id: u64,
    /// On the line of the server's answer: seconds since the capture.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "three_digits_option")]
    pub waited: Option<f64>,
}

/// How many of a packet's groups of channels an answer is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// The groups that the server used, from the first on.
    pub used: u8,
    /// The groups of the whole packet.
    pub total: u8,
}

/// How far a frame had moved since an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// The earlier frame, the last answered one of the same source.
    pub since: u64,
    /// The distance of their features, in quantiser steps.
    pub distance: f64,
    /// Below which distance the answer is kept.
    pub threshold: f64,
    /// Milliseconds between their captures.
    #[serde(serialize_with = "three_digits")]
    pub age: f64,
}

/// How sure the local network was of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// The probability of its first class, from 0 to 1.
    pub confidence: f64,
    /// From which confidence on its answer is used.
    pub threshold: f64,
}

/// How an image is encoded on the image path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSettings {
    /// `jpeg` or `webp`.
    pub format: String,
    /// 1 to 100.
    pub quality: u8,
    /// `420` or `444`.
    pub subsampling: String,
    /// `fitted` to the geometry, or at its `original` size.
    pub send: String,
}

/// Whether a frame was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// At least one task was answered.
    Answered,
    /// The server refused it with a code.
    Refused,
    /// Nobody answered it, or the file holds no usable image.
    Failed,
    /// A newer frame of its source took its place before anything of it was sent, as `--for latency` asks.
    Dropped,
    /// No server answered it, and it waits on disk until one is there (`--spool`). The answer then comes with a line of its own.
    Spooled,
}

/// One class and its probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Index of the class.
    pub index: u16,
    /// Its name in the bundle.
    pub label: String,
    /// Softmax over all classes, from 0 to 1.
    #[serde(serialize_with = "four_digits")]
    pub probability: f64,
}

/// A class map: a class for each pixel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// With `--out`, the map as a PNG whose palette indices are the classes.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "escaped_option")]
    pub mask: Option<PathBuf>,
    /// With `--out`, the photo tinted by the map, with a legend.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "escaped_option")]
    pub overlay: Option<PathBuf>,
    /// Width of the map in pixels.
    pub width: u16,
    /// Height of the map in pixels.
    pub height: u16,
    /// Every class in the map, largest share first.
    pub classes: Vec<Share>,
}

/// The part of the map that a class covers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Index of the class.
    pub index: u16,
    /// Its name in the bundle.
    pub label: String,
    /// Pixels of the class divided by pixels of the map, from 0 to 1.
    #[serde(serialize_with = "four_digits")]
    pub share: f64,
}

/// A task without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    /// Name of the task.
    pub task: String,
    /// Number of the refusal, if the server refused the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Why there is no answer.
    pub error: String,
}

/// Sizes of a frame in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// The codec's packet, or the image file.
    pub packet: usize,
    /// The request, without QUIC's own headers.
    pub sent: usize,
    /// The reply, without QUIC's own headers.
    pub received: usize,
}

/// Durations of a frame's stages in milliseconds, from reading the file to the complete answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Millis {
    /// Reading the file and decoding the image.
    #[serde(serialize_with = "three_digits")]
    pub decode: f64,
    /// Resizing and cropping to the network's input.
    #[serde(serialize_with = "three_digits")]
    pub resize: f64,
    /// The head or the local network, with `--gate` both where both ran; 0 where an image was sent without a gate.
    #[serde(serialize_with = "three_digits")]
    pub head: f64,
    /// The entropy coder, or the image encoder.
    #[serde(serialize_with = "three_digits")]
    pub encode: f64,
    /// With `--exit`, the local network and its resizing, where it was not sure enough and the frame was to be sent.
    #[serde(default, skip_serializing_if = "is_no_time", serialize_with = "three_digits")]
    pub exit: f64,
    /// From the packet to the reply, less the server's stages: the link, and queues on this device. Where this device
    /// answered as the fallback: how long the server was waited for.
    #[serde(serialize_with = "three_digits")]
    pub network: f64,
    /// Waiting in the server's queues.
    #[serde(serialize_with = "three_digits")]
    pub tail_queue: f64,
    /// Decoding on the server: packet to features, or image file to pixels.
    #[serde(serialize_with = "three_digits")]
    pub tail_decode: f64,
    /// The network on the server.
    #[serde(serialize_with = "three_digits")]
    pub tail_infer: f64,
    /// Postprocessing on the server: softmax, or the class map and its compression.
    #[serde(serialize_with = "three_digits")]
    pub tail_answer: f64,
    /// From the capture to the answer; pictures are drawn after that.
    #[serde(serialize_with = "three_digits")]
    pub total: f64,
}

impl From<Movement> for Moved {
    fn from(moved: Movement) -> Self {
        let Movement { since, distance, threshold, age, .. } = moved;
        Moved { since, distance, threshold, age: age.as_secs_f64() * 1e3 }
    }
}

impl From<Confidence> for Exit {
    fn from(exit: Confidence) -> Self {
        // Not rounded: what a line shows must not contradict the decision.
        Exit { confidence: exit.confidence, threshold: exit.threshold }
    }
}

impl ImageSettings {
    /// The settings as a line shows them.
    pub(crate) fn new(encoding: Encoding, framing: Framing) -> Self {
        ImageSettings {
            format: encoding.format.name().to_owned(),
            quality: encoding.quality,
            subsampling: encoding.chroma.name().to_owned(),
            send: framing.to_string(),
        }
    }
}

impl Line {
    /// Whether it is the late answer to a frame that had a line before.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.spool.is_some_and(|place| place.waited.is_some())
    }

    /// The line as JSON with a line feed.
    ///
    /// # Errors
    /// The error of the serialiser.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Whether a stage did not take place.
fn is_no_time(millis: &f64) -> bool {
    *millis == 0.0
}

fn three_digits<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1e3).round() / 1e3)
}

fn three_digits_option<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => three_digits(value, serializer),
        None => serializer.serialize_none(),
    }
}

fn six_digits<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1e6).round() / 1e6)
}

fn four_digits<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1e4).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(status: Status, packet: usize, total: f64) -> Line {
        Line {
            frame: 3,
            file: Some("photos/cat.jpg".into()),
            camera: None,
            sequence: None,
            replaced: 0,
            captured: "2026-03-01T12:00:00.250Z".into(),
            device: "pi".into(),
            bundle: "0123456789ab".into(),
            status,
            path: None,
            server: None,
            fallback: None,
            spool: None,
            gate: None,
            exit: None,
            level: Some(1),
            groups: None,
            coding: None,
            image: None,
            geometry: "photo".into(),
            classify: None,
            segment: None,
            overlay: None,
            unanswered: Vec::new(),
            code: None,
            error: None,
            bytes: Some(Bytes { packet, sent: packet + 60, received: 310 }),
            ms: Some(Millis { total, ..Millis::default() }),
            joules: None,
        }
    }

    fn text(line: &Line) -> String {
        String::from_utf8(line.to_json().unwrap()).unwrap()
    }

    #[test]
    fn an_answered_line_has_this_shape() {
        let mut answered = line(Status::Answered, 5400, 41.23456);
        (answered.path, answered.coding) = (Some("split".into()), Some("static".into()));
        answered.classify =
            Some(vec![ClassScore { index: 281, label: "tabby".into(), probability: 0.61f32.into() }]);
        answered.segment = Some(Segment {
            mask: Some("out/cat.mask.png".into()),
            overlay: Some("out/cat.overlay.png".into()),
            width: 480,
            height: 360,
            classes: vec![Share { index: 3, label: "road".into(), share: 0.41 }],
        });
        assert_eq!(
            text(&answered),
            concat!(
                r#"{"frame":3,"file":"photos/cat.jpg","captured":"2026-03-01T12:00:00.250Z","device":"pi","bundle":"0123456789ab","#,
                r#""status":"answered","path":"split","level":1,"coding":"static","geometry":"photo","#,
                r#""classify":[{"index":281,"label":"tabby","probability":0.61}],"#,
                r#""segment":{"mask":"out/cat.mask.png","overlay":"out/cat.overlay.png","width":480,"height":360,"#,
                r#""classes":[{"index":3,"label":"road","share":0.41}]},"#,
                r#""bytes":{"packet":5400,"sent":5460,"received":310},"#,
                r#""ms":{"decode":0.0,"resize":0.0,"head":0.0,"encode":0.0,"network":0.0,"tail_queue":0.0,"#,
                r#""tail_decode":0.0,"tail_infer":0.0,"tail_answer":0.0,"total":41.235}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_line_without_an_answer_says_why() {
        let mut refused = line(Status::Refused, 1, 1.0);
        (refused.bytes, refused.ms) = (None, None);
        (refused.code, refused.error) = (Some(18), Some("busy: 64 frames wait".into()));
        assert_eq!(
            text(&refused),
            concat!(
                r#"{"frame":3,"file":"photos/cat.jpg","captured":"2026-03-01T12:00:00.250Z","device":"pi","bundle":"0123456789ab","#,
                r#""status":"refused","level":1,"geometry":"photo","#,
                r#""code":18,"error":"busy: 64 frames wait"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_line_of_this_device_alone_has_no_level_and_no_bytes() {
        let mut local = line(Status::Answered, 1, 12.5);
        (local.bytes, local.level, local.geometry) = (None, None, "local".into());
        (local.path, local.fallback) = (Some("local".into()), Some("no server".into()));
        local.ms = None;
        assert_eq!(
            text(&local),
            concat!(
                r#"{"frame":3,"file":"photos/cat.jpg","captured":"2026-03-01T12:00:00.250Z","device":"pi","bundle":"0123456789ab","#,
                r#""status":"answered","path":"local","fallback":"no server","#,
                r#""geometry":"local"}"#,
                "\n"
            )
        );
        let mut kept = local.clone();
        (kept.path, kept.fallback) = (Some("kept".into()), None);
        let mut summary = Summary::default();
        summary.add(&kept);
        assert_eq!((summary.answered, summary.local, summary.kept), (1, 0, 1));
        assert_eq!(
            summary.to_string(),
            "1 frame: 1 answered, 0 refused, 0 failed, 1 kept from an earlier frame"
        );
        let mut summary = Summary::default();
        summary.add(&local);
        assert_eq!((summary.answered, summary.local, summary.mean_packet_bytes()), (1, 1, None));
        assert_eq!(summary.to_string(), "1 frame: 1 answered, 0 refused, 0 failed, 1 on this device alone");
    }

    #[test]
    fn a_line_of_an_image_says_how_it_was_sent() {
        let mut answered = line(Status::Answered, 9000, 20.0);
        (answered.path, answered.level, answered.ms) = (Some("image".into()), None, None);
        answered.image = Some(ImageSettings {
            format: "jpeg".into(),
            quality: 75,
            subsampling: "420".into(),
            send: "fitted".into(),
        });
        assert_eq!(
            text(&answered),
            concat!(
                r#"{"frame":3,"file":"photos/cat.jpg","captured":"2026-03-01T12:00:00.250Z","device":"pi","bundle":"0123456789ab","#,
                r#""status":"answered","path":"image","#,
                r#""format":"jpeg","quality":75,"subsampling":"420","send":"fitted","geometry":"photo","#,
                r#""bytes":{"packet":9000,"sent":9060,"received":310}}"#,
                "\n"
            )
        );
        assert_eq!(serde_json::from_str::<Line>(&text(&answered)).unwrap(), answered);
    }

    #[test]
    fn a_line_of_a_camera_has_its_name_and_place_instead_of_a_file() {
        let mut live = line(Status::Failed, 1, 1.0);
        (live.file, live.camera, live.sequence, live.replaced) = (None, Some("front".into()), Some(41), 3);
        (live.bytes, live.ms, live.error) = (None, None, Some("x".into()));
        assert_eq!(
            text(&live),
            concat!(
                r#"{"frame":3,"camera":"front","sequence":41,"replaced":3,"captured":"2026-03-01T12:00:00.250Z","#,
                r#""device":"pi","bundle":"0123456789ab","status":"failed","level":1,"geometry":"photo","error":"x"}"#,
                "\n"
            )
        );
        assert_eq!(serde_json::from_str::<Line>(&text(&live)).unwrap(), live);
    }

    #[test]
    fn lines_can_be_read_back() {
        let mut written = line(Status::Failed, 9, 2.5);
        written.unanswered =
            vec![Unanswered { task: "segment".into(), code: Some(24), error: "server failed".into() }];
        assert_eq!(serde_json::from_str::<Line>(&text(&written)).unwrap(), written);
    }

    #[test]
    fn names_that_are_not_utf_8_are_written_without_loss() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let mut written = line(Status::Failed, 1, 1.0);
        written.file = Some(OsStr::from_bytes(b"caf\xe9 \\ \n.jpg").into());
        written.overlay = Some(OsStr::from_bytes(b"out/\xff.overlay.png").into());
        let text = text(&written);
        assert!(text.contains(r#""file":"caf\\xe9 \\\\ \\x0a.jpg""#), "{text}");
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), written);
    }

    #[test]
    fn the_summary_counts_and_ranks() {
        let mut summary = Summary::default();
        assert_eq!(summary.to_string(), "0 frames: 0 answered, 0 refused, 0 failed");
        assert_eq!(summary.total_ms(0.5), None);
        for total in 1..=20 {
            summary.add(&line(Status::Answered, 100 + total, total as f64));
        }
        assert!(summary.complete());
        for (quantile, exact) in [(0.5, 10.0), (0.95, 19.0), (1.0, 20.0)] {
            let found = summary.total_ms(quantile).unwrap();
            assert!((found / exact - 1.0).abs() <= 1e-3, "{quantile}: {found}");
        }
        summary.add(&line(Status::Refused, 0, 0.0));
        summary.add(&line(Status::Failed, 0, 0.0));
        summary.not_begun = 2;
        assert!(!summary.complete());
        assert_eq!(
            summary.to_string(),
            "22 frames: 20 answered, 1 refused, 1 failed, 2 not begun; \
             packet 110 bytes on average; total p50 10.0 ms, p95 19.0 ms"
        );
        summary.unfinished = 3;
        assert!(
            summary
                .to_string()
                .starts_with("25 frames: 20 answered, 1 refused, 1 failed, 3 unfinished, 2 not begun;")
        );
    }

    #[test]
    fn the_summary_keeps_durations_beyond_its_range_at_the_end_of_it() {
        let mut summary = Summary::default();
        summary.add(&line(Status::Answered, 1, 1e9));
        assert!(summary.total_ms(0.5).unwrap() >= 7.2e6);
    }
}
