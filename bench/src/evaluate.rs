//! `narrows-bench evaluate`: accuracy and bytes of the shipped path, without a network between the halves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use narrows_models::{Bundle, Digest, Parts};
use narrows_tail::net::Runtime;
use serde::Serialize;

use crate::{
    confusion::Confusion,
    halves::{Halves, jpeg},
    local::{self, Local},
    photos, prefix, reads,
    stats::{mean, quantile},
};

/// Qualities of the JPEG baseline.
const QUALITIES: [u8; 6] = [10, 20, 30, 50, 75, 90];

/// What to evaluate, and on what.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  narrows-bench evaluate --bundle models/bundles/lite2 --imagenet imagenet500.tar \\\n    \
    --labels imagenet500.csv --camvid camvid-val.tar --all-levels --json evaluate.json"
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
    /// Tar of road scenes: ID.jpg with ID.png
    #[arg(long, value_name = "TAR")]
    pub camvid: PathBuf,
    /// Where the report goes
    #[arg(long, value_name = "FILE")]
    pub json: PathBuf,
    /// A row for each level that was measured, or with --groups for each border, as a table too
    #[arg(long, value_name = "CSV")]
    pub csv: Option<PathBuf>,
    /// Rate level [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub level: Option<usize>,
    /// Every rate level too, each as one entry of the report's `levels`
    #[arg(long)]
    pub all_levels: bool,
    /// Measure packets cut where each group of channels ends, instead of whole ones beside JPEG
    #[arg(long)]
    pub groups: bool,
    /// Append to this CSV that the photos were read, by which bundle and when
    #[arg(long, value_name = "CSV")]
    pub log: Option<PathBuf>,
    /// With --groups: look at so many photos and frames at most [default: all]
    #[arg(long, value_name = "N", requires = "groups")]
    pub take: Option<usize>,
    /// ONNX Runtime's shared library [default: NARROWS_ORT, then .runtime/libonnxruntime.so]
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    classify: Classify,
    segment: Segment,
    head: Head,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<Local>,
    level: usize,
    bundle: String,
    /// With `--all-levels`: every level, finest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    levels: Vec<Level>,
}

/// What both tasks make of one rate level.
#[derive(Serialize)]
struct Level {
    level: usize,
    classify: Classes,
    segment: Segment,
}

#[derive(Serialize)]
struct Groups {
    groups: Vec<prefix::Cut>,
    level: usize,
    bundle: String,
}

#[derive(Serialize)]
struct Classify {
    #[serde(flatten)]
    split: Classes,
    jpeg: Vec<Jpeg>,
}

#[derive(Clone, Serialize)]
struct Classes {
    images: usize,
    top1_split: f64,
    top1_unsplit: f64,
    agreement: f64,
    bytes_mean: f64,
    bytes_p95: f64,
}

#[derive(Serialize)]
struct Jpeg {
    quality: u8,
    bytes_mean: f64,
    top1: f64,
}

#[derive(Clone, Serialize)]
struct Segment {
    frames: usize,
    miou_split: f64,
    miou_unsplit: f64,
    bytes_mean: f64,
}

#[derive(Serialize)]
struct Head {
    mmac: f64,
    bytes: u64,
}

impl Evaluate {
    /// Runs every photo and frame through both paths, prints a table and writes the report.
    pub fn run(&self) -> Result<()> {
        let bundle = Bundle::open(&self.bundle, Parts::All)?;
        let level = self.level.unwrap_or(bundle.default_level());
        let count = bundle.levels().len();
        ensure!(level < count, "--level {level}: the bundle has levels 0 to {}", count - 1);
        // The level that the report is about stands first.
        let others = (0..count).filter(|&other| self.all_levels && other != level);
        let levels: Vec<usize> = std::iter::once(level).chain(others).collect();
        // One for everything: a process may have no second.
        let runtime = Runtime::open(self.runtime.as_deref())?;
        let mut halves = Halves::open(&bundle, &runtime)?;
        if let Some(log) = &self.log {
            let reader =
                if self.groups { "narrows-bench evaluate --groups" } else { "narrows-bench evaluate" };
            reads::note(log, reader, &bundle, &self.imagenet)?;
        }
        if self.groups {
            ensure!(self.take != Some(0), "--take 0 measures nothing");
            let data = (&*self.imagenet, &*self.labels, &*self.camvid);
            let cuts = prefix::measure(&mut halves, level, data, self.take.unwrap_or(usize::MAX))?;
            prefix::print(&cuts);
            self.tabulate(&prefix::COLUMNS, cuts.iter().map(prefix::Cut::row))?;
            return self.write(&Groups { groups: cuts, level, bundle: bundle.digest().to_string() });
        }
        let (classes, jpeg) = classify(&mut halves, &levels, &self.imagenet, &self.labels)?;
        let segments = segment(&mut halves, &levels, &self.camvid)?;
        let mut report = Report {
            classify: Classify { split: classes[0].clone(), jpeg },
            segment: segments[0].clone(),
            head: Head {
                mmac: halves.head_macs(0) as f64 / 1e6,
                bytes: bundle.path(&bundle.head().file).metadata().context("the head's size")?.len(),
            },
            local: local::measure(&bundle, &runtime, &self.imagenet, &self.labels)?,
            level,
            bundle: bundle.digest().to_string(),
            levels: Vec::new(),
        };
        if self.all_levels {
            let measured = levels.into_iter().zip(classes).zip(segments);
            report.levels.extend(measured.map(|((level, classify), segment)| Level {
                level,
                classify,
                segment,
            }));
            report.levels.sort_by_key(|level| level.level);
        }
        print(&report, bundle.digest());
        match &report.levels[..] {
            [] => self.tabulate(&COLUMNS, [row(level, &report.classify.split, &report.segment)])?,
            levels => {
                let rows = levels.iter().map(|found| row(found.level, &found.classify, &found.segment));
                self.tabulate(&COLUMNS, rows)?;
            }
        }
        self.write(&report)
    }

    /// Writes the table of `--csv`, if one was asked for.
    fn tabulate(&self, columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<()> {
        let Some(path) = &self.csv else { return Ok(()) };
        let context = || format!("{}: cannot be written", path.display());
        let mut writer = csv::Writer::from_path(path).with_context(context)?;
        writer.write_record(columns).with_context(context)?;
        for row in rows {
            writer.write_record(row).with_context(context)?;
        }
        writer.flush().with_context(context)
    }

    fn write(&self, report: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(report)? + "\n";
        std::fs::write(&self.json, text)
            .with_context(|| format!("{}: cannot be written", self.json.display()))
    }
}

const COLUMNS: [&str; 9] = [
    "level",
    "bytes",
    "bytes_p95",
    "top1_split",
    "top1_unsplit",
    "agreement",
    "frame_bytes",
    "miou_split",
    "miou_unsplit",
];

fn row(level: usize, classes: &Classes, frames: &Segment) -> Vec<String> {
    let share = |share: f64| format!("{share:.4}");
    vec![
        level.to_string(),
        format!("{:.1}", classes.bytes_mean),
        format!("{:.0}", classes.bytes_p95),
        share(classes.top1_split),
        share(classes.top1_unsplit),
        share(classes.agreement),
        format!("{:.1}", frames.bytes_mean),
        share(frames.miou_split),
        share(frames.miou_unsplit),
    ]
}

/// The split at each of `levels`, and JPEG at each of [`QUALITIES`].
fn classify(
    halves: &mut Halves,
    levels: &[usize],
    tar: &Path,
    labels: &Path,
) -> Result<(Vec<Classes>, Vec<Jpeg>)> {
    let photos = photos::labelled(tar, labels)?;
    let mut bytes = vec![Vec::new(); levels.len()];
    let mut hits = vec![0usize; levels.len()];
    let mut agreed = vec![0usize; levels.len()];
    // The pixels as they are, then out of a JPEG of each quality.
    let mut baseline_hits = [0usize; 1 + QUALITIES.len()];
    let mut jpeg_bytes = [0usize; QUALITIES.len()];
    let task = halves.task("classify")?;
    let bar = bar("classify", photos.len());
    for photo in &photos {
        let image = image::load_from_memory(&photo.bytes).with_context(|| photo.name.clone())?.into_rgb8();
        let splits = levels.iter().map(|&level| halves.split(task, level, &image));
        let splits = splits.collect::<Result<Vec<_>>>()?;
        let (pixels, size) = (&splits[0].pixels, splits[0].size);
        let mut batch = pixels.clone();
        for (quality, total) in QUALITIES.iter().zip(&mut jpeg_bytes) {
            let file = jpeg(pixels, size.0, size.1, *quality)?;
            *total += file.len();
            batch.extend(image::load_from_memory(&file)?.into_rgb8().into_raw());
        }
        let unsplit = halves.unsplit(task, &batch, size)?;
        let said: Vec<usize> = unsplit.chunks_exact(splits[0].output.len()).map(argmax).collect();
        for (hits, said) in baseline_hits.iter_mut().zip(&said) {
            *hits += usize::from(*said == photo.class);
        }
        for (i, split) in splits.iter().enumerate() {
            let class = argmax(&split.output);
            bytes[i].push(split.packet as f64);
            hits[i] += usize::from(class == photo.class);
            agreed[i] += usize::from(class == said[0]);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let share = |count: usize| count as f64 / photos.len() as f64;
    let classes = (0..levels.len()).map(|i| Classes {
        images: photos.len(),
        top1_split: share(hits[i]),
        top1_unsplit: share(baseline_hits[0]),
        agreement: share(agreed[i]),
        bytes_mean: mean(&bytes[i]),
        bytes_p95: quantile(&bytes[i], 0.95),
    });
    let jpeg = QUALITIES.iter().enumerate().map(|(i, &quality)| Jpeg {
        quality,
        bytes_mean: share(jpeg_bytes[i]),
        top1: share(baseline_hits[1 + i]),
    });
    Ok((classes.collect(), jpeg.collect()))
}

/// The split at each of `levels`.
fn segment(halves: &mut Halves, levels: &[usize], tar: &Path) -> Result<Vec<Segment>> {
    let scenes = photos::scenes(tar)?;
    let frames = scenes.len();
    let task = halves.task("segment")?;
    let classes = halves.classes(task);
    let counts = || (0..levels.len()).map(|_| Confusion::new(classes)).collect::<Vec<_>>();
    let (mut split_counts, mut unsplit_counts) = (counts(), Confusion::new(classes));
    let mut bytes = vec![Vec::new(); levels.len()];
    let bar = bar("segment", frames);
    for scene in scenes {
        let scene = scene?;
        for (i, &level) in levels.iter().enumerate() {
            let split = halves.split(task, level, &scene.image)?;
            bytes[i].push(split.packet as f64);
            let map = pixelwise_argmax(&split.output, classes);
            split_counts[i].add_frame(&scene.classes, &map, split.size);
            if i == 0 {
                let unsplit = halves.unsplit(task, &split.pixels, split.size)?;
                unsplit_counts.add_frame(&scene.classes, &pixelwise_argmax(&unsplit, classes), split.size);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let segments = split_counts.iter().zip(&bytes).map(|(counts, bytes)| Segment {
        frames,
        miou_split: counts.mean_iou(),
        miou_unsplit: unsplit_counts.mean_iou(),
        bytes_mean: mean(bytes),
    });
    Ok(segments.collect())
}

/// The index of the largest value, the first of equals.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// The class of every pixel from logits [classes, height, width].
pub fn pixelwise_argmax(logits: &[f32], classes: usize) -> Vec<usize> {
    let plane = logits.len() / classes;
    let mut best = logits[..plane].to_vec();
    let mut map = vec![0; plane];
    for (class, logits) in logits.chunks_exact(plane).enumerate().skip(1) {
        for ((best, map), logit) in best.iter_mut().zip(&mut map).zip(logits) {
            if logit > best {
                (*best, *map) = (*logit, class);
            }
        }
    }
    map
}

fn print(report: &Report, bundle: Digest) {
    let percent = |share: f64| format!("{:5.1} %", 100.0 * share);
    let c = &report.classify;
    println!(
        "bundle {}  level {}  head {:.1} MMAC, {} bytes",
        bundle.short(),
        report.level,
        report.head.mmac,
        report.head.bytes
    );
    println!("\nclassify, {} photos           bytes     top-1", c.split.images);
    println!("  unsplit                            {}", percent(c.split.top1_unsplit));
    let classes = |name: &str, split: &Classes| {
        println!(
            "  {name:18}  {:11.0}    {}   drop {:.1} points, agreement {}, p95 {:.0} bytes",
            split.bytes_mean,
            percent(split.top1_split),
            100.0 * (split.top1_unsplit - split.top1_split),
            percent(split.agreement),
            split.bytes_p95,
        );
    };
    match &report.levels[..] {
        [] => classes("split", &c.split),
        levels => {
            levels.iter().for_each(|level| classes(&format!("split, level {}", level.level), &level.classify))
        }
    }
    for jpeg in &c.jpeg {
        println!("  JPEG quality {:2}     {:11.0}    {}", jpeg.quality, jpeg.bytes_mean, percent(jpeg.top1));
    }
    if let Some(local) = &report.local {
        println!(
            "  local, {:.0} MMAC              0    {}{}",
            local.mmac,
            percent(local.top1),
            local.beside()
        );
    }
    let s = &report.segment;
    println!("\nsegment, {} frames            bytes      mIoU", s.frames);
    println!("  unsplit                             {:.4}", s.miou_unsplit);
    let segment = |name: &str, split: &Segment| {
        println!(
            "  {name:18}  {:11.0}     {:.4}   drop {:.4}",
            split.bytes_mean,
            split.miou_split,
            split.miou_unsplit - split.miou_split
        );
    };
    match &report.levels[..] {
        [] => segment("split", s),
        levels => {
            levels.iter().for_each(|level| segment(&format!("split, level {}", level.level), &level.segment))
        }
    }
}

pub(crate) fn bar(what: &'static str, len: usize) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:9} {wide_bar} {pos}/{len} {eta}").expect("a fixed template");
    ProgressBar::new(len as u64).with_style(style).with_message(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_wins_and_the_first_of_equals() {
        assert_eq!(argmax(&[0.0, 2.0, 2.0, -1.0]), 1);
        // Two classes, three pixels.
        assert_eq!(pixelwise_argmax(&[1.0, 0.0, 3.0, 0.5, 2.0, 3.0], 2), [0, 1, 0]);
    }
}
