//! The scenarios: which frames are sent when, and what is judged.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use narrows_pair::Interrupt;
use serde::Serialize;

use super::{
    arrivals::{Arrivals, Spacing},
    clients::{ClientPool, HANDSHAKES},
    load_stats::{LoadStats, Step},
};

/// Queries that a 99th percentile is judged by at the least (LoadGen's early stopping: 662 for p99 at 99 % confidence).
const SERVER_QUERIES: usize = 662;

/// What is sent when. `single-stream`, `server` and `offline` are those of MLPerf LoadGen (mlcommons/inference_policies,
/// inference_rules).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Frames of all heads at their rate, whether or not those before were answered
    Heads,
    /// One head, one frame at a time, the next when it is answered; judged by the 90th percentile
    SingleStream,
    /// Poisson arrivals; valid where the 99th percentile is at most --bound-ms and nothing is refused
    Server,
    /// As many frames at once as the server allows; judged by frames a second
    Offline,
    /// Heads at their rate, first alone, then beside a device that keeps --greedy connections full
    Greedy,
    /// All heads connect in the same second and send a frame each
    Storm,
    /// All heads stay connected and send nothing
    Idle,
}

/// How often frames are due, for how long, and how late they may be answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Frames per second of each head.
    pub(super) rate: f64,
    /// When they are due.
    pub(super) spacing: Spacing,
    /// Seed of arrival times.
    pub(super) seed: u64,
    /// The time of the measurement.
    pub(super) time: Duration,
    /// From due to deadline.
    pub(super) budget: Duration,
    /// Milliseconds that the 99th percentile may have.
    pub(super) bound_ms: f64,
}

/// What a scenario is judged by.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The figure: its name, its value and its unit.
    pub figure: (&'static str, Option<f64>, &'static str),
    /// Whether the scenario's conditions were met; `None` for one without.
    pub valid: Option<bool>,
    /// Why not.
    pub reasons: Vec<String>,
}

impl Scenario {
    /// Heads that connect where none are asked for.
    pub(super) fn heads(self) -> usize {
        match self {
            Scenario::SingleStream => 1,
            Scenario::Offline => 4,
            Scenario::Heads | Scenario::Server => 100,
            Scenario::Greedy => 20,
            Scenario::Storm => 500,
            Scenario::Idle => 10_000,
        }
    }

    /// The time over which so many heads connect, and the handshakes in progress at once.
    pub(super) fn connecting(self, heads: usize) -> (Duration, usize) {
        match self {
            Scenario::Storm => (Duration::from_secs(1), heads),
            _ => (Duration::from_secs_f64(heads as f64 / 200.0), HANDSHAKES),
        }
    }

    /// Sends the frames of a scenario; the greedy device is for the caller.
    ///
    /// # Errors
    /// When frames cannot be sent.
    pub(super) async fn send(
        self,
        pace: &Pace,
        pool: &ClientPool,
        interrupt: &Interrupt,
    ) -> Result<LoadStats> {
        let Pace { time, budget, .. } = *pace;
        let arrivals = |spacing| Arrivals::new(spacing, pool.heads(), pace.rate, pace.seed);
        match self {
            Scenario::Heads | Scenario::Greedy => {
                pool.send(arrivals(pace.spacing), time, budget, interrupt).await
            }
            Scenario::Server => pool.send(arrivals(Spacing::Poisson), time, budget, interrupt).await,
            Scenario::SingleStream => pool.saturate(Some(1), time, None, interrupt).await,
            Scenario::Offline => pool.saturate(None, time, None, interrupt).await,
            Scenario::Storm => Ok(pool.once(budget).await),
            Scenario::Idle => Ok(pool.idle(time, interrupt).await),
        }
    }

    /// Frames a second that are offered; `None` where the server sets the pace.
    pub(super) fn offered(self, pace: &Pace, heads: usize) -> Option<f64> {
        match self {
            Scenario::Heads | Scenario::Server | Scenario::Greedy => Some(pace.rate * heads as f64),
            _ => None,
        }
    }

    /// The judgement of a step, by this many heads of which some connected within `connecting`.
    pub(super) fn judge(
        self,
        pace: &Pace,
        step: &Step,
        alone: Option<&Step>,
        (heads, connected): (usize, usize),
        connecting: Duration,
    ) -> Option<Verdict> {
        let mut reasons = Vec::new();
        let unanswered = step.frames - step.answered;
        if unanswered > 0 {
            reasons.push(format!("{unanswered} of {} frames were not answered", step.frames));
        }
        if connected < heads {
            reasons.push(format!("{} heads did not connect", heads - connected));
        }
        if step.heads_lost > 0 {
            reasons.push(format!("{} heads lost their connection", step.heads_lost));
        }
        let figure = match self {
            Scenario::Heads => return None,
            Scenario::SingleStream => ("90th percentile", step.answered_ms.p90, "ms"),
            Scenario::Offline => ("throughput", Some(step.throughput), "frames/s"),
            Scenario::Server => {
                if step.frames < SERVER_QUERIES {
                    reasons.push(format!("{} frames, fewer than {SERVER_QUERIES}", step.frames));
                }
                if step.answered_ms.p99.is_some_and(|p99| p99 > pace.bound_ms) {
                    reasons.push(format!("the 99th percentile is over --bound-ms {}", pace.bound_ms));
                }
                ("99th percentile", step.answered_ms.p99.or(step.answered_ms.p90), "ms")
            }
            Scenario::Greedy => {
                let p99 = |step: &Step| step.answered_ms.p99.or(step.answered_ms.p95);
                let rise = alone.and_then(p99).zip(p99(step)).map(|(alone, beside)| beside - alone);
                ("rise of the highest percentile beside the greedy device", rise, "ms")
            }
            Scenario::Storm => {
                let seconds = connecting.as_secs_f64() + step.seconds;
                ("from the first handshake to the last answer", Some(seconds), "s")
            }
            Scenario::Idle => ("connections kept", Some((connected - step.heads_lost) as f64), "connections"),
        };
        let valid = Some(reasons.is_empty());
        Some(Verdict { figure, valid, reasons })
    }
}

impl Verdict {
    /// The figure and whether it is valid, on one line.
    pub(super) fn text(&self) -> String {
        let (name, value, unit) = self.figure;
        let value = value.map_or_else(|| "too few frames".to_owned(), |value| format!("{value:.1} {unit}"));
        let valid = match self.valid {
            Some(true) => "VALID".to_owned(),
            Some(false) => format!("INVALID: {}", self.reasons.join("; ")),
            None => String::new(),
        };
        format!("{name}: {value}; {valid}")
    }
}
