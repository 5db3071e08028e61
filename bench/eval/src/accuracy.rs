//! Accuracy of the split networks on labelled photos and frames, for several codings of each.

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use serde::Serialize;

use crate::{
    confusion::Confusion,
    data::{Photo, Scenes},
    pipeline::{Coded, InProcessPipeline, encode_jpeg},
    progress::bar,
    scores::{argmax, pixelwise_argmax},
    stats::{mean, quantile},
};

/// Qualities of the JPEG baseline.
const QUALITIES: [u8; 6] = [10, 20, 30, 50, 75, 90];

/// The packets that are made of each image.
#[derive(Debug, Clone)]
pub(crate) enum Coding {
    /// One whole packet at each of these rate levels.
    Levels(Vec<usize>),
    /// One packet at this rate level, cut after each of its groups of channels (codec/FORMAT.md, section 4.1).
    Prefixes(usize),
}

impl Coding {
    fn run(&self, pipeline: &mut InProcessPipeline, task: usize, image: &RgbImage) -> Result<Coded> {
        match self {
            Coding::Levels(levels) => pipeline.run_levels(task, levels, image),
            Coding::Prefixes(level) => pipeline.run_prefixes(task, *level, image),
        }
    }
}

/// Classification with one packet of a coding.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Classification {
    pub(crate) images: usize,
    /// Share of photos whose most probable class is the label.
    pub(crate) top1_split: f64,
    pub(crate) top1_unsplit: f64,
    /// Share of photos for which the split and the unsplit network name the same class.
    pub(crate) agreement: f64,
    pub(crate) bytes_mean: f64,
    pub(crate) bytes_p95: f64,
}

/// Classification by the unsplit network of photos that were compressed as JPEG.
#[derive(Debug, Serialize)]
pub(crate) struct Jpeg {
    pub(crate) quality: u8,
    pub(crate) bytes_mean: f64,
    pub(crate) top1: f64,
}

/// Segmentation with one packet of a coding.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Segmentation {
    pub(crate) frames: usize,
    /// Mean intersection over union with the labels.
    pub(crate) miou_split: f64,
    pub(crate) miou_unsplit: f64,
    pub(crate) bytes_mean: f64,
}

/// Classifies `photos` with every packet of `coding`; returns one entry per packet, in the order of the coding, and the
/// JPEG baseline.
///
/// # Errors
/// When the bundle has no task `classify` or no unsplit network for it, or a photo cannot be decoded.
pub(crate) fn classify(
    pipeline: &mut InProcessPipeline,
    coding: &Coding,
    photos: &[Photo],
) -> Result<(Vec<Classification>, Vec<Jpeg>)> {
    let task = pipeline.task("classify")?;
    // Per packet of the coding.
    let (mut bytes, mut hits, mut agreed) = (Vec::<Vec<f64>>::new(), Vec::new(), Vec::new());
    // Of the unsplit network: on the pixels themselves, then on the JPEG of each quality.
    let mut unsplit_hits = [0usize; 1 + QUALITIES.len()];
    let mut jpeg_bytes = [0usize; QUALITIES.len()];
    let bar = bar("classify", photos.len());
    for photo in photos {
        let image = image::load_from_memory(&photo.bytes).with_context(|| photo.name.clone())?.into_rgb8();
        let Coded { pixels, size, packets } = coding.run(pipeline, task, &image)?;
        let mut batch = pixels.clone();
        for (quality, total) in QUALITIES.iter().zip(&mut jpeg_bytes) {
            let file = encode_jpeg(&pixels, size.0, size.1, *quality)?;
            *total += file.len();
            batch.extend(image::load_from_memory(&file)?.into_rgb8().into_raw());
        }
        let unsplit = pipeline.unsplit(task, &batch, size)?;
        let unsplit: Vec<usize> = unsplit.chunks_exact(packets[0].output.len()).map(argmax).collect();
        for (hits, class) in unsplit_hits.iter_mut().zip(&unsplit) {
            *hits += usize::from(*class == photo.class);
        }
        bytes.resize(packets.len(), Vec::new());
        hits.resize(packets.len(), 0);
        agreed.resize(packets.len(), 0);
        for (i, packet) in packets.iter().enumerate() {
            let class = argmax(&packet.output);
            bytes[i].push(packet.bytes as f64);
            hits[i] += usize::from(class == photo.class);
            agreed[i] += usize::from(class == unsplit[0]);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    ensure!(bytes.iter().all(|bytes| bytes.len() == photos.len()), "packets differ in their groups");
    let share = |count: usize| count as f64 / photos.len() as f64;
    let classifications = bytes.iter().zip(hits).zip(agreed).map(|((bytes, hits), agreed)| Classification {
        images: photos.len(),
        top1_split: share(hits),
        top1_unsplit: share(unsplit_hits[0]),
        agreement: share(agreed),
        bytes_mean: mean(bytes),
        bytes_p95: quantile(bytes, 0.95),
    });
    let jpeg = QUALITIES.iter().enumerate().map(|(i, &quality)| Jpeg {
        quality,
        bytes_mean: share(jpeg_bytes[i]),
        top1: share(unsplit_hits[1 + i]),
    });
    Ok((classifications.collect(), jpeg.collect()))
}

/// Segments every `step`-th frame of `scenes` with every packet of `coding`; returns one entry per packet, in the order
/// of the coding.
///
/// # Errors
/// When the bundle has no task `segment` or no unsplit network for it, or a frame cannot be decoded.
pub(crate) fn segment(
    pipeline: &mut InProcessPipeline,
    coding: &Coding,
    scenes: Scenes,
    step: usize,
) -> Result<Vec<Segmentation>> {
    let task = pipeline.task("segment")?;
    let classes = pipeline.classes(task);
    let mut unsplit_counts = Confusion::new(classes);
    // Per packet of the coding.
    let mut split: Vec<(Confusion, Vec<f64>)> = Vec::new();
    let frames = scenes.len().div_ceil(step);
    let bar = bar("segment", frames);
    for scene in scenes.step_by(step) {
        let scene = scene?;
        let Coded { pixels, size, packets } = coding.run(pipeline, task, &scene.image)?;
        let unsplit = pixelwise_argmax(&pipeline.unsplit(task, &pixels, size)?, classes);
        unsplit_counts.add_frame(&scene.classes, &unsplit, size);
        split.resize_with(packets.len(), || (Confusion::new(classes), Vec::new()));
        for ((counts, bytes), packet) in split.iter_mut().zip(&packets) {
            counts.add_frame(&scene.classes, &pixelwise_argmax(&packet.output, classes), size);
            bytes.push(packet.bytes as f64);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    ensure!(split.iter().all(|(_, bytes)| bytes.len() == frames), "packets differ in their groups");
    let segmentations = split.iter().map(|(counts, bytes)| Segmentation {
        frames,
        miou_split: counts.mean_iou(),
        miou_unsplit: unsplit_counts.mean_iou(),
        bytes_mean: mean(bytes),
    });
    Ok(segmentations.collect())
}
