//! Accuracy of the bundle's local network, which answers on the device without a server.

use anyhow::{Context, Result, ensure};
use narrows_head::Local;
use narrows_models::Bundle;
use narrows_tail::engine::Runtime;
use serde::Serialize;

use crate::{data::Photo, local_f32::LocalF32, progress::bar, scores::argmax, stats::quantile};

/// Figures of the local network.
#[derive(Debug, Serialize)]
pub(crate) struct LocalAccuracy {
    /// Number of photos.
    images: usize,
    /// Share of photos whose most probable class is the label.
    pub(crate) top1: f64,
    /// The same of the f32 network that the int8 one was made of, if the bundle brings it.
    #[serde(skip_serializing_if = "Option::is_none")]
    top1_f32: Option<f64>,
    /// Share of photos for which the int8 and the f32 network name the same class.
    #[serde(skip_serializing_if = "Option::is_none")]
    agreement: Option<f64>,
    /// Bytes sent per photo.
    bytes: usize,
    /// Millions of multiply-accumulates per photo.
    pub(crate) mmac: f64,
    /// Median milliseconds in the network on one thread.
    ms: f64,
    /// Size of its file.
    file_bytes: u64,
}

impl LocalAccuracy {
    /// The figures beyond its accuracy, for one line of a table.
    pub(crate) fn details(&self) -> String {
        let ms = format!("{:.1} ms", self.ms);
        let Some((f32, agreement)) = self.top1_f32.zip(self.agreement) else { return ms };
        let [f32, drop, agreement] = [f32, f32 - self.top1, agreement].map(|share| 100.0 * share);
        format!("f32 {f32:.1} %, drop {drop:.1} points, agreement {agreement:.1} %   {ms}")
    }
}

/// Classifies `photos` with the local network of `bundle` and with its f32 form, if there is one; `None` for a bundle
/// without a local network.
///
/// # Errors
/// When a photo cannot be decoded or a network fails.
pub(crate) fn measure(bundle: &Bundle, runtime: &Runtime, photos: &[Photo]) -> Result<Option<LocalAccuracy>> {
    let Some(spec) = bundle.local() else { return Ok(None) };
    ensure!(!photos.is_empty(), "there are no photos");
    let mut local = Local::open(bundle)?;
    let mut reference = LocalF32::open(bundle, runtime)?;
    let (mut hits, mut hits_f32, mut agreed, mut times) = (0, 0, 0, Vec::new());
    let bar = bar("local", photos.len());
    for photo in photos {
        let image = image::load_from_memory(&photo.bytes).with_context(|| photo.name.clone())?.into_rgb8();
        let answer = local.answer(&image)?;
        times.push(answer.timings.head.as_secs_f64() * 1e3);
        let class = argmax(&answer.logits);
        hits += usize::from(class == photo.class);
        if let Some(reference) = &mut reference {
            let class_f32 = argmax(&reference.scores(&image)?);
            hits_f32 += usize::from(class_f32 == photo.class);
            agreed += usize::from(class_f32 == class);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let share = |count: usize| count as f64 / photos.len() as f64;
    Ok(Some(LocalAccuracy {
        images: photos.len(),
        top1: share(hits),
        top1_f32: reference.as_ref().map(|_| share(hits_f32)),
        agreement: reference.as_ref().map(|_| share(agreed)),
        bytes: 0,
        mmac: local.macs() as f64 / 1e6,
        ms: quantile(&times, 0.5),
        file_bytes: bundle.path(&spec.file).metadata().context("the local network's size")?.len(),
    }))
}
