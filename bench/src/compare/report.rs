//! What a comparison is made of: the rows that were measured and the report that is drawn from them.
//!
//! The JSON form is described in `bench/REPORT.md`.

mod cell;
mod rows;
mod verdict;

use anyhow::{Result, ensure};
pub use cell::{Cell, Energy, Floor, Percentiles, Pipelined, Radio};
pub use rows::{Row, Run, STAGES};
use serde::{Deserialize, Serialize};
pub use verdict::{Claim, Lack, Pair, Place, Winner};

/// Version of report.json; raised when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// A whole comparison: report.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`] at the time of writing.
    pub schema: u32,
    /// Where, when and with what it was measured.
    pub provenance: Provenance,
    /// The links, fastest first.
    pub links: Vec<LinkSummary>,
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
    pub runs: Vec<Run>,
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

    /// Puts the cells in the order of tasks, links and variants: they come in that of their first runs.
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
pub struct Provenance {
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
    /// Seed of the order of runs, of the links and of the resampling.
    pub seed: u64,
    /// How often every cell had its run.
    pub rounds: usize,
    /// Why the links' rates were not held against the kernel's own shaping; `None` where they were.
    #[serde(default)]
    pub cross_check_skipped: Option<String>,
    /// Processor, governor and so on, by name, in the order to show.
    pub machine: Vec<(String, String)>,
    /// Which photos, and what stands for the label.
    pub data: Vec<String>,
    /// What the reader must know.
    pub notes: Vec<String>,
}

/// A link of the ladder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkSummary {
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
pub enum Method {
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
    /// The network of `Local` in f32, run by this program: what the head's kernels are held against. It wins nothing.
    Reference,
}

impl Method {
    /// In the order of legends.
    pub const ALL: [Method; 6] =
        [Method::Split, Method::Raw, Method::Jpeg, Method::Webp, Method::Local, Method::Reference];

    /// As a reader calls it.
    pub fn title(self) -> &'static str {
        match self {
            Method::Local => "local",
            Method::Jpeg => "offload, JPEG",
            Method::Webp => "offload, WebP",
            Method::Split => "split",
            Method::Raw => "split, raw",
            Method::Reference => "local, f32 reference",
        }
    }

    /// Whether nothing is sent.
    pub fn is_local(self) -> bool {
        matches!(self, Method::Local | Method::Reference)
    }

    /// Whether the image itself is sent.
    pub fn is_offload(self) -> bool {
        matches!(self, Method::Jpeg | Method::Webp)
    }
}

/// A path and its setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// For example `split 1`, `JPEG 50`.
    pub name: String,
    /// Which path.
    pub group: Method,
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
