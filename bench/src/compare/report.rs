//! The recorded form of a comparison: report.json (described in `bench/REPORT.md`) and the lines of rows.csv.

mod cell;
mod rows;

use anyhow::{Result, ensure};
pub use cell::{Cell, Energy, Floor, Percentiles, Pipelined, Radio};
pub use rows::{Row, Run, STAGES};
use serde::{Deserialize, Serialize};

/// Version of report.json. It is raised when a field changes its meaning or is removed.
pub const SCHEMA: u32 = 3;
/// Value of `link` in cells, rows and runs that send nothing.
pub const NO_LINK: &str = "none";
/// Value of [`Accuracy::variant`] for the unsplit network on the same pixels.
pub const UNSPLIT: &str = "unsplit";

/// A whole comparison: report.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// Where, when and with what it was measured.
    pub provenance: Provenance,
    /// The links, in the order of their file: fastest first.
    pub links: Vec<LinkSummary>,
    /// What was compared.
    pub variants: Vec<Variant>,
    /// Accuracy or agreement, and bytes, of each variant and task. They do not depend on the link.
    pub accuracy: Vec<Accuracy>,
    /// Latency, throughput and energy of each link, variant and task.
    pub cells: Vec<Cell>,
    /// The fastest variants for each link, task and bound on the loss.
    pub fastest: Vec<Fastest>,
    /// The runs of the head, in the order in which they were made.
    pub runs: Vec<Run>,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// When `text` is not a report, or is one of another schema.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let Version { schema } = serde_json::from_str(text)?;
        ensure!(schema == SCHEMA, "report of schema {schema}; this version reads schema {SCHEMA} only");
        Ok(serde_json::from_str(text)?)
    }

    /// Sorts the cells by task, link and variant; they are measured in a random order.
    pub fn sort(&mut self) {
        let tasks: Vec<String> = self.tasks().into_iter().map(str::to_owned).collect();
        self.cells.sort_by_key(|cell| {
            let link = self.links.iter().position(|link| link.name == cell.link);
            (
                tasks.iter().position(|task| *task == cell.task),
                // Cells without a link come last.
                link.unwrap_or(usize::MAX),
                self.variants.iter().position(|variant| variant.name == cell.variant),
            )
        });
    }

    /// The accuracy of a variant at a task.
    #[must_use]
    pub fn accuracy(&self, task: &str, variant: &str) -> Option<&Accuracy> {
        self.accuracy.iter().find(|accuracy| accuracy.task == task && accuracy.variant == variant)
    }

    /// The variant with this name.
    #[must_use]
    pub fn variant(&self, name: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.name == name)
    }

    /// The cells of a link and a task, and those of the task that need no link, by method and then by setting.
    #[must_use]
    pub fn on(&self, link: &str, task: &str) -> Vec<&Cell> {
        let here = |cell: &&Cell| cell.task == task && (cell.link == link || cell.link == NO_LINK);
        let mut cells: Vec<&Cell> = self.cells.iter().filter(here).collect();
        cells.sort_by_key(|cell| {
            let index = self.variants.iter().position(|variant| variant.name == cell.variant);
            (index.map(|index| self.variants[index].method), index)
        });
        cells
    }

    /// Whether anything was measured for a task over a link.
    #[must_use]
    pub fn covers(&self, link: &str, task: &str) -> bool {
        self.cells.iter().any(|cell| cell.link == link && cell.task == task)
    }

    /// The tasks that were measured, in the order of their first appearance.
    #[must_use]
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

/// Where, when and with what a report was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Whether everything that was planned was measured.
    pub complete: bool,
    /// Why it is not complete.
    pub incomplete_because: Option<String>,
    /// Version of narrows.
    pub version: String,
    /// `git describe` of the tree that contains the program.
    pub commit: String,
    /// Name, version and digest of the bundle.
    pub bundle: String,
    /// The command line, without the folders of absolute paths.
    pub command: String,
    /// Start of the run, in seconds since 1970.
    pub started: u64,
    /// Length of the run in seconds.
    pub seconds: f64,
    /// Seed of the order of runs, of the links' losses and of the bootstraps.
    pub seed: u64,
    /// Rounds that were begun.
    pub rounds: usize,
    /// Processor, governor and so on: pairs of name and value, in the order to show.
    pub machine: Vec<(String, String)>,
    /// For each task the photos that were used, and what their answers are compared with.
    pub data: Vec<String>,
    /// Limits of this run that a reader must know.
    pub notes: Vec<String>,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkSummary {
    /// Short name.
    pub name: String,
    /// What it stands for.
    pub about: String,
    /// Bits per second to the server; `None` is unlimited.
    pub up: Option<f64>,
    /// Bits per second to the device; `None` is unlimited.
    pub down: Option<f64>,
    /// Round trip of an empty datagram in milliseconds, with the mean jitter.
    pub rtt_ms: f64,
    /// Share of datagrams that are lost in each direction.
    pub loss: f64,
}

/// How a variant makes its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Features go to the server, entropy-coded.
    Split,
    /// Features go to the server, eight bits a symbol.
    Raw,
    /// The image goes to the server as a JPEG.
    Jpeg,
    /// The image goes to the server as a WebP.
    Webp,
    /// The whole local network on the device, in int8 on the head's kernels.
    Local,
}

impl Method {
    /// The name in tables and legends.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Method::Split => "split",
            Method::Raw => "split, uncoded",
            Method::Jpeg => "JPEG",
            Method::Webp => "WebP",
            Method::Local => "local",
        }
    }
}

/// A method and its setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// For example `split 1`, `JPEG 50`.
    pub name: String,
    /// The method.
    pub method: Method,
    /// Rate level, image quality or number format.
    pub setting: String,
    /// Flags of `narrows-head run` that select it.
    pub flags: Vec<String>,
}

/// How often a variant's answers are right (or agree with the unsplit network's), and its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Name of the task.
    pub task: String,
    /// Name of the variant, or [`UNSPLIT`].
    pub variant: String,
    /// What `value` measures.
    pub metric: Metric,
    /// Photos or frames.
    pub count: usize,
    /// 0 to 1.
    pub value: f64,
    /// 95 % confidence interval of `value`; `None` where there are too few frames for one.
    pub interval: Option<(f64, f64)>,
    /// Loss against the unsplit network on the same photos, in points (hundredths); negative is a gain. `None` for
    /// another network without labels: its disagreement is no loss.
    pub drop: Option<f64>,
    /// 95 % confidence interval of `drop`, from paired answers; `None` where there are too few frames for one.
    pub drop_interval: Option<(f64, f64)>,
    /// Mean bytes of a packet or image file on these photos; `None` where nothing is sent.
    pub bytes: Option<f64>,
}

/// What an [`Accuracy`] measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of photos whose most probable class is the labelled one.
    Top1,
    /// Mean intersection over union with the labels.
    MeanIou,
    /// Without labels: share of photos with the unsplit network's class.
    Agreement,
    /// Without labels: mean intersection over union with the unsplit network's map.
    MapAgreement,
}

impl Metric {
    /// The name in tables and on axes.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Metric::Top1 => "top-1 accuracy",
            Metric::MeanIou => "mIoU",
            Metric::Agreement => "agreement with the unsplit network's class",
            Metric::MapAgreement => "mIoU with the unsplit network's map",
        }
    }

    /// Whether answers are compared with labels.
    #[must_use]
    pub fn has_labels(self) -> bool {
        matches!(self, Metric::Top1 | Metric::MeanIou)
    }
}

/// The fastest variants of a link and a task among those whose measured loss is within a bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fastest {
    /// Name of the link.
    pub link: String,
    /// Name of the task.
    pub task: String,
    /// The bound in points.
    pub most_lost: f64,
    /// The fastest variant of each method within the bound, fastest first.
    pub candidates: Vec<Candidate>,
    /// Why the sample does not show that the first candidate is the fastest within the bound; `None` where it does.
    pub undecided: Option<String>,
}

/// A variant with its median.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Name of the variant.
    pub variant: String,
    /// Median latency in milliseconds.
    pub p50: f64,
    /// Points lost.
    pub drop: f64,
}
