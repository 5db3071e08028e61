//! `narrows-bench evaluate`: accuracy and bytes of the shipped path, without a network between the halves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use narrows_models::{Bundle, Digest, Parts};
use serde::Serialize;

use crate::{
    confusion::Confusion,
    halves::{Halves, jpeg},
    photos, prefix,
    stats::{mean, quantile},
};

/// Qualities of the JPEG baseline.
const QUALITIES: [u8; 6] = [10, 20, 30, 50, 75, 90];

/// What to evaluate, and on what.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  narrows-bench evaluate --bundle models/bundles/lite2 --imagenet imagenet500.tar \\\n    \
    --labels imagenet500.csv --camvid camvid-val.tar --json evaluate.json"
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
    /// Rate level [default: the bundle's]
    #[arg(long, value_name = "N")]
    pub level: Option<usize>,
    /// Measure packets cut where each group of channels ends, instead of whole ones beside JPEG
    #[arg(long)]
    pub groups: bool,
    /// With --groups: look at so many photos and frames at most
    #[arg(long, value_name = "N", requires = "groups", default_value_t = usize::MAX)]
    pub take: usize,
    /// ONNX Runtime's shared library [default: NARROWS_ORT, then .runtime/libonnxruntime.so]
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    classify: Classify,
    segment: Segment,
    head: Head,
    level: usize,
    bundle: String,
}

#[derive(Serialize)]
struct Groups {
    groups: Vec<prefix::Cut>,
    level: usize,
    bundle: String,
}

#[derive(Serialize)]
struct Classify {
    images: usize,
    top1_split: f64,
    top1_unsplit: f64,
    agreement: f64,
    bytes_mean: f64,
    bytes_p95: f64,
    jpeg: Vec<Jpeg>,
}

#[derive(Serialize)]
struct Jpeg {
    quality: u8,
    bytes_mean: f64,
    top1: f64,
}

#[derive(Serialize)]
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
        let mut halves = Halves::open(&bundle, self.runtime.as_deref())?;
        if self.groups {
            ensure!(self.take > 0, "--take 0 measures nothing");
            let data = (&*self.imagenet, &*self.labels, &*self.camvid);
            let cuts = prefix::measure(&mut halves, level, data, self.take)?;
            prefix::print(&cuts);
            return self.write(&Groups { groups: cuts, level, bundle: bundle.digest().to_string() });
        }
        let report = Report {
            classify: classify(&mut halves, level, &self.imagenet, &self.labels)?,
            segment: segment(&mut halves, level, &self.camvid)?,
            head: Head {
                mmac: halves.head_macs(0) as f64 / 1e6,
                bytes: bundle.path(&bundle.head().file).metadata().context("the head's size")?.len(),
            },
            level,
            bundle: bundle.digest().to_string(),
        };
        print(&report, bundle.digest());
        self.write(&report)
    }

    fn write(&self, report: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(report)? + "\n";
        std::fs::write(&self.json, text)
            .with_context(|| format!("{}: cannot be written", self.json.display()))
    }
}

fn classify(halves: &mut Halves, level: usize, tar: &Path, labels: &Path) -> Result<Classify> {
    let photos = photos::labelled(tar, labels)?;
    let mut bytes = Vec::new();
    let mut hits = [0usize; 2 + QUALITIES.len()];
    let mut agreed = 0;
    let mut jpeg_bytes = [0usize; QUALITIES.len()];
    let task = halves.task("classify")?;
    let bar = bar("classify", photos.len());
    for photo in &photos {
        let image = image::load_from_memory(&photo.bytes).with_context(|| photo.name.clone())?.into_rgb8();
        let split = halves.split(task, level, &image)?;
        bytes.push(split.packet as f64);
        // One batch for the baselines: the pixels as they are, then out of a JPEG of each quality.
        let (width, height) = split.size;
        let mut batch = split.pixels.clone();
        for (quality, total) in QUALITIES.iter().zip(&mut jpeg_bytes) {
            let file = jpeg(&split.pixels, width, height, *quality)?;
            *total += file.len();
            batch.extend(image::load_from_memory(&file)?.into_rgb8().into_raw());
        }
        let unsplit = halves.unsplit(task, &batch, split.size)?;
        let said: Vec<usize> = std::iter::once(&split.output[..])
            .chain(unsplit.chunks_exact(split.output.len()))
            .map(argmax)
            .collect();
        agreed += usize::from(said[0] == said[1]);
        for (hits, said) in hits.iter_mut().zip(&said) {
            *hits += usize::from(*said == photo.class);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let share = |count: usize| count as f64 / photos.len() as f64;
    let jpeg = QUALITIES.iter().enumerate().map(|(i, &quality)| Jpeg {
        quality,
        bytes_mean: share(jpeg_bytes[i]),
        top1: share(hits[2 + i]),
    });
    Ok(Classify {
        images: photos.len(),
        top1_split: share(hits[0]),
        top1_unsplit: share(hits[1]),
        agreement: share(agreed),
        bytes_mean: mean(&bytes),
        bytes_p95: quantile(&bytes, 0.95),
        jpeg: jpeg.collect(),
    })
}

fn segment(halves: &mut Halves, level: usize, tar: &Path) -> Result<Segment> {
    let scenes = photos::scenes(tar)?;
    let frames = scenes.len();
    let task = halves.task("segment")?;
    let classes = halves.classes(task);
    let (mut split_counts, mut unsplit_counts) = (Confusion::new(classes), Confusion::new(classes));
    let mut bytes = Vec::new();
    let bar = bar("segment", frames);
    for scene in scenes {
        let scene = scene?;
        let split = halves.split(task, level, &scene.image)?;
        bytes.push(split.packet as f64);
        let unsplit = halves.unsplit(task, &split.pixels, split.size)?;
        let (width, height) = split.size;
        for (counts, output) in [(&mut split_counts, &split.output), (&mut unsplit_counts, &unsplit)] {
            let map = pixelwise_argmax(output, classes);
            for (x, y, truth) in scene.classes.enumerate_pixels() {
                // The nearest pixel of the answer, should the frame not have the answer's size.
                let column = x as usize * width / scene.classes.width() as usize;
                let row = y as usize * height / scene.classes.height() as usize;
                counts.add(usize::from(truth.0[0]), map[row * width + column]);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Segment {
        frames,
        miou_split: split_counts.mean_iou(),
        miou_unsplit: unsplit_counts.mean_iou(),
        bytes_mean: mean(&bytes),
    })
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
pub(crate) fn pixelwise_argmax(logits: &[f32], classes: usize) -> Vec<usize> {
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
    println!("\nclassify, {} photos           bytes     top-1", c.images);
    println!("  unsplit                            {}", percent(c.top1_unsplit));
    println!(
        "  split               {:11.0}    {}   drop {:.1} points, agreement {}, p95 {:.0} bytes",
        c.bytes_mean,
        percent(c.top1_split),
        100.0 * (c.top1_unsplit - c.top1_split),
        percent(c.agreement),
        c.bytes_p95,
    );
    for jpeg in &c.jpeg {
        println!("  JPEG quality {:2}     {:11.0}    {}", jpeg.quality, jpeg.bytes_mean, percent(jpeg.top1));
    }
    let s = &report.segment;
    println!("\nsegment, {} frames            bytes      mIoU", s.frames);
    println!("  unsplit                             {:.4}", s.miou_unsplit);
    println!(
        "  split               {:11.0}     {:.4}   drop {:.4}",
        s.bytes_mean,
        s.miou_split,
        s.miou_unsplit - s.miou_split
    );
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
