//! The bundle's local network on labelled photos: what a device says without a server.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use narrows_models::Bundle;
use narrows_tail::net::Runtime;
use serde::Serialize;

use crate::{
    evaluate::{argmax, bar},
    float::{Float, Weights},
    photos,
    stats::quantile,
};

/// Figures of the local network.
#[derive(Debug, Serialize)]
pub struct Local {
    /// Photos it was shown.
    pub images: usize,
    /// Share of right answers.
    pub top1: f64,
    /// Share of right answers of the same network in f32, if the bundle brings it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1_f32: Option<f64>,
    /// How often the two agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Bytes sent per photo.
    pub bytes: usize,
    /// Millions of multiply-accumulates per photo.
    pub mmac: f64,
    /// Median milliseconds in the network, one thread.
    pub ms: f64,
    /// Size of its file.
    pub file_bytes: u64,
}

impl Local {
    /// What stands beside its accuracy in a table.
    pub fn beside(&self) -> String {
        let ms = format!("   {:.1} ms", self.ms);
        match (self.top1_f32, self.agreement) {
            (Some(f32), Some(agreement)) => {
                let drop = 100.0 * (f32 - self.top1);
                format!(
                    "   f32 {:.1} %, drop {drop:.1} points, agreement {:.1} %{ms}",
                    100.0 * f32,
                    100.0 * agreement
                )
            }
            _ => ms,
        }
    }
}

/// Shows every labelled photo to the local network, and to its f32 form if there is one; nothing for a bundle without.
pub fn measure(bundle: &Bundle, runtime: &Runtime, tar: &Path, labels: &Path) -> Result<Option<Local>> {
    let Some(spec) = bundle.local() else { return Ok(None) };
    let mut local = narrows_head::Local::open(bundle)?;
    let mut reference = match Weights::of(bundle) {
        Some(Weights::Own) => Float::open(bundle, runtime, 2)?,
        _ => None,
    };
    let photos = photos::labelled(tar, labels)?;
    let (mut right, mut right_f32, mut agreed, mut times) = (0, 0, 0, Vec::new());
    let bar = bar("local", photos.len());
    for photo in &photos {
        let image = image::load_from_memory(&photo.bytes).with_context(|| photo.name.clone())?.into_rgb8();
        let answer = local.answer(&image)?;
        times.push(answer.timings.head.as_secs_f64() * 1e3);
        let said = argmax(&answer.logits);
        right += usize::from(said == photo.class);
        if let Some(reference) = &mut reference {
            reference.fit(&image);
            let wanted = argmax(&reference.scores()?);
            right_f32 += usize::from(wanted == photo.class);
            agreed += usize::from(wanted == said);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    ensure!(!photos.is_empty(), "there are no photos");
    let share = |count: usize| count as f64 / photos.len() as f64;
    Ok(Some(Local {
        images: photos.len(),
        top1: share(right),
        top1_f32: reference.as_ref().map(|_| share(right_f32)),
        agreement: reference.as_ref().map(|_| share(agreed)),
        bytes: 0,
        mmac: local.macs() as f64 / 1e6,
        ms: quantile(&times, 0.5),
        file_bytes: bundle.path(&spec.file).metadata().context("the local network's size")?.len(),
    }))
}
