//! Joules of the windows of a recording: gross, net of idle, and the total over the rails that cover the most.

use serde::{Deserialize, Serialize};

use crate::{Energy, Quality, Rail, Recording, Scope, Window};

/// Largest share by which idle power before and after the run may differ without a remark.
const DRIFT: f64 = 0.1;
/// Fewest new values of the sensor without a remark.
const FEW: usize = 10;

/// The windows of a recording: the run, and the idle time around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The run to be measured.
    pub run: Window,
    /// Idle time before the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_before: Option<Window>,
    /// Idle time after the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<Window>,
}

impl Plan {
    /// A run without idle time, for gross joules only.
    #[must_use]
    pub fn of(run: Window) -> Self {
        Plan { run, idle_before: None, idle_after: None }
    }
}

/// The energy of one rail over the windows of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The rail and its provenance.
    pub rail: Rail,
    /// Energy of the run, idle power included.
    pub gross: Energy,
    /// Mean watts of the run; `None` without readings.
    pub watts: Option<f64>,
    /// Idle power, if the plan has idle windows with readings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// Joules above idle power in the time that readings cover; `None` without idle power.
    pub net_joules: Option<f64>,
    /// Whether readings cover the whole run.
    pub complete: bool,
    /// Reasons to rely less on the figure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Power without the work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Idle {
    /// Watts before the run.
    pub before_watts: Option<f64>,
    /// Watts after the run.
    pub after_watts: Option<f64>,
    /// Mean of the two, which net joules subtract.
    pub watts: f64,
}

/// The joules of a run over the rails that cover the largest part of the device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Total {
    /// Names of the rails that are summed.
    pub rails: Vec<String>,
    /// The part of the device that they cover.
    pub scope: Scope,
    /// Estimated if any of them is.
    pub quality: Quality,
    /// Joules of the run, idle power included.
    pub gross_joules: f64,
    /// Joules above idle power; `None` without it.
    pub net_joules: Option<f64>,
    /// Whether readings cover the whole run.
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
    /// Returns the energy of every rail over the windows of `plan`.
    #[must_use]
    pub fn over(&self, plan: &Plan) -> Vec<Measured> {
        self.rails().map(|(rail, trace)| Measured::new(rail, |window| trace.energy(window), plan)).collect()
    }
}

/// Sums the rails of the widest [`Scope`] that was read, leaving out those that are part of another rail.
///
/// # Errors
/// The reason why the joules are unknown, as text for a report.
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
    // Two meters of one supply line would count it twice; processor packages and cards are separate loads.
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
