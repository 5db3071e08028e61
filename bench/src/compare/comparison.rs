//! The measuring itself: the accuracy of every variant, then every run of every round.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use narrows_eval::{pipeline::UnsplitNetworks, progress::bar};
use narrows_models::Bundle;
use narrows_netsim::{Ideal, Link};
use narrows_tail::engine::Runtime;

use super::{
    accuracy::{self, Answer, Scores},
    dataset::Dataset,
    harness::Harness,
    plan::{self, PlannedRun, Schedule, Scope},
    report::{Accuracy, Method, Row, Run, Variant},
};

/// Milliseconds of computing that are assumed of a frame when the number of frames of a run is chosen.
const COMPUTING: f64 = 50.0;

/// What is to be measured.
pub struct Comparison<'a> {
    /// The bundle.
    pub bundle: &'a Bundle,
    /// The photos or frames of every task.
    pub sets: &'a [Dataset],
    /// The tasks by name, each with its links.
    pub tasks: &'a [(String, Vec<String>)],
    /// What is compared.
    pub variants: &'a [Variant],
    /// Every link that a task names.
    pub links: &'a [Link],
    /// How much is measured.
    pub scope: &'a Scope,
    /// Frames under way at once when throughput is measured.
    pub in_flight: usize,
    /// Seed of the order of runs and of the bootstraps.
    pub seed: u64,
    /// Folder for files that only the measuring needs.
    pub folder: &'a Path,
    /// Folder for rows.csv and accuracy.csv.
    pub out: &'a Path,
    /// ONNX Runtime, for the unsplit networks.
    pub runtime: &'a Runtime,
}

/// What has been measured so far.
#[derive(Debug, Default)]
pub struct Measurements {
    /// Of every variant and task.
    pub accuracy: Vec<Accuracy>,
    /// Every frame of every run.
    pub rows: Vec<Row>,
    /// In the order in which they were made.
    pub runs: Vec<Run>,
    /// For each set the indices of its items, from those of few bytes to those of many.
    pub orders: Vec<Vec<usize>>,
}

impl Comparison<'_> {
    /// Measures the accuracies, then makes the runs. `measurements` has what was measured, also when this fails.
    ///
    /// # Errors
    /// When the harness fails, a file cannot be written, or the user interrupts.
    pub fn measure(&self, harness: &mut Harness<'_>, measurements: &mut Measurements) -> Result<()> {
        self.accuracies(harness, measurements)?;
        self.runs(harness, measurements)
    }

    fn accuracies(&self, harness: &mut Harness<'_>, measurements: &mut Measurements) -> Result<()> {
        let path = self.out.join("accuracy.csv");
        let mut lines = csv::Writer::from_path(&path).with_context(|| path.display().to_string())?;
        lines.write_record(accuracy::COLUMNS)?;
        let mut networks = UnsplitNetworks::open(self.bundle, self.runtime)?;
        let able = |set: &Dataset| -> Vec<&Variant> {
            self.variants.iter().filter(|variant| self.answers(variant, &set.name)).collect()
        };
        let steps = self.sets.iter().map(|set| set.items.len() * (1 + able(set).len()));
        let bar = bar("accuracy", steps.sum());
        for set in self.sets {
            let classes = self.bundle.tasks()[set.task].labels.len();
            let unsplit = accuracy::unsplit(self.bundle, set, &mut networks, || bar.inc(1))?;
            let reference = Scores::of(None, set, &unsplit, &unsplit, classes)?;
            let mut sizes = vec![0.0; set.items.len()];
            let mut add = |scores: &Scores, answers: &[Answer]| {
                let accuracy = scores.accuracy(set, &reference, self.seed);
                for (size, answer) in sizes.iter_mut().zip(answers) {
                    // Relative to the variant's mean, so that large variants do not outweigh small ones.
                    *size +=
                        answer.bytes.zip(accuracy.bytes).map_or(0.0, |(bytes, mean)| bytes as f64 / mean);
                }
                measurements.accuracy.push(accuracy);
                scores.write(set, answers, &mut lines)
            };
            add(&reference, &unsplit)?;
            for variant in able(set) {
                bar.set_message(format!("{} {}", set.name, variant.name));
                let answers = harness.answers(variant, set, self.folder, || bar.inc(1))?;
                add(&Scores::of(Some(variant), set, &answers, &unsplit, classes)?, &answers)?;
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
        let schedule = Schedule {
            tasks: self.tasks,
            variants: self.variants,
            answers: &|variant, task| self.answers(variant, task),
        };
        let scope = self.scope;
        let order = schedule.order(scope.rounds, scope.pipelined_rounds, self.in_flight, self.seed)?;
        let bar = bar("runs", order.len());
        harness.idle(0)?;
        for planned in &order {
            if harness.interrupted() {
                break;
            }
            let variant = &self.variants[planned.variant];
            bar.set_message(format!("{} {} {}", planned.link, planned.task, variant.name));
            let set =
                self.sets.iter().position(|set| set.name == planned.task).context("a task without photos")?;
            let frames = self.frames(planned, &measurements.accuracy);
            bar.inc(1);
            if frames < planned.in_flight {
                // The link is too slow to have so many frames under way in the time of a run.
                continue;
            }
            let photos = self.sets[set].photos_of_run(self.folder, frames, &measurements.orders[set])?;
            let (run, mut rows) = harness.run(planned, variant, &photos, measurements.runs.len())?;
            if harness.interrupted() {
                // Frames that the interrupt cut off did not fail.
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

    /// Frames of a run: as many as the variant of the most bytes leaves time for, and the same for all variants on a link.
    fn frames(&self, planned: &PlannedRun, accuracy: &[Accuracy]) -> usize {
        let of_task = accuracy.iter().filter(|of| of.task == planned.task);
        let largest = of_task.filter_map(|of| of.bytes).fold(0.0, f64::max);
        let link = self.links.iter().find(|link| link.name == planned.link);
        let ideal = link.map(|link| Ideal::of(link, largest as usize, 0));
        let (seconds, most) = (self.scope.run_seconds, self.scope.frames);
        let ms = |time: std::time::Duration| 1e3 * time.as_secs_f64();
        match planned.in_flight {
            1 => plan::frames(most, seconds, COMPUTING + ideal.map_or(0.0, |ideal| ms(ideal.total()))),
            // Round trips overlap. More frames, so that filling and draining the link weigh little.
            _ => plan::frames(2 * most, seconds, COMPUTING + ideal.map_or(0.0, |ideal| ms(ideal.up))),
        }
    }

    /// Whether a variant can answer a task: the local network answers only one.
    fn answers(&self, variant: &Variant, task: &str) -> bool {
        let local = self.bundle.local().map(|local| self.bundle.tasks()[local.task].name.as_str());
        variant.method != Method::Local || local == Some(task)
    }
}
