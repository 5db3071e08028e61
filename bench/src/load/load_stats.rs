//! Outcomes of the frames of one step (pure).

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{Table, presets};
use narrows_wire::{Outcome, RefusalCode, Reply};
use serde::Serialize;

use crate::latencies::{Latencies, Percentiles, shown};

/// Counts and times, filled while frames come back.
#[derive(Debug, Default)]
pub(super) struct LoadStats {
    pub(super) seconds: f64,
    /// Frames that were due.
    pub(super) due: usize,
    /// From due to sent.
    pub(super) late: Latencies,
    /// Heads whose connection has ended.
    pub(super) heads_lost: usize,
    answered: Latencies,
    refused: Latencies,
    refusals: BTreeMap<String, usize>,
    task_refusals: BTreeMap<String, usize>,
    failures: BTreeMap<String, usize>,
    batches: BTreeMap<u16, usize>,
    queue: Latencies,
    infer: Latencies,
}

/// One rate, held for a while.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Frames per second of all heads together; `None` where the server set the pace.
    pub offered: Option<f64>,
    /// Seconds in which frames were due.
    pub seconds: f64,
    /// Frames that were due.
    pub frames: usize,
    /// Frames that were answered.
    pub answered: usize,
    /// Answers per second.
    pub throughput: f64,
    /// From due to answer, of answered frames.
    pub answered_ms: Percentiles,
    /// From due to refusal, of refused frames.
    pub refused_ms: Percentiles,
    /// Frames refused as a whole, by reason.
    pub refusals: BTreeMap<String, usize>,
    /// Tasks refused in frames of which another task was answered, by reason.
    pub task_refusals: BTreeMap<String, usize>,
    /// Frames without a reply, by reason.
    pub failures: BTreeMap<String, usize>,
    /// Heads whose connection was lost, in this step or before; they are not connected again.
    pub heads_lost: usize,
    /// Answers by the size of the batch that the network ran.
    pub batches: BTreeMap<u16, usize>,
    /// Time in the server's queue, as it reports it, of answered frames.
    pub tail_queue_ms: Percentiles,
    /// Time in the network, as the server reports it.
    pub tail_infer_ms: Percentiles,
    /// From due to sent; latencies include it.
    pub late_ms: Percentiles,
    /// Share of one core that this process took.
    pub cpu: f64,
    /// Share of one core that the server took, above 1 where it used more; `None` for one that was not started here.
    pub tail_cpu: Option<f64>,
}

impl LoadStats {
    /// Statistics of frames that are due within `time`.
    pub(super) fn new(time: Duration) -> Self {
        LoadStats { seconds: time.as_secs_f64(), ..LoadStats::default() }
    }

    /// Counts a frame that was answered `after` it was due.
    pub(super) fn answered(&mut self, after: Duration, reply: &Reply) {
        self.answered.record(after);
        self.queue.record(reply.timings.queue);
        self.infer.record(reply.timings.infer);
        for answer in &reply.answers {
            match &answer.outcome {
                Outcome::Refused(refusal) => *self.task_refusals.entry(name(refusal.code)).or_default() += 1,
                _ => *self.batches.entry(answer.batch).or_default() += 1,
            }
        }
    }

    /// Counts a frame that was refused `after` it was due.
    pub(super) fn refused(&mut self, after: Duration, code: RefusalCode) {
        self.refused.record(after);
        *self.refusals.entry(name(code)).or_default() += 1;
    }

    /// Counts a frame that got no reply.
    pub(super) fn failed(&mut self, reason: &str) {
        *self.failures.entry(reason.to_owned()).or_default() += 1;
    }

    pub(super) fn finish(self, offered: Option<f64>, cpu: f64, tail_cpu: Option<f64>) -> Step {
        let answered = self.answered.len() as usize;
        Step {
            offered,
            seconds: self.seconds,
            frames: self.due,
            answered,
            throughput: answered as f64 / self.seconds.max(1e-3),
            answered_ms: self.answered.percentiles(),
            refused_ms: self.refused.percentiles(),
            refusals: self.refusals,
            task_refusals: self.task_refusals,
            failures: self.failures,
            heads_lost: self.heads_lost,
            batches: self.batches,
            tail_queue_ms: self.queue.percentiles(),
            tail_infer_ms: self.infer.percentiles(),
            late_ms: self.late.percentiles(),
            cpu,
            tail_cpu,
        }
    }
}

impl Step {
    /// The figures as a table of two columns.
    pub(super) fn table(&self) -> Table {
        let ms = |of: Percentiles| [of.p50, of.p90, of.p99].map(shown).join(" / ");
        let list = |counts: &BTreeMap<String, usize>| {
            let counts = counts.iter().map(|(name, number)| format!("{number} × {name}"));
            counts.collect::<Vec<_>>().join(", ")
        };
        let batches = self.batches.iter().map(|(batch, number)| format!("{number} × {batch}"));
        let tail_cpu = self.tail_cpu.map_or_else(|| "unknown".into(), |cpu| format!("{cpu:.2}"));
        let rows = [
            ("frames/s offered, answered", format!("{}, {:.1}", shown(self.offered), self.throughput)),
            ("answered, ms p50 / p90 / p99", ms(self.answered_ms)),
            ("refused, ms p50 / p90 / p99", ms(self.refused_ms)),
            ("refused", list(&self.refusals)),
            ("tasks refused", list(&self.task_refusals)),
            ("no reply", list(&self.failures)),
            ("heads that lost their connection", self.heads_lost.to_string()),
            ("answers by batch size", batches.collect::<Vec<_>>().join(", ")),
            ("in the server's queue, ms p50 / p90 / p99", ms(self.tail_queue_ms)),
            ("in its network", ms(self.tail_infer_ms)),
            ("sent late by", ms(self.late_ms)),
            ("cores used here, by the server", format!("{:.2}, {tail_cpu}", self.cpu)),
        ];
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.add_rows(
            rows.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| [name.into(), value]),
        );
        table
    }
}

fn name(code: RefusalCode) -> String {
    format!("{} ({code})", u16::from(code))
}

#[cfg(test)]
mod tests {
    use narrows_wire::{Path, Provider, Refusal, TaskAnswer, Timings};

    use super::*;

    fn reply(batch: u16) -> Reply {
        let timings = Timings { queue: Duration::from_millis(3), ..Timings::default() };
        let answers = vec![TaskAnswer { task: 0, batch, outcome: Outcome::Classes(Vec::new()) }];
        Reply { id: 0, path: Path::Split, provider: Provider::Cpu, groups: None, timings, answers }
    }

    #[test]
    fn every_frame_is_counted_once_and_by_its_outcome() {
        let mut stats = LoadStats::new(Duration::from_secs(2));
        for number in 0..10 {
            stats.due += 1;
            stats.late.record(Duration::from_millis(1));
            let after = Duration::from_millis(10 * (number + 1));
            match number {
                0..6 => stats.answered(after, &reply(1 + (number % 2) as u16)),
                6..9 => stats.refused(after, RefusalCode::Busy),
                _ => stats.failed("gone"),
            }
        }
        let mut partly = reply(4);
        let refusal = Refusal::new(RefusalCode::Expired, "");
        partly.answers.push(TaskAnswer { task: 1, batch: 0, outcome: Outcome::Refused(refusal) });
        stats.due += 1;
        stats.answered(Duration::from_millis(1), &partly);
        let step = stats.finish(Some(5.0), 0.1, None);
        assert_eq!((step.frames, step.answered, step.throughput), (11, 7, 3.5));
        let near = |ms: Option<f64>, exact: f64| ms.is_some_and(|ms| (ms / exact - 1.0).abs() < 1e-3);
        assert!(near(step.answered_ms.p50, 30.0), "{:?}", step.answered_ms);
        assert!(near(step.refused_ms.p50, 80.0) && near(step.tail_queue_ms.p50, 3.0), "{step:?}");
        assert_eq!(step.refusals.values().sum::<usize>(), 3);
        assert!(step.refusals.keys().all(|name| name.starts_with("18 (")), "{:?}", step.refusals);
        assert_eq!(step.task_refusals.len(), 1);
        assert_eq!(step.failures["gone"], 1);
        assert_eq!(step.batches, BTreeMap::from([(1, 3), (2, 3), (4, 1)]));
    }
}
