//! Contenders that take turns, and what their turns took.

#![expect(clippy::disallowed_methods, reason = "measuring reads the clock")]

use std::time::Instant;

use anyhow::{Context, Result};
use narrows_codec::Table;
use narrows_eval::stats::quantile;
use serde::Serialize;

/// Rounds that are run first and forgotten.
const WARM_UP: usize = 5;
/// Runs in a turn, of which the fastest counts: the first finds the cache full of its neighbour's data, and on a
/// busy machine one may be interrupted.
const RUNS: usize = 3;

/// Contenders, in the order they take their turns.
#[derive(Default)]
pub(crate) struct Contest<'a> {
    contenders: Vec<Contender<'a>>,
}

struct Contender<'a> {
    name: String,
    mmac: Option<f64>,
    run: Box<dyn FnMut() -> Result<()> + 'a>,
    seconds: Vec<f64>,
}

/// What one contender's turns took, in seconds: the fastest run of each.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) turns: usize,
    pub(crate) median: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) min: f64,
    /// Millions of multiply-accumulates in a run, where that means something.
    #[serde(skip_serializing_if = "Option::is_none")]
    mmac: Option<f64>,
}

impl<'a> Contest<'a> {
    /// Adds a contender of which one run has this many multiply-accumulates.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        macs: Option<u64>,
        run: impl FnMut() -> Result<()> + 'a,
    ) {
        let mmac = macs.map(|macs| macs as f64 / 1e6);
        self.contenders.push(Contender { name: name.into(), mmac, run: Box::new(run), seconds: Vec::new() });
    }

    /// Gives every contender `rounds` turns.
    pub(crate) fn run(mut self, rounds: usize) -> Result<Vec<Row>> {
        for round in 0..WARM_UP + rounds {
            for contender in &mut self.contenders {
                let mut fastest = f64::INFINITY;
                for _ in 0..RUNS {
                    let begin = Instant::now();
                    (contender.run)().with_context(|| contender.name.clone())?;
                    fastest = fastest.min(begin.elapsed().as_secs_f64());
                }
                if round >= WARM_UP {
                    contender.seconds.push(fastest);
                }
            }
        }
        let row = |contender: Contender<'_>| {
            let at = |q| quantile(&contender.seconds, q);
            let (median, p95, p99, min) = (at(0.5), at(0.95), at(0.99), at(0.0));
            Row { turns: rounds, median, p95, p99, min, mmac: contender.mmac, name: contender.name }
        };
        Ok(self.contenders.into_iter().map(row).collect())
    }
}

impl Row {
    /// One line, times multiplied by `unit`.
    pub(crate) fn print(&self, unit: f64) {
        let [median, p95, min] = [self.median, self.p95, self.min].map(|seconds| seconds * unit);
        let speed = self.mmac.map(|mmac| format!("{:14.1}", mmac / 1e3 / self.median)).unwrap_or_default();
        println!("  {:42} {median:8.3} {p95:8.3} {min:8.3}{speed}", self.name);
    }
}

/// A table's frequencies as constriction's lookup coder takes them: of 12 bits, wider ones rounded, none below 1.
pub(crate) fn twelve_bits(table: &Table) -> Vec<u16> {
    let wide = table.frequencies();
    let total: u32 = wide.iter().map(|&frequency| u32::from(frequency)).sum();
    let narrow = |&frequency: &u16| (u32::from(frequency) * 4096 / total).max(1) as u16;
    let mut frequencies: Vec<u16> = wide.iter().map(narrow).collect();
    let sum: i32 = frequencies.iter().map(|&frequency| i32::from(frequency)).sum();
    if let Some(most) = frequencies.iter_mut().max() {
        *most = (i32::from(*most) + 4096 - sum) as u16;
    }
    frequencies
}
