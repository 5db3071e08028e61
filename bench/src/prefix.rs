//! What a packet is still worth when it is cut where a group of channels ends (codec/FORMAT.md, section 4.1).

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{
    confusion::Confusion,
    evaluate::{argmax, bar, pixelwise_argmax},
    halves::Halves,
    photos,
    stats::mean,
};

/// What is left with the first groups of every packet.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Cut {
    groups: usize,
    channels: usize,
    bytes: f64,
    top1: f64,
    /// With the unsplit network.
    agreement: f64,
    frame_bytes: f64,
    miou: f64,
}

pub(crate) const COLUMNS: [&str; 7] =
    ["groups", "channels", "bytes", "top1", "agreement", "frame_bytes", "miou"];

impl Cut {
    /// Its values under [`COLUMNS`].
    pub(crate) fn row(&self) -> Vec<String> {
        vec![
            self.groups.to_string(),
            self.channels.to_string(),
            format!("{:.0}", self.bytes),
            format!("{:.3}", self.top1),
            format!("{:.3}", self.agreement),
            format!("{:.0}", self.frame_bytes),
            format!("{:.4}", self.miou),
        ]
    }
}

/// A row for each group border, the whole packet last. At most `take` photos and frames are looked at.
pub(crate) fn measure(
    halves: &mut Halves,
    level: usize,
    (photos, labels, camvid): (&Path, &Path, &Path),
    take: usize,
) -> Result<Vec<Cut>> {
    let channels = halves.channels_by_group();
    let cut = |(index, &channels): (usize, &usize)| Cut { groups: index + 1, channels, ..Cut::default() };
    let mut cuts: Vec<Cut> = channels.iter().enumerate().map(cut).collect();
    classify(halves, level, photos, labels, take, &mut cuts)?;
    segment(halves, level, camvid, take, &mut cuts)?;
    Ok(cuts)
}

fn classify(
    halves: &mut Halves,
    level: usize,
    tar: &Path,
    labels: &Path,
    take: usize,
    cuts: &mut [Cut],
) -> Result<()> {
    let mut photos = photos::labelled(tar, labels)?;
    photos.truncate(take);
    let task = halves.task("classify")?;
    let mut bytes = vec![Vec::new(); cuts.len()];
    let bar = bar("classify", photos.len());
    for photo in &photos {
        let image = image::load_from_memory(&photo.bytes).with_context(|| photo.name.clone())?.into_rgb8();
        let (prefixes, pixels, size) = halves.prefixes(task, level, &image)?;
        ensure!(prefixes.len() == cuts.len(), "{}: the packet has {} groups", photo.name, prefixes.len());
        let unsplit = argmax(&halves.unsplit(task, &pixels, size)?);
        for ((cut, bytes), prefix) in cuts.iter_mut().zip(&mut bytes).zip(prefixes) {
            let said = argmax(&prefix.output);
            bytes.push(prefix.packet as f64);
            cut.top1 += f64::from(u8::from(said == photo.class)) / photos.len() as f64;
            cut.agreement += f64::from(u8::from(said == unsplit)) / photos.len() as f64;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    cuts.iter_mut().zip(&bytes).for_each(|(cut, bytes)| cut.bytes = mean(bytes));
    Ok(())
}

fn segment(halves: &mut Halves, level: usize, tar: &Path, take: usize, cuts: &mut [Cut]) -> Result<()> {
    let scenes = photos::scenes(tar)?;
    // Spread over the tar, whose frames are in the order of their films.
    let every = scenes.len().div_ceil(take).max(1);
    let task = halves.task("segment")?;
    let classes = halves.classes(task);
    let mut counts: Vec<_> = cuts.iter().map(|_| Confusion::new(classes)).collect();
    let mut bytes = vec![Vec::new(); cuts.len()];
    let bar = bar("segment", scenes.len().div_ceil(every));
    for scene in scenes.step_by(every) {
        let scene = scene?;
        let (prefixes, _, (width, height)) = halves.prefixes(task, level, &scene.image)?;
        ensure!(prefixes.len() == cuts.len(), "{}: the packet has {} groups", scene.name, prefixes.len());
        for ((counts, bytes), prefix) in counts.iter_mut().zip(&mut bytes).zip(prefixes) {
            bytes.push(prefix.packet as f64);
            let map = pixelwise_argmax(&prefix.output, classes);
            for (x, y, truth) in scene.classes.enumerate_pixels() {
                let column = x as usize * width / scene.classes.width() as usize;
                let row = y as usize * height / scene.classes.height() as usize;
                counts.add(usize::from(truth.0[0]), map[row * width + column]);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    for ((cut, counts), bytes) in cuts.iter_mut().zip(&counts).zip(&bytes) {
        (cut.miou, cut.frame_bytes) = (counts.mean_iou(), mean(bytes));
    }
    Ok(())
}

pub(crate) fn print(cuts: &[Cut]) {
    println!("\nPackets cut where a group of channels ends");
    println!("  groups  channels  bytes, photo     top-1  agreement  bytes, frame      mIoU");
    for cut in cuts {
        println!(
            "  {:6}  {:8}  {:12.0}  {:6.1} %  {:7.1} %  {:12.0}    {:.4}",
            cut.groups,
            cut.channels,
            cut.bytes,
            100.0 * cut.top1,
            100.0 * cut.agreement,
            cut.frame_bytes,
            cut.miou
        );
    }
}
