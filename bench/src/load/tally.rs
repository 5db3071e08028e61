//! What came of the frames of one step (pure).

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use narrows_eval::stats::quantile;
use narrows_wire::{Outcome, RefusalCode, Reply};
use serde::Serialize;

/// Counts while frames come back.
#[derive(Debug, Default)]
pub(super) struct Tally {
    seconds: f64,
    due: usize,
    answered: Vec<f64>,
    refused: Vec<f64>,
    codes: BTreeMap<String, usize>,
    task_codes: BTreeMap<String, usize>,
    failures: BTreeMap<String, usize>,
    batches: BTreeMap<u16, usize>,
    queue: Vec<f64>,
    infer: Vec<f64>,
    late: Vec<f64>,
    gone: usize,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: f64,
    /// 95 % are.
    pub p95: f64,
    /// 99 % are.
    pub p99: f64,
}

/// One rate, held for a while.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Frames per second of all heads together.
    pub offered: f64,
    /// Seconds in which frames were due.
    pub seconds: f64,
    /// Frames that were due.
    pub frames: usize,
    /// Of those, how many were answered.
    pub answered: usize,
    /// Answers per second.
    pub throughput: f64,
    /// From due to answer, of the answered.
    pub answered_ms: Percentiles,
    /// From due to refusal, of the refused.
    pub refused_ms: Percentiles,
    /// Frames refused as a whole, by reason.
    pub refusals: BTreeMap<String, usize>,
    /// Tasks refused in frames of which another task was answered, by reason.
    pub task_refusals: BTreeMap<String, usize>,
    /// Frames without any word, by reason.
    pub failures: BTreeMap<String, usize>,
    /// Heads whose connection was lost, in this step or before; they are not connected again.
    pub heads_lost: usize,
    /// Answers by how many frames shared the network's run.
    pub batches: BTreeMap<u16, usize>,
    /// What the tail says of its waiting, of the answered.
    pub tail_queue_ms: Percentiles,
    /// What it says of the network.
    pub tail_infer_ms: Percentiles,
    /// How late frames were sent; it is in the latency.
    pub late_ms: Percentiles,
    /// Share of one core that this process took.
    pub cpu: f64,
    /// Share of one core that the own tail took, above 1 where it has more.
    pub tail_cpu: Option<f64>,
    /// In the search for the knee: the tail kept up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<bool>,
}

impl Tally {
    /// For frames that are due within `time`.
    pub(super) fn new(time: Duration) -> Self {
        Tally { seconds: time.as_secs_f64(), ..Tally::default() }
    }

    /// A frame was due.
    pub(super) fn due(&mut self) {
        self.due += 1;
    }

    /// It left so long after it was due.
    pub(super) fn left(&mut self, late: Duration) {
        self.late.push(ms(late));
    }

    /// So long after it was due a frame was answered.
    pub(super) fn answered(&mut self, after: Duration, reply: &Reply) {
        self.answered.push(ms(after));
        self.queue.push(ms(reply.timings.queue));
        self.infer.push(ms(reply.timings.infer));
        for answer in &reply.answers {
            match &answer.outcome {
                Outcome::Refused(refusal) => *self.task_codes.entry(name(refusal.code)).or_default() += 1,
                _ => *self.batches.entry(answer.batch).or_default() += 1,
            }
        }
    }

    /// So long after it was due a frame was refused.
    pub(super) fn refused(&mut self, after: Duration, code: RefusalCode) {
        self.refused.push(ms(after));
        *self.codes.entry(name(code)).or_default() += 1;
    }

    /// A frame got no word.
    pub(super) fn failed(&mut self, reason: &str) {
        *self.failures.entry(reason.to_owned()).or_default() += 1;
    }

    /// Heads whose connection has ended by now; their frames go unanswered.
    pub(super) fn gone(&mut self, heads: usize) {
        self.gone = heads;
    }

    /// Frames due were only those until now.
    pub(super) fn cut(&mut self, time: Duration) {
        self.seconds = time.as_secs_f64();
    }

    pub(super) fn finish(self, offered: f64, cpu: f64, tail_cpu: Option<f64>) -> Step {
        Step {
            offered,
            seconds: self.seconds,
            frames: self.due,
            answered: self.answered.len(),
            throughput: self.answered.len() as f64 / self.seconds.max(1e-3),
            answered_ms: Percentiles::of(&self.answered),
            refused_ms: Percentiles::of(&self.refused),
            refusals: self.codes,
            task_refusals: self.task_codes,
            failures: self.failures,
            heads_lost: self.gone,
            batches: self.batches,
            tail_queue_ms: Percentiles::of(&self.queue),
            tail_infer_ms: Percentiles::of(&self.infer),
            late_ms: Percentiles::of(&self.late),
            cpu,
            tail_cpu,
            holds: None,
        }
    }
}

impl Percentiles {
    fn of(samples: &[f64]) -> Self {
        let at = |q| quantile(samples, q);
        Percentiles { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }
}

impl Step {
    /// Share of the frames that were not answered.
    pub(super) fn unanswered_share(&self) -> f64 {
        1.0 - self.answered as f64 / self.frames.max(1) as f64
    }

    /// Refusals, failures, batches and costs in lines for people.
    pub(super) fn details(&self) -> String {
        let list = |counts: &BTreeMap<String, usize>| {
            counts.iter().map(|(name, number)| format!("{number} × {name}")).collect::<Vec<_>>().join(", ")
        };
        let mut lines = vec![format!("at {:.1} frames/s:", self.offered)];
        for (what, counts) in
            [("refused", &self.refusals), ("tasks refused", &self.task_refusals), ("no word", &self.failures)]
        {
            if !counts.is_empty() {
                lines.push(format!("  {what}: {}", list(counts)));
            }
        }
        if self.heads_lost > 0 {
            lines.push(format!("  heads without a connection by now: {}", self.heads_lost));
        }
        let batches = self.batches.iter().map(|(batch, number)| format!("{batch}: {number}"));
        lines.push(format!("  answers by batch size: {}", batches.collect::<Vec<_>>().join(", ")));
        let (queue, infer) = (self.tail_queue_ms, self.tail_infer_ms);
        lines.push(format!(
            "  in the tail, p50/p99: queue {:.1}/{:.1} ms, network {:.1}/{:.1} ms; sent late by {:.1}/{:.1} ms",
            queue.p50, queue.p99, infer.p50, infer.p99, self.late_ms.p50, self.late_ms.p99
        ));
        lines.join("\n")
    }
}

/// One row per step.
pub(super) fn table(steps: &[Step]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "frames/s",
        "answered/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "refused",
        "p99 ms",
        "no word",
        "own core",
        "tail cores",
        "",
    ]);
    for step in steps {
        let count = |counts: &BTreeMap<String, usize>| counts.values().sum::<usize>().to_string();
        table.add_row([
            format!("{:.1}", step.offered),
            format!("{:.1}", step.throughput),
            format!("{:.1}", step.answered_ms.p50),
            format!("{:.1}", step.answered_ms.p95),
            format!("{:.1}", step.answered_ms.p99),
            count(&step.refusals),
            format!("{:.1}", step.refused_ms.p99),
            count(&step.failures),
            format!("{:.0} %", step.cpu * 100.0),
            step.tail_cpu.map_or_else(|| "unknown".into(), |cpu| format!("{cpu:.2}")),
            match step.holds {
                Some(true) => "holds".into(),
                Some(false) => "breaks".into(),
                None => String::new(),
            },
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Milliseconds of a time.
fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
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
        Reply { id: 0, path: Path::Split, provider: Provider::Cpu, timings, answers }
    }

    #[test]
    fn every_frame_is_counted_once_and_by_what_became_of_it() {
        let mut tally = Tally::new(Duration::from_secs(2));
        for number in 0..10 {
            tally.due();
            tally.left(Duration::from_millis(1));
            let after = Duration::from_millis(10 * (number + 1));
            match number {
                0..6 => tally.answered(after, &reply(1 + (number % 2) as u16)),
                6..9 => tally.refused(after, RefusalCode::Busy),
                _ => tally.failed("gone"),
            }
        }
        let mut partly = reply(4);
        let refusal = Refusal::new(RefusalCode::Expired, "");
        partly.answers.push(TaskAnswer { task: 1, batch: 0, outcome: Outcome::Refused(refusal) });
        tally.due();
        tally.answered(Duration::from_millis(1), &partly);
        let step = tally.finish(5.0, 0.1, None);
        assert_eq!((step.frames, step.answered, step.throughput), (11, 7, 3.5));
        assert_eq!(step.answered_ms.p50, 30.0);
        assert_eq!((step.refused_ms.p50, step.tail_queue_ms.p99), (80.0, 3.0));
        assert_eq!(step.refusals.values().sum::<usize>(), 3);
        assert!(step.refusals.keys().all(|name| name.starts_with("18 (")), "{:?}", step.refusals);
        assert_eq!(step.task_refusals.len(), 1);
        assert_eq!(step.failures["gone"], 1);
        assert_eq!(step.batches, BTreeMap::from([(1, 3), (2, 3), (4, 1)]));
        assert!((step.unanswered_share() - 4.0 / 11.0).abs() < 1e-12);
    }
}
