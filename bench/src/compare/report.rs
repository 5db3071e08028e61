//! What a comparison is made of: the rows that were measured and the report that is drawn from them.
//!
//! The JSON form is described in `bench/REPORT.md`.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Version of report.json; raised when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Names of a frame's stages, in the order in which they happen, as in the head's lines.
pub const STAGES: [&str; 9] = [
    "decode",
    "resize",
    "head",
    "encode",
    "network",
    "tail_decode",
    "tail_queue",
    "tail_infer",
    "tail_answer",
];

/// One frame that was sent and what came of it: a line of rows.csv.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The turn it was sent in, a place in [`Report::turns`].
    pub turn: usize,
    /// Name of the link; `none` where nothing is sent.
    pub link: String,
    /// Name of the variant.
    pub variant: String,
    /// Name of the task.
    pub task: String,
    /// Frames under way at once.
    pub in_flight: usize,
    /// Number of the frame within its turn.
    pub frame: u64,
    /// The photo's file name.
    pub file: String,
    /// Sent to warm the connection and the caches; in no figure.
    pub warm_up: bool,
    /// Whether an answer came.
    pub answered: bool,
    /// Why none came.
    pub error: Option<String>,
    /// Bytes of the packet or the image file.
    pub packet: Option<usize>,
    /// Bytes of the request.
    pub sent: Option<usize>,
    /// Bytes of the reply.
    pub received: Option<usize>,
    /// Milliseconds of each stage, of [`STAGES`].
    pub decode: Option<f64>,
    /// As above.
    pub resize: Option<f64>,
    /// As above.
    pub head: Option<f64>,
    /// As above.
    pub encode: Option<f64>,
    /// As above.
    pub network: Option<f64>,
    /// As above.
    pub tail_decode: Option<f64>,
    /// As above.
    pub tail_queue: Option<f64>,
    /// As above.
    pub tail_infer: Option<f64>,
    /// As above.
    pub tail_answer: Option<f64>,
    /// Milliseconds from reading the photo to having the answer.
    pub total: Option<f64>,
    /// Milliseconds from the start of the turn to the line.
    pub at: f64,
}

impl Row {
    /// The stages, in the order of [`STAGES`].
    pub fn stages(&self) -> [Option<f64>; STAGES.len()] {
        let device = [self.decode, self.resize, self.head, self.encode];
        let tail = [self.tail_decode, self.tail_queue, self.tail_infer, self.tail_answer];
        let [decode, resize, head, encode] = device;
        let [tail_decode, tail_queue, tail_infer, tail_answer] = tail;
        [decode, resize, head, encode, self.network, tail_decode, tail_queue, tail_infer, tail_answer]
    }
}

/// A whole comparison: report.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`] at the time of writing.
    pub schema: u32,
    /// Where, when and with what it was measured.
    pub story: Story,
    /// The links, fastest first.
    pub links: Vec<Rung>,
    /// What was compared.
    pub variants: Vec<Variant>,
    /// Accuracy and bytes of each variant and task, independent of the link.
    pub accuracy: Vec<Accuracy>,
    /// Latency, rate and energy of each link, variant and task.
    pub cells: Vec<Cell>,
    /// The fastest variant for each link, task and greatest loss of accuracy.
    pub winners: Vec<Winner>,
    /// Split against offload at equal accuracy.
    pub claims: Vec<Claim>,
    /// In the order in which they were run.
    pub turns: Vec<Turn>,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// When it is no report, or one of another version.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let Version { schema } = serde_json::from_str(text)?;
        ensure!(schema == SCHEMA, "a report of schema {schema}; this version reads schema {SCHEMA}");
        Ok(serde_json::from_str(text)?)
    }

    /// Puts the cells in the order of tasks, links and variants: they come in that of their first turns.
    pub fn sort(&mut self) {
        let tasks: Vec<String> = self.tasks().into_iter().map(str::to_owned).collect();
        let links: Vec<&str> = self.links.iter().map(|rung| rung.name.as_str()).collect();
        let variants: Vec<&str> = self.variants.iter().map(|variant| variant.name.as_str()).collect();
        self.cells.sort_by_key(|cell| {
            let task = tasks.iter().position(|task| *task == cell.task);
            let link = links.iter().position(|link| *link == cell.link);
            let variant = variants.iter().position(|variant| *variant == cell.variant);
            // What needs no link stands behind the links.
            (task, link.unwrap_or(usize::MAX), variant)
        });
    }

    /// The accuracy of a variant at a task.
    pub fn accuracy(&self, task: &str, variant: &str) -> Option<&Accuracy> {
        self.accuracy.iter().find(|accuracy| accuracy.task == task && accuracy.variant == variant)
    }

    /// The variant of this name.
    pub fn variant(&self, name: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.name == name)
    }

    /// The cells that matter for a link: those over it, and those that need no link.
    pub fn on<'a>(&'a self, link: &'a str, task: &'a str) -> impl Iterator<Item = &'a Cell> + Clone {
        let here = move |cell: &&Cell| cell.task == task && (cell.link == link || cell.link == NO_LINK);
        self.cells.iter().filter(here)
    }

    /// The tasks that were measured, in the order of the cells.
    pub fn tasks(&self) -> Vec<&str> {
        let mut tasks: Vec<&str> = Vec::new();
        for task in self.accuracy.iter().map(|of| &of.task).chain(self.cells.iter().map(|of| &of.task)) {
            if !tasks.contains(&task.as_str()) {
                tasks.push(task);
            }
        }
        tasks
    }
}

/// The link of cells that send nothing.
pub const NO_LINK: &str = "none";

/// What every number of a report rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// Whether everything that was planned was measured.
    pub complete: bool,
    /// Why it is not complete.
    pub incomplete_because: Option<String>,
    /// Of narrows.
    pub version: String,
    /// `git describe` of the tree that the program lies in.
    pub commit: String,
    /// Name, version and digest of the bundle.
    pub bundle: String,
    /// The command line.
    pub command: String,
    /// Start, seconds since 1970.
    pub started: u64,
    /// Length of the run in seconds.
    pub seconds: f64,
    /// Seed of the order of turns, of the links and of the resampling.
    pub seed: u64,
    /// How often every cell had its turn.
    pub rounds: usize,
    /// Processor, governor and so on, by name, in the order to show.
    pub machine: Vec<(String, String)>,
    /// Which photos, and what stands for the truth.
    pub data: Vec<String>,
    /// What the reader must know.
    pub notes: Vec<String>,
}

/// A link of the ladder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// Short name.
    pub name: String,
    /// What it stands for.
    pub about: String,
    /// Bits per second up; `None` is unlimited.
    pub up: Option<f64>,
    /// Bits per second down.
    pub down: Option<f64>,
    /// Milliseconds of both ways together.
    pub rtt_ms: f64,
    /// Share of datagrams lost each way.
    pub loss: f64,
    /// What the relay was measured to do, as asked and as found, one line each.
    pub fidelity: Vec<Fidelity>,
}

/// One property of a link: what was asked of the relay and what it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Which property, with its unit.
    pub what: String,
    /// As asked.
    pub asked: f64,
    /// As measured.
    pub found: f64,
    /// Smallest and largest value that passes.
    pub bounds: (f64, f64),
    /// Whether it does.
    pub holds: bool,
}

/// What kind of path answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Everything on the device.
    Local,
    /// The image goes to the tail as a JPEG.
    Jpeg,
    /// The image goes to the tail as a WebP.
    Webp,
    /// Features go to the tail, entropy-coded.
    Split,
    /// Features go to the tail, eight bits a symbol.
    Raw,
}

impl Group {
    /// In the order of legends.
    pub const ALL: [Group; 5] = [Group::Split, Group::Raw, Group::Jpeg, Group::Webp, Group::Local];

    /// As a reader calls it.
    pub fn title(self) -> &'static str {
        match self {
            Group::Local => "local",
            Group::Jpeg => "offload, JPEG",
            Group::Webp => "offload, WebP",
            Group::Split => "split",
            Group::Raw => "split, raw",
        }
    }

    /// Whether the image itself is sent.
    pub fn is_offload(self) -> bool {
        matches!(self, Group::Jpeg | Group::Webp)
    }
}

/// A path and its setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// For example `split 1`, `JPEG 50`.
    pub name: String,
    /// Which path.
    pub group: Group,
    /// Level or quality: what stands beside its point in a plot.
    pub setting: String,
    /// The flags of `narrows-head run` that make it; none for what this program runs itself.
    pub flags: Vec<String>,
}

/// How right a variant is, and how many bytes that takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Name of the task.
    pub task: String,
    /// Name of the variant; [`UNSPLIT`] is the network in one piece on the same pixels.
    pub variant: String,
    /// What is measured.
    pub metric: Metric,
    /// Photos or frames.
    pub count: usize,
    /// 0 to 1.
    pub value: f64,
    /// 95 % confidence interval of `value`.
    pub interval: (f64, f64),
    /// Points (hundredths) below the unsplit network; negative is above.
    pub drop: f64,
    /// 95 % confidence interval of `drop`, resampling the same photos for both.
    pub drop_interval: (f64, f64),
    /// Mean bytes of a packet or an image file on these photos; `None` where nothing is sent.
    pub bytes: Option<f64>,
}

/// Name of the network in one piece in [`Accuracy::variant`].
pub const UNSPLIT: &str = "unsplit";

/// What an accuracy measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of photos whose most probable class is the labelled one. Interval: Wilson.
    Top1,
    /// Mean intersection over union with the labels. Interval: bootstrap over frames.
    MeanIou,
    /// No labels were given: share of photos with the unsplit network's class. Interval: Wilson.
    Agreement,
    /// No labels were given: mean intersection over union with the unsplit network's map. Interval: bootstrap.
    MapAgreement,
}

impl Metric {
    /// For axes and headings.
    pub fn title(self) -> &'static str {
        match self {
            Metric::Top1 => "top-1",
            Metric::MeanIou => "mIoU",
            Metric::Agreement => "same top-1 as the unsplit network",
            Metric::MapAgreement => "mIoU with the unsplit network's map",
        }
    }
}

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
    /// Name of the link; [`NO_LINK`] where nothing is sent.
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
    /// 95 % confidence interval of the median, resampling turns.
    pub p50_interval: (f64, f64),
    /// The stages of `total`, by the names of [`STAGES`].
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

/// The fastest of those that lose little enough.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Winner {
    /// Name of the link.
    pub link: String,
    /// Name of the task.
    pub task: String,
    /// Points that it may lose to the unsplit network.
    pub most_lost: f64,
    /// The fastest one; `None` if all lose more.
    pub best: Option<Place>,
    /// The fastest one of every other path that loses little enough, fastest first.
    pub others: Vec<Place>,
}

/// A variant and its median.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Name of the variant.
    pub variant: String,
    /// Median of the total, in milliseconds.
    pub p50: f64,
    /// Points lost.
    pub drop: f64,
}

/// How splitting compares with sending the image, at the fastest level that loses at most two points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Name of the link.
    pub link: String,
    /// Name of the task.
    pub task: String,
    /// The split.
    pub split: Place,
    /// The fastest offload that is at least as accurate.
    pub offload: Option<Place>,
    /// The offload's median over the split's.
    pub ratio: Option<f64>,
    /// The ratio that is asked for on a link of this rate; `None` above LTE's.
    pub wanted: Option<f64>,
    /// Whether it is reached at the accuracy asked for.
    pub holds: bool,
    /// One or two sentences in words.
    pub why: String,
}

/// One stretch of frames through one variant over one link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// The round it belongs to, from 0.
    pub round: usize,
    /// Name of the link.
    pub link: String,
    /// Name of the variant.
    pub variant: String,
    /// Name of the task.
    pub task: String,
    /// Frames under way at once.
    pub in_flight: usize,
    /// Frames asked for, those to warm up included.
    pub frames: usize,
    /// Seconds from the start of the run.
    pub begun: f64,
    /// Seconds.
    pub lasted: f64,
    /// Bytes on the wire up and down from the first answer to the last, all headers included.
    pub wire: Option<(u64, u64)>,
    /// Load average of one minute when it began.
    pub load: Option<f64>,
    /// Clock of the fastest core in MHz when it ended.
    pub mhz: Option<f64>,
    /// Joules of the turn, gross and net; `None` where no sensor was read.
    pub joules: Option<(f64, f64)>,
}
