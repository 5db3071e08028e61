//! A run: the accuracy of every variant, then every run of every round.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use narrows_eval::{local_f32::Weights, pipeline::UnsplitNetworks, progress::bar};
use narrows_models::Bundle;
use narrows_netsim::{Ideal, Link};
use narrows_tail::engine::Runtime;

use super::{
    accuracy::{self, Answer, Scores},
    dataset::Dataset,
    harness::Harness,
    plan::{self, Cells, PlannedRun, Scope},
    report::{Accuracy, Method, Row, Run, UNSPLIT, Variant},
};

/// Milliseconds that a frame is thought to take beside its link, to choose how many go into a run.
const COMPUTING: f64 = 50.0;

/// What is to be measured.
pub struct Comparison<'a> {
    /// The bundle.
    pub bundle: &'a Bundle,
    /// The photos or frames of every task.
    pub sets: &'a [Dataset],
    /// The links that every task goes over.
    pub tasks: &'a [(String, Vec<String>)],
    /// What is compared.
    pub variants: &'a [Variant],
    /// Every link that a task names.
    pub links: &'a [Link],
    /// How much.
    pub scope: &'a Scope,
    /// Frames under way at once when throughput is measured.
    pub in_flight: usize,
    /// Decides the order and the resampling.
    pub seed: u64,
    /// For what only the run needs.
    pub folder: &'a Path,
    /// Where raw rows go.
    pub out: &'a Path,
    /// ONNX Runtime, for the unsplit networks.
    pub runtime: &'a Runtime,
}

/// What was measured so far.
#[derive(Debug, Default)]
pub struct Measurements {
    /// Of every variant and task.
    pub accuracy: Vec<Accuracy>,
    /// Every frame of every run.
    pub rows: Vec<Row>,
    /// In the order in which they were had.
    pub runs: Vec<Run>,
    /// For each set the places of its items, from those of few bytes to those of many.
    pub orders: Vec<Vec<usize>>,
}

impl Comparison<'_> {
    /// Measures the accuracies, then has the runs. What was measured is in `measurements`, however this ends.
    pub fn measure(&self, harness: &mut Harness<'_>, measurements: &mut Measurements) -> Result<()> {
        self.accuracies(harness, measurements)?;
        self.runs(harness, measurements)
    }

    fn accuracies(&self, harness: &mut Harness<'_>, measurements: &mut Measurements) -> Result<()> {
        let path = self.out.join("accuracy.csv");
        let mut lines = csv::Writer::from_path(&path).with_context(|| path.display().to_string())?;
        let mut networks = UnsplitNetworks::open(self.bundle, self.runtime)?;
        // Noise for weights has a time, and no accuracy.
        let weights = Weights::of(self.bundle);
        let able = |set: &Dataset| -> Vec<&Variant> {
            let able = self.variants.iter().filter(|variant| self.answers(variant, &set.name));
            able.filter(|variant| variant.group != Method::Reference || weights == Some(Weights::Bundle))
                .collect()
        };
        let steps = self.sets.iter().map(|set| set.items.len() * (1 + able(set).len()));
        let bar = bar("accuracy", steps.sum());
        for set in self.sets {
            let classes = self.bundle.tasks()[set.task].labels.len();
            let unsplit = accuracy::unsplit(self.bundle, set, &mut networks, || bar.inc(1))?;
            let reference = Scores::of(UNSPLIT, set, &unsplit, &unsplit, classes)?;
            let mut sizes = vec![0.0; set.items.len()];
            let mut add = |scores: &Scores, answers: &[Answer]| {
                let accuracy = scores.accuracy(set, &reference, self.seed);
                for (size, answer) in sizes.iter_mut().zip(answers) {
                    // Of the variant's mean, so that no variant decides alone.
                    *size +=
                        answer.bytes.zip(accuracy.bytes).map_or(0.0, |(bytes, mean)| bytes as f64 / mean);
                }
                measurements.accuracy.push(accuracy);
                scores.lines(set, answers).try_for_each(|line| lines.serialize(line))
            };
            add(&reference, &unsplit)?;
            for variant in able(set) {
                bar.set_message(format!("{} {}", set.name, variant.name));
                let answers = harness.answers(variant, set, self.folder, || bar.inc(1))?;
                add(&Scores::of(&variant.name, set, &answers, &unsplit, classes)?, &answers)?;
            }
            let mut order: Vec<usize> = (0..set.items.len()).collect();
            order.sort_by(|a, b| sizes[*a].total_cmp(&sizes[*b]));
            measurements.orders.push(order);
        }
        bar.finish_and_clear();
        lines.flush().with_context(|| path.display().to_string())
    }

    fn runs(&self, harness: &mut Harness<'_>, measurements: &mut Measurements) -> Result<()> {
        let path = self.out.join("rows.csv");
        let mut csv = csv::Writer::from_path(&path).with_context(|| path.display().to_string())?;
        let cells = Cells {
            tasks: self.tasks,
            variants: self.variants,
            answers: &|variant, task| self.answers(variant, task),
        };
        let scope = self.scope;
        let order = cells.order(scope.rounds, scope.pipelined_rounds, self.in_flight, self.seed)?;
        let bar = run_bar(order.len());
        harness.idle(0)?;
        for due in &order {
            if harness.interrupted() {
                break;
            }
            let variant = &self.variants[due.variant];
            bar.set_message(format!("{} {} {}", due.link, due.task, variant.name));
            let place = self.sets.iter().position(|set| set.name == due.task);
            let place = place.context("a task without photos")?;
            let frames = self.frames(due, &measurements.accuracy);
            bar.inc(1);
            if frames < due.in_flight {
                // Too slow a link to fill it: one at a time has told what there is to tell.
                continue;
            }
            let photos = self.sets[place].run(self.folder, frames, &measurements.orders[place])?;
            let (run, mut rows) = harness.run(due, variant, &photos, measurements.runs.len())?;
            if harness.interrupted() {
                // What the interrupt cut off is no failure of its link.
                rows.retain(|row| row.answered);
            }
            rows.iter().try_for_each(|row| csv.serialize(row))?;
            csv.flush().with_context(|| path.display().to_string())?;
            measurements.runs.push(run);
            measurements.rows.extend(rows);
        }
        harness.idle(1)?;
        bar.finish_and_clear();
        ensure!(!harness.interrupted(), "interrupted");
        Ok(())
    }

    /// Frames of a run, the same for all variants on a link: as many as the largest of them leaves time for.
    fn frames(&self, due: &PlannedRun, accuracy: &[Accuracy]) -> usize {
        let of_task = accuracy.iter().filter(|of| of.task == due.task);
        let largest = of_task.filter_map(|of| of.bytes).fold(0.0, f64::max);
        let link = self.links.iter().find(|link| link.name == due.link);
        let ideal = link.map(|link| Ideal::of(link, largest as usize, 0));
        let (seconds, most) = (self.scope.run_seconds, self.scope.frames);
        let ms = |time: std::time::Duration| 1e3 * time.as_secs_f64();
        match due.in_flight {
            1 => plan::frames(most, seconds, COMPUTING + ideal.map_or(0.0, |ideal| ms(ideal.total()))),
            // Round trips overlap; more frames, so that filling and draining the link weigh little.
            _ => plan::frames(2 * most, seconds, COMPUTING + ideal.map_or(0.0, |ideal| ms(ideal.up))),
        }
    }

    /// Whether a variant can answer a task: the device alone has one network of its own.
    fn answers(&self, variant: &Variant, task: &str) -> bool {
        let local = self.bundle.local().map(|local| self.bundle.tasks()[local.task].name.as_str());
        !variant.group.is_local() || local == Some(task)
    }
}

fn run_bar(runs: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("runs {pos}/{len} {wide_bar} {eta} left  {msg:36}");
    ProgressBar::new(runs as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
