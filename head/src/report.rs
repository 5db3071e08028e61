//! One JSON line per frame, and the summary of a run.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
};

use serde::{Deserialize, Serialize, Serializer};

use crate::config::Config;

/// One frame's line on standard output.
///
/// Lines come in the order in which frames end, which need not be the order in which they began: `frame` counts
/// those. Parts that a frame does not have are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Number of the frame within the run, from 0.
    pub frame: u64,
    /// The file it came from.
    pub file: PathBuf,
    /// How it ended.
    pub status: Status,
    /// Which path made the answer: `split`, `image`, or `local` for this device alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Why this device answered although a server was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Rate level of the split, 0 is the finest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<usize>,
    /// How the packet of the split is coded: `static`, `context`, `indexed`, `zstd` or `raw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coding: Option<String>,
    /// How the image was encoded, where one was to be sent.
    #[serde(flatten)]
    pub image: Option<ImageSettings>,
    /// Name of the geometry that made the head's input; `local` where this device answered.
    pub geometry: String,
    /// The most probable classes, best first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classify: Option<Vec<ClassScore>>,
    /// The class map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<Segment>,
    /// The photo with bars for the classes, where there is no class map; with `--out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<PathBuf>,
    /// Tasks that got no answer while another one of the frame did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<Unanswered>,
    /// Number of the refusal (wire/PROTOCOL.md, section 7), on refused lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Why there is no answer, on refused and failed lines; or what could not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Sizes, once the server said something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// Stages, once there is an answer or a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<Millis>,
}

/// How an image is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSettings {
    /// `jpeg` or `webp`.
    pub format: String,
    /// 1 to 100.
    pub quality: u8,
    /// `420` or `444`.
    pub subsampling: String,
    /// `fitted` to the geometry, or of its `original` size.
    pub send: String,
}

/// How a frame ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// At least one task was answered.
    Answered,
    /// The server said no, with a code.
    Refused,
    /// Nobody answered, or the file is no image.
    Failed,
}

/// One class and its probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Index of the class.
    pub index: u16,
    /// Its name in the bundle.
    pub label: String,
    /// Softmax over all classes, 0 to 1.
    #[serde(serialize_with = "four_digits")]
    pub probability: f64,
}

/// A class per pixel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The map as a PNG whose palette indices are the classes; with `--out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<PathBuf>,
    /// The photo under the map, with a legend; with `--out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<PathBuf>,
    /// Width of the map.
    pub width: u16,
    /// Height of the map.
    pub height: u16,
    /// Every class in the map, largest share first.
    pub classes: Vec<Share>,
}

/// How much of the map a class covers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Index of the class.
    pub index: u16,
    /// Its name in the bundle.
    pub label: String,
    /// Pixels of the class over pixels of the map, 0 to 1.
    #[serde(serialize_with = "four_digits")]
    pub share: f64,
}

/// A task without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    /// Its name.
    pub task: String,
    /// Number of the refusal, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Why.
    pub error: String,
}

/// Sizes of a frame in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// The codec's packet, or the image's file.
    pub packet: usize,
    /// The whole request, before QUIC's own headers.
    pub sent: usize,
    /// The whole reply, before QUIC's own headers.
    pub received: usize,
}

/// Stages of a frame in milliseconds, from reading the file to having the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Millis {
    /// Reading the file and decoding the image.
    #[serde(serialize_with = "three_digits")]
    pub decode: f64,
    /// To the head's input.
    #[serde(serialize_with = "three_digits")]
    pub resize: f64,
    /// The head's network, or the local one; 0 where an image was sent.
    #[serde(serialize_with = "three_digits")]
    pub head: f64,
    /// The entropy coder, or the image's encoder.
    #[serde(serialize_with = "three_digits")]
    pub encode: f64,
    /// From the packet to the reply, without the server's stages: the link, and queues on this side. Where this device
    /// stood in for a server: how long that was waited for.
    #[serde(serialize_with = "three_digits")]
    pub network: f64,
    /// Waiting on the server.
    #[serde(serialize_with = "three_digits")]
    pub tail_queue: f64,
    /// Packet to features, or image file to pixels.
    #[serde(serialize_with = "three_digits")]
    pub tail_decode: f64,
    /// The server's network.
    #[serde(serialize_with = "three_digits")]
    pub tail_infer: f64,
    /// Softmax, or class map and its compression.
    #[serde(serialize_with = "three_digits")]
    pub tail_answer: f64,
    /// From the start of the frame to its answer; pictures are drawn after that.
    #[serde(serialize_with = "three_digits")]
    pub total: f64,
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Frames that at least one task was answered for.
    pub answered: usize,
    /// Frames the server refused.
    pub refused: usize,
    /// Frames that got no answer.
    pub failed: usize,
    /// Frames of the source that were never begun.
    pub left: usize,
    /// Answered frames that this device answered alone.
    pub local: usize,
    packets: u64,
    totals: Vec<f64>,
}

impl ImageSettings {
    pub(crate) fn of(config: &Config) -> Self {
        ImageSettings {
            format: config.encoding.format.name().to_owned(),
            quality: config.encoding.quality,
            subsampling: config.encoding.chroma.name().to_owned(),
            send: config.framing.to_string(),
        }
    }
}

impl Line {
    /// Writes the line and its end.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        out.write_all(&bytes)?;
        out.flush()
    }
}

impl Summary {
    /// A run of these many frames that never began.
    pub(crate) fn not_started(left: usize) -> Self {
        Summary { left, ..Summary::default() }
    }

    /// Counts a frame.
    pub fn add(&mut self, line: &Line) {
        match line.status {
            Status::Answered => {
                self.answered += 1;
                self.local += usize::from(line.bytes.is_none());
                self.packets += line.bytes.map_or(0, |bytes| bytes.packet as u64);
                self.totals.extend(line.ms.map(|ms| ms.total));
            }
            Status::Refused => self.refused += 1,
            Status::Failed => self.failed += 1,
        }
    }

    /// Whether every frame of the source was answered.
    pub fn complete(&self) -> bool {
        self.refused + self.failed + self.left == 0
    }

    /// Mean packet of the frames that a server answered.
    pub fn bytes_mean(&self) -> Option<f64> {
        let sent = self.answered - self.local;
        (sent > 0).then(|| self.packets as f64 / sent as f64)
    }

    /// The total that this share of the answered frames stays within, by nearest rank.
    pub fn total(&self, share: f64) -> Option<f64> {
        let mut totals = self.totals.clone();
        totals.sort_by(f64::total_cmp);
        let rank = (share * totals.len() as f64).ceil() as usize;
        totals.get(rank.clamp(1, totals.len().max(1)) - 1).copied()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames = self.answered + self.refused + self.failed;
        let s = if frames == 1 { "" } else { "s" };
        write!(f, "{frames} frame{s}: {} answered", self.answered)?;
        for (count, word) in [(self.refused, "refused"), (self.failed, "failed"), (self.left, "not begun")] {
            if count > 0 || word == "refused" || word == "failed" {
                write!(f, ", {count} {word}")?;
            }
        }
        if self.local > 0 {
            write!(f, ", {} on this device alone", self.local)?;
        }
        if let Some(bytes) = self.bytes_mean() {
            write!(f, "; packet {bytes:.0} bytes on average")?;
        }
        if let (Some(p50), Some(p95)) = (self.total(0.5), self.total(0.95)) {
            write!(f, "; total p50 {p50:.1} ms, p95 {p95:.1} ms")?;
        }
        Ok(())
    }
}

fn three_digits<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1e3).round() / 1e3)
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
            file: "photos/cat.jpg".into(),
            status,
            path: None,
            fallback: None,
            level: Some(1),
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
        }
    }

    fn text(line: &Line) -> String {
        let mut bytes = Vec::new();
        line.write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
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
                r#"{"frame":3,"file":"photos/cat.jpg","status":"answered","path":"split","level":1,"coding":"static","geometry":"photo","#,
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
                r#"{"frame":3,"file":"photos/cat.jpg","status":"refused","level":1,"geometry":"photo","#,
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
                r#"{"frame":3,"file":"photos/cat.jpg","status":"answered","path":"local","fallback":"no server","#,
                r#""geometry":"local"}"#,
                "\n"
            )
        );
        let mut summary = Summary::default();
        summary.add(&local);
        assert_eq!((summary.answered, summary.local, summary.bytes_mean()), (1, 1, None));
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
                r#"{"frame":3,"file":"photos/cat.jpg","status":"answered","path":"image","#,
                r#""format":"jpeg","quality":75,"subsampling":"420","send":"fitted","geometry":"photo","#,
                r#""bytes":{"packet":9000,"sent":9060,"received":310}}"#,
                "\n"
            )
        );
        assert_eq!(serde_json::from_str::<Line>(&text(&answered)).unwrap(), answered);
    }

    #[test]
    fn lines_can_be_read_back() {
        let mut written = line(Status::Failed, 9, 2.5);
        written.unanswered =
            vec![Unanswered { task: "segment".into(), code: Some(24), error: "server failed".into() }];
        assert_eq!(serde_json::from_str::<Line>(&text(&written)).unwrap(), written);
    }

    #[test]
    fn the_summary_counts_and_ranks() {
        let mut summary = Summary::default();
        assert_eq!(summary.to_string(), "0 frames: 0 answered, 0 refused, 0 failed");
        for total in 1..=20 {
            summary.add(&line(Status::Answered, 100 + total, total as f64));
        }
        assert!(summary.complete());
        assert_eq!(
            (summary.total(0.5), summary.total(0.95), summary.total(1.0)),
            (Some(10.0), Some(19.0), Some(20.0))
        );
        summary.add(&line(Status::Refused, 0, 0.0));
        summary.add(&line(Status::Failed, 0, 0.0));
        summary.left = 2;
        assert!(!summary.complete());
        assert_eq!(
            summary.to_string(),
            "22 frames: 20 answered, 1 refused, 1 failed, 2 not begun; \
             packet 110 bytes on average; total p50 10.0 ms, p95 19.0 ms"
        );
    }
}
