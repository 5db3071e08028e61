//! Interleaved timing: the candidates run one after the other in every round, so that whatever else the machine does
//! affects all of them alike, and only ratios of medians of one comparison are stated.

#![expect(clippy::disallowed_methods, reason = "measuring reads the clock")]

use std::time::Instant;

use anyhow::{Context, Result};
use narrows_eval::stats::quantile;
use serde::Serialize;

use crate::instructions;

/// Rounds that are run first and not counted.
const WARM_UP: usize = 5;
/// Runs of a candidate in a round, of which the fastest counts: the first one finds the cache full of the data of the
/// candidate before, and on a busy machine one may be interrupted.
const RUNS: usize = 3;
/// Rounds below which a 95th percentile is not stated: it would be the maximum.
const FOR_P95: usize = 20;

/// A comparison under construction.
#[derive(Default)]
pub(crate) struct Interleaved<'a> {
    candidates: Vec<Candidate<'a>>,
}

struct Candidate<'a> {
    name: String,
    mmac: Option<f64>,
    run: Box<dyn FnMut() -> Result<()> + 'a>,
    seconds: Vec<f64>,
}

/// Times of one candidate in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) rounds: usize,
    pub(crate) median: f64,
    /// `None` for fewer than 20 rounds.
    pub(crate) p95: Option<f64>,
    pub(crate) min: f64,
    /// Millions of multiply-accumulates in a run, where the candidate is a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    mmac: Option<f64>,
}

impl<'a> Interleaved<'a> {
    /// Adds a candidate.
    pub(crate) fn add(&mut self, name: impl Into<String>, run: impl FnMut() -> Result<()> + 'a) {
        let run = Box::new(run);
        self.candidates.push(Candidate { name: name.into(), mmac: None, run, seconds: Vec::new() });
    }

    /// Adds a network with `macs` multiply-accumulates in a run.
    pub(crate) fn add_network(&mut self, name: &str, macs: u64, run: impl FnMut() -> Result<()> + 'a) {
        let (mmac, run) = (Some(macs as f64 / 1e6), Box::new(run));
        self.candidates.push(Candidate { name: name.to_owned(), mmac, run, seconds: Vec::new() });
    }

    /// Runs every candidate `times` times between marks.
    pub(crate) fn run_marked(&mut self, times: u32) -> Result<()> {
        let candidates = self.candidates.iter_mut();
        instructions::run_marked(candidates.map(|one| (&*one.name, &mut *one.run as _)), times)
    }

    /// Runs every candidate in each of `rounds` rounds; one row per candidate, in the order in which they were added.
    pub(crate) fn run(mut self, rounds: usize) -> Result<Vec<Row>> {
        for round in 0..WARM_UP + rounds {
            for candidate in &mut self.candidates {
                let mut fastest = f64::INFINITY;
                for _ in 0..RUNS {
                    let begin = Instant::now();
                    (candidate.run)().with_context(|| candidate.name.clone())?;
                    fastest = fastest.min(begin.elapsed().as_secs_f64());
                }
                if round >= WARM_UP {
                    candidate.seconds.push(fastest);
                }
            }
        }
        let row = |Candidate { name, mmac, seconds, .. }: Candidate<'_>| {
            let p95 = (rounds >= FOR_P95).then(|| quantile(&seconds, 0.95));
            Row { rounds, median: quantile(&seconds, 0.5), p95, min: quantile(&seconds, 0.0), mmac, name }
        };
        Ok(self.candidates.into_iter().map(row).collect())
    }
}

impl Row {
    /// Prints one line, with times multiplied by `unit`.
    pub(crate) fn print(&self, unit: f64) {
        let [median, min] = [self.median, self.min].map(|seconds| seconds * unit);
        let p95 = self.p95.map_or_else(|| "-".to_owned(), |seconds| format!("{:.3}", seconds * unit));
        let speed = self.mmac.map(|mmac| format!("{:14.1}", mmac / 1e3 / self.median)).unwrap_or_default();
        println!("  {:42} {median:8.3} {p95:>8} {min:8.3}{speed}", self.name);
    }
}

/// The median of the row called `name`, in seconds.
pub(crate) fn median(rows: &[Row], name: &str) -> Result<f64> {
    let row = rows.iter().find(|row| row.name == name);
    row.map(|row| row.median).with_context(|| format!("nothing called `{name}` was measured"))
}
