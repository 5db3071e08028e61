//! From windows of a recording to joules: gross, net of idle, and the one figure for the largest thing measured.

use serde::{Deserialize, Serialize};

use crate::{Energy, Quality, Rail, Recording, Scope, Window};

/// Idle power before and after may differ by this share before it is remarked on.
const DRIFT: f64 = 0.1;
/// Fewer new values of the sensor than this make no figure to rely on.
const FEW: usize = 10;

/// Which windows of a recording are the run, and which are idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The work.
    pub run: Window,
    /// Doing nothing, before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_before: Option<Window>,
    /// Doing nothing, after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<Window>,
}

impl Plan {
    /// A run without a baseline: gross joules only.
    pub fn of(run: Window) -> Self {
        Plan { run, idle_before: None, idle_after: None }
    }
}

/// One rail over one plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The rail and its story.
    pub rail: Rail,
    /// Energy of the run, idle included.
    pub gross: Energy,
    /// Mean watts of the run; `None` if nothing was read.
    pub watts: Option<f64>,
    /// The baseline, if the plan has one and it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// Joules above the baseline in the covered time; `None` without a baseline.
    pub net_joules: Option<f64>,
    /// Whether nothing of the run is missing.
    pub complete: bool,
    /// What makes the figure less reliable than it looks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Power while doing nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Idle {
    /// Before the run.
    pub before_watts: Option<f64>,
    /// After it.
    pub after_watts: Option<f64>,
    /// The baseline that net joules are above: the mean of the two.
    pub watts: f64,
}

/// The joules of a run, for the largest thing that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Total {
    /// The rails that are added up.
    pub rails: Vec<String>,
    /// How much of the device they cover.
    pub scope: Scope,
    /// Estimated if any of them is.
    pub quality: Quality,
    /// Joules of the run, idle included.
    pub gross_joules: f64,
    /// Joules above the baseline; `None` without one.
    pub net_joules: Option<f64>,
    /// Whether nothing of the run is missing.
    pub complete: bool,
}

impl Measured {
    pub(crate) fn new(rail: &Rail, energy: impl Fn(Window) -> Energy, plan: &Plan) -> Self {
        let gross = energy(plan.run);
        let watts = gross.watts();
        let baseline = |window: Option<Window>| window.and_then(|window| energy(window).watts());
        let (before, after) = (baseline(plan.idle_before), baseline(plan.idle_after));
        let idle = match (before, after) {
            (Some(one), Some(other)) => Some((one + other) / 2.0),
            (one, other) => one.or(other),
        };
        let idle = idle.map(|watts| Idle { before_watts: before, after_watts: after, watts });
        let mut remarks = Vec::new();
        if let (Some(one), Some(other)) = (before, after)
            && (one - other).abs() > DRIFT * one.max(other)
        {
            remarks.push(format!(
                "idle power was {one:.2} W before and {other:.2} W after: net joules are uncertain; let the device settle"
            ));
        }
        if gross.readings < FEW && rail.method != crate::Method::EnergyCounter {
            remarks.push(format!("only {} readings: measure for longer", gross.readings));
        }
        let net_joules =
            idle.filter(|_| watts.is_some()).map(|idle| gross.joules - idle.watts * gross.covered_s);
        Measured { rail: rail.clone(), complete: gross.complete(), watts, gross, idle, net_joules, remarks }
    }
}

impl Recording {
    /// Every rail over `plan`.
    pub fn over(&self, plan: &Plan) -> Vec<Measured> {
        self.rails().map(|(rail, trace)| Measured::new(rail, |window| trace.energy(window), plan)).collect()
    }
}

/// Adds up the rails of the widest [`Scope`] that are not part of another, of one sensor kind only.
///
/// # Errors
/// Why the joules are unknown, in words for a report.
pub fn total(measured: &[Measured]) -> Result<Total, String> {
    let whole = |one: &&Measured| one.rail.part_of.is_none() && one.rail.scope != Scope::Part;
    if measured.is_empty() {
        return Err("no power sensor can be read on this device".to_owned());
    }
    let read = || measured.iter().filter(whole).filter(|one| one.watts.is_some());
    let Some(best) = read().min_by_key(|one| (one.rail.scope, one.rail.quality == Quality::Estimated)) else {
        return Err("no sensor of a whole device, module or processor gave a reading in the run".to_owned());
    };
    let (scope, quality) = (best.rail.scope, best.rail.quality);
    // Two meters in one supply line would count it twice; packages and cards are separate things.
    let several = matches!(scope, Scope::Processor | Scope::Gpu);
    let chosen: Vec<&Measured> = match several {
        true => read().filter(|one| one.rail.scope == scope).collect(),
        false => vec![best],
    };
    let net = chosen.iter().map(|one| one.net_joules).sum();
    Ok(Total {
        rails: chosen.iter().map(|one| one.rail.name.clone()).collect(),
        scope,
        quality: match chosen.iter().any(|one| one.rail.quality == Quality::Estimated) {
            true => Quality::Estimated,
            false => quality,
        },
        gross_joules: chosen.iter().map(|one| one.gross.joules).sum(),
        net_joules: net,
        complete: chosen.iter().all(|one| one.complete),
    })
}
