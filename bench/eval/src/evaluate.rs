//! The command `narrows-bench evaluate`: accuracy and bytes of the shipped head, codec and tails in one process.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use narrows_codec::GeometryId;
use narrows_models::{Bundle, Digest, Parts};
use narrows_tail::engine::Runtime;
use serde::Serialize;

use crate::{
    accuracy::{self, Classification, Coding, Jpeg, Segmentation},
    data, exit,
    local::{self, LocalAccuracy},
    pipeline::InProcessPipeline,
    read_log,
};

/// What to evaluate, and on what.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  narrows-bench evaluate --bundle models/bundles/lite2 --imagenet imagenet500.tar \\\n    \
    --labels imagenet500.csv --camvid camvid-val.tar --all-levels --json evaluate.json\n\n  \
    What an early exit keeps, costs and gets right at each threshold:\n  \
    narrows-bench evaluate --bundle models/bundles/lite2 --imagenet imagenet500.tar \\\n    \
    --labels imagenet500.csv --exit --csv exit.csv --chart exit.vl.json"
)]
pub struct Evaluate {
    /// The bundle's folder
    #[arg(long, value_name = "DIR")]
    pub bundle: PathBuf,
    /// Tar of labelled photos
    #[arg(long, value_name = "TAR")]
    pub imagenet: PathBuf,
    /// Table of labels with columns `file` and `class`
    #[arg(long, value_name = "CSV")]
    pub labels: PathBuf,
    /// Tar of road scenes: ID.jpg, with the class of every pixel in ID.png; not needed with --exit
    #[arg(long, value_name = "TAR", required_unless_present = "exit")]
    pub camvid: Option<PathBuf>,
    /// Write the report to this file; not needed with --exit
    #[arg(long, value_name = "FILE", required_unless_present = "exit")]
    pub json: Option<PathBuf>,
    /// Write one row per rate level, with --groups per group of channels, or with --exit per threshold, to this file
    #[arg(long, value_name = "CSV")]
    pub csv: Option<PathBuf>,
    /// Rate level [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub level: Option<usize>,
    /// Evaluate every rate level, each as one entry of the report's `levels`
    #[arg(long)]
    pub all_levels: bool,
    /// Evaluate packets that are cut after each group of channels, instead of whole packets and JPEG; with --all-levels at every
    /// level, and print the ladders of both tasks as a manifest has them
    #[arg(long)]
    pub groups: bool,
    /// Evaluate the early exit instead: photos that the local network is sure of stay on the device, the others are sent at
    /// one level; a row for every threshold
    #[arg(long, conflicts_with_all = ["groups", "all_levels", "camvid"])]
    pub exit: bool,
    /// With --exit: write the curve to this file as a Vega-Lite chart
    #[arg(long, value_name = "FILE", requires = "exit")]
    pub chart: Option<PathBuf>,
    /// Append to this CSV which bundle read the photos, and when
    #[arg(long, value_name = "CSV")]
    pub log: Option<PathBuf>,
    /// With --groups: use at most this many photos and frames [default: all]
    #[arg(long, value_name = "N", requires = "groups", value_parser = clap::value_parser!(u32).range(1..))]
    pub take: Option<u32>,
    /// ONNX Runtime's shared library [default: NARROWS_ORT, then .runtime/libonnxruntime.so]
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    classify: ClassifyReport,
    segment: Segmentation,
    head: HeadReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<LocalAccuracy>,
    level: usize,
    bundle: String,
    /// With `--all-levels`: every level, finest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    levels: Vec<LevelReport>,
}

#[derive(Serialize)]
struct ClassifyReport {
    #[serde(flatten)]
    split: Classification,
    jpeg: Vec<Jpeg>,
}

#[derive(Serialize)]
struct HeadReport {
    mmac: f64,
    bytes: u64,
}

/// Both tasks at one rate level.
#[derive(Serialize)]
struct LevelReport {
    level: usize,
    classify: Classification,
    segment: Segmentation,
}

/// A line of `--csv` without `--groups`.
#[derive(Serialize)]
struct LevelRow {
    level: usize,
    bytes: f64,
    bytes_p95: f64,
    top1_split: f64,
    top1_unsplit: f64,
    agreement: f64,
    frame_bytes: f64,
    miou_split: f64,
    miou_unsplit: f64,
}

/// The report of `--groups`.
#[derive(Serialize)]
struct GroupsReport {
    groups: Vec<PrefixReport>,
    bundle: String,
}

/// Both tasks with the first `groups` groups of channels of every packet.
#[derive(Serialize)]
struct PrefixReport {
    level: usize,
    groups: usize,
    channels: usize,
    bytes: f64,
    top1: f64,
    agreement: f64,
    frame_bytes: f64,
    miou: f64,
}

impl Evaluate {
    /// Evaluates the bundle, prints a table and writes the report.
    ///
    /// # Errors
    /// When the bundle, the data or the runtime cannot be used, or a report cannot be written.
    pub fn run(&self) -> Result<()> {
        let bundle = Bundle::open(&self.bundle, Parts::All)?;
        let level = self.level.unwrap_or(bundle.default_level());
        let count = bundle.levels().len();
        ensure!(level < count, "--level {level}: the bundle has levels 0 to {}", count - 1);
        // A process can load ONNX Runtime once.
        let runtime = Runtime::open(self.runtime.as_deref())?;
        let mut pipeline = InProcessPipeline::open(&bundle, &runtime)?;
        if let Some(log) = &self.log {
            let reader = match (self.groups, self.exit) {
                (true, _) => "narrows-bench evaluate --groups",
                (_, true) => "narrows-bench evaluate --exit",
                _ => "narrows-bench evaluate",
            };
            read_log::append_read(log, reader, &bundle, &self.imagenet)?;
        }
        if self.exit {
            return self.run_exit(&mut pipeline, &bundle, level);
        }
        if self.groups {
            let levels = if self.all_levels { 0..count } else { level..level + 1 };
            return self.run_groups(&mut pipeline, &bundle, levels);
        }
        // The level that the report is about comes first.
        let others = (0..count).filter(|&other| self.all_levels && other != level);
        let levels: Vec<usize> = std::iter::once(level).chain(others).collect();
        let coding = Coding::Levels(levels.clone());
        let photos = data::labelled(&self.imagenet, &self.labels)?;
        let (classify, jpeg) = accuracy::classify(&mut pipeline, &coding, &photos)?;
        let segment = accuracy::segment(&mut pipeline, &coding, self.scenes()?, 1)?;
        let measured = levels.into_iter().zip(classify).zip(segment);
        let mut levels: Vec<LevelReport> =
            measured.map(|((level, classify), segment)| LevelReport { level, classify, segment }).collect();
        let mut report = Report {
            classify: ClassifyReport { split: levels[0].classify.clone(), jpeg },
            segment: levels[0].segment.clone(),
            head: HeadReport {
                mmac: pipeline.head_macs(GeometryId(0)) as f64 / 1e6,
                bytes: bundle.path(&bundle.head().file).metadata().context("the head's size")?.len(),
            },
            local: local::measure(&bundle, &runtime, &photos)?,
            level,
            bundle: bundle.digest().to_string(),
            levels: Vec::new(),
        };
        levels.sort_by_key(|level| level.level);
        report.print(bundle.digest(), &levels);
        self.write_csv(&levels.iter().map(LevelReport::row).collect::<Vec<_>>())?;
        if self.all_levels {
            report.levels = levels;
        }
        self.write_json(&report)
    }

    fn run_groups(
        &self,
        pipeline: &mut InProcessPipeline,
        bundle: &Bundle,
        levels: Range<usize>,
    ) -> Result<()> {
        let bundle = bundle.digest().to_string();
        let mut photos = data::labelled(&self.imagenet, &self.labels)?;
        photos.truncate(self.most());
        let levels = levels.map(|level| self.groups_of(pipeline, level, &photos));
        let levels = levels.collect::<Result<Vec<_>>>()?;
        if self.all_levels {
            for (task, bytes, value) in LADDERS {
                println!("\nThe ladder of {task}");
                levels.iter().for_each(|groups| println!("{}", ladder_line(groups, bytes, value)));
            }
        }
        let groups: Vec<PrefixReport> = levels.into_iter().flatten().collect();
        self.write_csv(&groups)?;
        self.write_json(&GroupsReport { groups, bundle })
    }

    /// Measures the packets of one level and prints a table.
    fn groups_of(
        &self,
        pipeline: &mut InProcessPipeline,
        level: usize,
        photos: &[data::Photo],
    ) -> Result<Vec<PrefixReport>> {
        let scenes = self.scenes()?;
        // Spread over the tar, whose frames are in the order of their films.
        let step = scenes.len().div_ceil(self.most()).max(1);
        let coding = Coding::Prefixes(level);
        let (classify, _) = accuracy::classify(pipeline, &coding, photos)?;
        let segment = accuracy::segment(pipeline, &coding, scenes, step)?;
        let measured = pipeline.channels_by_group().into_iter().zip(classify).zip(segment);
        let groups = measured.enumerate().map(|(index, ((channels, classify), segment))| PrefixReport {
            level,
            groups: index + 1,
            channels,
            bytes: classify.bytes_mean,
            top1: classify.top1_split,
            agreement: classify.agreement,
            frame_bytes: segment.bytes_mean,
            miou: segment.miou_split,
        });
        let groups: Vec<PrefixReport> = groups.collect();
        println!("\nPackets of level {level}, cut where a group of channels ends");
        println!("  groups  channels  bytes, photo     top-1  agreement  bytes, frame      mIoU");
        for PrefixReport { groups, channels, bytes, top1, agreement, frame_bytes, miou, .. } in &groups {
            println!(
                "  {groups:6}  {channels:8}  {bytes:12.0}    {top1:.4}     {agreement:.4}  {frame_bytes:12.0}    {miou:.4}"
            );
        }
        Ok(groups)
    }

    fn run_exit(&self, pipeline: &mut InProcessPipeline, bundle: &Bundle, level: usize) -> Result<()> {
        let photos = data::labelled(&self.imagenet, &self.labels)?;
        let report = exit::measure(bundle, pipeline, level, &photos)?;
        report.print();
        self.write_csv(&report.curve)?;
        if let Some(path) = &self.chart {
            write_json(path, &report.chart())?;
        }
        self.write_json(&report)
    }

    /// Most images of `--take`.
    fn most(&self) -> usize {
        self.take.map_or(usize::MAX, |take| take as usize)
    }

    fn scenes(&self) -> Result<data::Scenes> {
        data::scenes(self.camvid.as_ref().context("--camvid is missing")?)
    }

    /// Writes the table of `--csv`, if the flag was given.
    fn write_csv(&self, rows: &[impl Serialize]) -> Result<()> {
        let Some(path) = &self.csv else { return Ok(()) };
        let name = || format!("{}: cannot be written", path.display());
        let mut writer = csv::Writer::from_path(path).with_context(name)?;
        rows.iter().try_for_each(|row| writer.serialize(row)).with_context(name)?;
        writer.flush().with_context(name)
    }

    /// Writes the report of `--json`, if the flag was given.
    fn write_json(&self, report: &impl Serialize) -> Result<()> {
        self.json.as_ref().map_or(Ok(()), |path| write_json(path, report))
    }
}

type Column = fn(&PrefixReport) -> f64;

/// The tasks that have ladders, with the bytes and the value of a packet.
const LADDERS: [(&str, Column, Column); 2] = [
    ("classify", |report| report.bytes, |report| report.agreement),
    ("segment", |report| report.frame_bytes, |report| report.miou),
];

/// A level's line of a task's ladder (BUNDLE.md, section 2). Where one more group gave a lower value, the one before it
/// stands.
fn ladder_line(groups: &[PrefixReport], bytes: Column, value: Column) -> String {
    let mut best = 0.0;
    let (mut sizes, mut values) = (Vec::new(), Vec::new());
    for report in groups {
        best = value(report).max(best);
        sizes.push(format!("{:.0}", bytes(report)));
        values.push(format!("{best:.4}"));
    }
    format!("  {{ bytes = [{}], value = [{}] }},", sizes.join(", "), values.join(", "))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
}

impl LevelReport {
    /// The line of `--csv`.
    fn row(&self) -> LevelRow {
        let (classify, segment) = (&self.classify, &self.segment);
        LevelRow {
            level: self.level,
            bytes: classify.bytes_mean,
            bytes_p95: classify.bytes_p95,
            top1_split: classify.top1_split,
            top1_unsplit: classify.top1_unsplit,
            agreement: classify.agreement,
            frame_bytes: segment.bytes_mean,
            miou_split: segment.miou_split,
            miou_unsplit: segment.miou_unsplit,
        }
    }
}

impl Report {
    /// Prints the report, with one row for each of `levels`.
    fn print(&self, bundle: Digest, levels: &[LevelReport]) {
        let percent = |share: f64| format!("{:5.1} %", 100.0 * share);
        let name = |level: usize| match levels.len() {
            1 => "split".to_owned(),
            _ => format!("split, level {level}"),
        };
        let Report { classify, segment, head, local, level, .. } = self;
        println!(
            "bundle {}  level {level}  head {:.1} MMAC, {} bytes",
            bundle.short(),
            head.mmac,
            head.bytes
        );
        println!("\nclassify, {} photos           bytes     top-1", classify.split.images);
        println!("  unsplit                            {}", percent(classify.split.top1_unsplit));
        for LevelReport { level, classify, .. } in levels {
            println!(
                "  {:18}  {:11.0}    {}   drop {:.1} points, agreement {}, p95 {:.0} bytes",
                name(*level),
                classify.bytes_mean,
                percent(classify.top1_split),
                100.0 * (classify.top1_unsplit - classify.top1_split),
                percent(classify.agreement),
                classify.bytes_p95,
            );
        }
        for Jpeg { quality, bytes_mean, top1 } in &classify.jpeg {
            println!("  JPEG quality {quality:2}     {bytes_mean:11.0}    {}", percent(*top1));
        }
        if let Some(local) = local {
            let top1 = percent(local.top1);
            println!("  local, {:.0} MMAC              0    {top1}   {}", local.mmac, local.details());
        }
        println!("\nsegment, {} frames            bytes      mIoU", segment.frames);
        println!("  unsplit                             {:.4}", segment.miou_unsplit);
        for LevelReport { level, segment, .. } in levels {
            println!(
                "  {:18}  {:11.0}     {:.4}   drop {:.4}",
                name(*level),
                segment.bytes_mean,
                segment.miou_split,
                segment.miou_unsplit - segment.miou_split
            );
        }
    }
}
