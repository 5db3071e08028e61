//! Early exit on labelled photos: what each threshold on the local network's confidence keeps, costs and gets right.

use anyhow::{Context, Result};
use narrows_head::Local;
use narrows_models::Bundle;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    data::Photo,
    pipeline::InProcessPipeline,
    progress::bar,
    scores::argmax,
    stats::{mean, paired_difference},
};

/// Thresholds of the curve where the bundle brings none: 0 to 1 in so many steps.
const STEPS: u32 = 20;
const CHART: &str = include_str!("exit.vl.json");

/// Both answers to one photo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answers {
    /// The probability that the local network gives to its first class.
    confidence: f64,
    /// Whether the local network's first class is the label.
    local: bool,
    /// Whether that of the split is.
    split: bool,
    /// Size of the packet.
    bytes: usize,
}

/// Early exit at one threshold: the row of `--csv`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ExitRow {
    threshold: f64,
    /// Whether it is the bundle's.
    calibrated: bool,
    /// Share of the photos that stay on the device.
    kept: f64,
    /// Mean packet bytes of all photos; one that stays on the device has none.
    bytes: f64,
    /// Mean packet bytes of the photos that are sent; 0 where none is.
    bytes_sent: f64,
    /// Share of the photos whose answer is the label.
    top1: f64,
    /// `top1` less that of sending every photo, in points, with its paired 95 % interval.
    over_sending: f64,
    over_sending_low: f64,
    over_sending_high: f64,
    /// `top1` less that of keeping every photo, in points, with its paired 95 % interval.
    over_keeping: f64,
    over_keeping_low: f64,
    over_keeping_high: f64,
}

/// The report of `--exit`.
#[derive(Debug, Serialize)]
pub(crate) struct ExitReport {
    images: usize,
    /// The rate level of what is sent.
    level: usize,
    /// The bundle's threshold, if it has one.
    threshold: Option<f64>,
    pub(crate) curve: Vec<ExitRow>,
    bundle: String,
}

/// Answers `photos` with the local network and with the split at `level`.
///
/// # Errors
/// When the bundle has no local network, a photo cannot be decoded, or a network fails.
pub(crate) fn measure(
    bundle: &Bundle,
    pipeline: &mut InProcessPipeline,
    level: usize,
    photos: &[Photo],
) -> Result<ExitReport> {
    let mut local = Local::open(bundle).context("--exit compares the local network with the split")?;
    let mut answers = Vec::with_capacity(photos.len());
    let bar = bar("exit", photos.len());
    for photo in photos {
        let image = image::load_from_memory(&photo.bytes).with_context(|| photo.name.clone())?.into_rgb8();
        let answer = local.answer(&image)?;
        let coded = pipeline.run_levels(local.task(), &[level], &image)?;
        answers.push(Answers {
            confidence: answer.confidence(),
            local: argmax(&answer.logits) == photo.class,
            split: argmax(&coded.packets[0].output) == photo.class,
            bytes: coded.packets[0].bytes,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let calibrated = bundle.local().and_then(|local| local.exit.as_ref());
    let threshold = calibrated.map(|exit| exit.threshold);
    let grid = match calibrated {
        Some(exit) => exit.curve.iter().map(|point| point.threshold).collect(),
        None => (0..=STEPS).map(|step| f64::from(step) / f64::from(STEPS)).collect::<Vec<_>>(),
    };
    let curve = grid.into_iter().map(|at| row(&answers, at, threshold == Some(at))).collect();
    Ok(ExitReport { images: photos.len(), level, threshold, curve, bundle: bundle.digest().to_string() })
}

/// The figures of one threshold.
fn row(answers: &[Answers], threshold: f64, calibrated: bool) -> ExitRow {
    let stays = |answer: &Answers| answer.confidence >= threshold;
    let right = |answer: &Answers| if stays(answer) { answer.local } else { answer.split };
    let share = |of: &dyn Fn(&Answers) -> bool| {
        answers.iter().filter(|answer| of(answer)).count() as f64 / answers.len().max(1) as f64
    };
    let over = |other: &dyn Fn(&Answers) -> bool| {
        let (low, high) = paired_difference(answers.iter().map(|answer| (right(answer), other(answer))));
        (100.0 * (share(&right) - share(other)), low, high)
    };
    let (over_sending, over_sending_low, over_sending_high) = over(&|answer| answer.split);
    let (over_keeping, over_keeping_low, over_keeping_high) = over(&|answer| answer.local);
    let rounded = |value: f64| (value * 1e4).round() / 1e4;
    let sent: Vec<f64> =
        answers.iter().filter(|answer| !stays(answer)).map(|answer| answer.bytes as f64).collect();
    ExitRow {
        threshold,
        calibrated,
        kept: rounded(share(&stays)),
        // The sum of no numbers is -0.
        bytes: rounded(0.0 + sent.iter().sum::<f64>() / answers.len().max(1) as f64),
        bytes_sent: rounded(0.0 + mean(&sent)),
        top1: rounded(share(&right)),
        over_sending: rounded(over_sending),
        over_sending_low: rounded(over_sending_low),
        over_sending_high: rounded(over_sending_high),
        over_keeping: rounded(over_keeping),
        over_keeping_low: rounded(over_keeping_low),
        over_keeping_high: rounded(over_keeping_high),
    }
}

impl ExitReport {
    /// Prints a row for every threshold.
    pub(crate) fn print(&self) {
        println!(
            "early exit, {} photos, sent at level {}; intervals are 95 %, paired",
            self.images, self.level
        );
        println!(
            "\n  threshold     kept  bytes/photo  bytes/sent    top-1  over sending all      over keeping all"
        );
        for row in &self.curve {
            let over = |value: f64, low: f64, high: f64| format!("{value:+5.1} ({low:+5.1} to {high:+5.1})");
            println!(
                "  {:9.2}  {:5.1} %  {:11.0}  {:10.0}  {:5.1} %  {}  {}{}",
                row.threshold,
                100.0 * row.kept,
                row.bytes,
                row.bytes_sent,
                100.0 * row.top1,
                over(row.over_sending, row.over_sending_low, row.over_sending_high),
                over(row.over_keeping, row.over_keeping_low, row.over_keeping_high),
                if row.calibrated { "  the bundle's" } else { "" }
            );
        }
        if self.threshold.is_none() {
            println!(
                "\nthe bundle has no calibrated exit; `recipe exit` adds one (models/recipes/README.md)"
            );
        }
    }

    /// The Vega-Lite chart of the curve.
    pub(crate) fn chart(&self) -> Value {
        let mut chart: Value = serde_json::from_str(CHART).expect("the shipped specification is JSON");
        let values = self.curve.iter().map(|row| {
            json!({
                "threshold": row.threshold,
                "calibrated": row.calibrated,
                "kept": 100.0 * row.kept,
                "bytes": row.bytes,
                "top1": 100.0 * row.top1,
            })
        });
        chart["data"]["values"] = values.collect();
        chart["description"] = json!(format!(
            "Top-1 accuracy and mean bytes per photo against the share of {} photos that stay on the device",
            self.images
        ));
        chart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Vec<Answers> {
        let answer = |confidence, local, split, bytes| Answers { confidence, local, split, bytes };
        vec![
            answer(0.2, false, true, 6000),
            answer(0.5, true, true, 5000),
            answer(0.8, true, false, 4000),
            answer(0.9, false, false, 3000),
        ]
    }

    #[test]
    fn photos_from_the_threshold_on_stay_and_cost_nothing() {
        let at = row(&answers(), 0.5, true);
        assert_eq!((at.kept, at.bytes, at.bytes_sent, at.top1), (0.75, 1500.0, 6000.0, 0.75));
        assert_eq!((at.over_sending, at.over_keeping), (25.0, 25.0));
        assert!(at.over_sending_low < 25.0 && at.over_sending_high > 25.0 && at.calibrated);
    }

    #[test]
    fn the_ends_of_the_curve_keep_all_and_send_all() {
        let (all, none) = (row(&answers(), 0.0, false), row(&answers(), 1.0, false));
        assert_eq!(
            (all.kept, all.bytes, all.bytes_sent, all.top1, all.over_keeping),
            (1.0, 0.0, 0.0, 0.5, 0.0)
        );
        assert_eq!((none.kept, none.bytes, none.top1, none.over_sending), (0.0, 4500.0, 0.5, 0.0));
    }

    #[test]
    fn the_chart_has_a_value_for_every_threshold() {
        let curve: Vec<_> = [0.0, 0.5, 1.0].map(|at| row(&answers(), at, at == 0.5)).into();
        let report = ExitReport { images: 4, level: 1, threshold: Some(0.5), curve, bundle: String::new() };
        let chart = report.chart();
        assert_eq!(chart["data"]["values"][1]["kept"], 75.0);
        assert_eq!(chart["data"]["values"].as_array().map(Vec::len), Some(3));
    }
}
