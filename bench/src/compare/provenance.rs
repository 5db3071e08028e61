//! What every number of a report rests on.

use std::path::Path;

use narrows_eval::local_f32::Weights;
use narrows_models::Bundle;
use narrows_netsim::DirectionFidelity;

use super::{
    dataset::Dataset,
    report::{Fidelity, Method, Run, Variant},
};
use crate::machine;

/// The machine by name, in the order to show, with what its clocks and its heat did meanwhile.
///
/// `throttled` is [`machine::throttled`] from before the run, `runtime` the version of ONNX Runtime.
pub fn machine(throttled: Option<u64>, sensor: &str, runtime: &str, runs: &[Run]) -> Vec<(String, String)> {
    let slowed = match throttled.zip(machine::throttled()) {
        Some((before, after)) => format!("{} times during the run", after.saturating_sub(before)),
        None => "unknown: the kernel counts none here".into(),
    };
    let clock = range(runs.iter().filter_map(|run| run.mhz), " MHz: the fastest core's, after each run");
    let load = range(runs.iter().filter_map(|run| run.load), ": mean of a minute, before each run");
    let mut facts = machine::describe();
    facts.extend(
        [
            ("clock", clock),
            ("slowed for heat", slowed),
            ("load", load),
            ("power sensor", sensor.to_owned()),
            ("ONNX Runtime", format!("{runtime}; every core in the tail, one for what the device does")),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    facts
}

fn range(values: impl Iterator<Item = f64>, what: &str) -> String {
    let ends = values.fold(None, |ends: Option<(f64, f64)>, value| {
        let (least, most) = ends.unwrap_or((value, value));
        Some((least.min(value), most.max(value)))
    });
    ends.map_or_else(|| "unknown".to_owned(), |(least, most)| format!("{least:.1} to {most:.1}{what}"))
}

/// What a link was asked for and found to do, property by property.
pub fn fidelity(found: &narrows_netsim::Fidelity) -> Vec<Fidelity> {
    [("up", &found.up), ("down", &found.down)]
        .into_iter()
        .flat_map(|(name, way)| properties(name, way))
        .collect()
}

fn properties(name: &str, way: &DirectionFidelity) -> Vec<Fidelity> {
    let mut properties = Vec::new();
    let mut add = |what: String, asked: f64, found: f64, spread: f64, holds: bool| {
        properties.push(Fidelity { what, asked, found, bounds: (asked - spread, asked + spread), holds });
    };
    if let Some((asked, found)) = way.asked_kbit.zip(way.kbit) {
        add(format!("rate {name}, kbit/s"), asked, found, 0.03 * asked, way.rate_holds());
    }
    if let Some((relay, tbf)) = way.kbit.zip(way.tbf_kbit) {
        let holds = way.tbf_off().is_none_or(|off| off.abs() <= 0.05);
        add(format!("rate {name} of the kernel's tbf, kbit/s"), relay, tbf, 0.05 * relay, holds);
    }
    let spread = (0.02 * way.asked_ms).max(1.0);
    add(format!("one way {name}, median ms"), way.asked_ms, way.ms_p50, spread, way.delay_holds());
    if way.asked_loss > 0.0 {
        let (least, most) = way.missing_bounds;
        properties.push(Fidelity {
            what: format!("lost {name}, of {}", way.sent),
            asked: way.asked_loss * way.sent as f64,
            found: way.missing as f64,
            bounds: (least as f64, most as f64),
            holds: way.loss_holds(),
        });
    }
    properties
}

/// What the reader must know before the numbers.
pub fn notes(bundle: &Bundle, sets: &[Dataset], variants: &[Variant]) -> Vec<String> {
    let unlabelled: Vec<&str> =
        sets.iter().filter(|set| !set.labelled()).map(|set| set.name.as_str()).collect();
    let mut notes = Vec::new();
    if !unlabelled.is_empty() {
        notes.push(format!(
            "No labelled data was given for {}: what stands for accuracy is agreement with the unsplit network on a \
             handful of photos, too few to tell variants apart. --data gives figures.",
            unlabelled.join(" and ")
        ));
    }
    let compared = |group: Method| variants.iter().any(|variant| variant.group == group);
    match (bundle.local(), Weights::of(bundle)) {
        (None, _) => notes.push("The bundle brings no local network: the device alone is not in the comparison.".into()),
        (Some(_), Some(Weights::Random)) if compared(Method::Reference) => notes.push(
            "The bundle brings its local network in int8 alone. `local f32`, what it is held against, is the same layers \
             with noise for weights: it takes the same time, and its accuracy is not known. `recipe local --reference` \
             adds the network itself."
                .into(),
        ),
        (Some(local), None) if compared(Method::Local) => notes.push(format!(
            "The bundle brings its local network ({}) in int8 alone: there is no f32 form to hold it against. \
             `recipe local --reference` adds it.",
            local.backbone
        )),
        _ => {}
    }
    notes
}

/// The command line. Absolute paths lose their folders: a report does not tell where on a machine things lie.
pub fn command() -> String {
    let words = std::env::args().map(|word| match Path::new(&word).is_absolute() {
        true => Path::new(&word).file_name().map_or(word.clone(), |name| name.to_string_lossy().into_owned()),
        false => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture;

    #[test]
    fn a_link_is_held_to_its_rate_its_delay_and_its_loss() {
        let way = DirectionFidelity {
            asked_kbit: Some(5000.0),
            kbit: Some(4900.0),
            tbf_kbit: Some(5300.0),
            asked_ms: 7.5,
            ms_p50: 8.6,
            ms_p95: 9.0,
            asked_loss: 0.01,
            sent: 2000,
            missing: 18,
            missing_bounds: (7, 33),
            overtaken: 0,
        };
        let properties = properties("up", &way);
        let seen: Vec<_> = properties.iter().map(|of| (of.what.as_str(), of.found, of.holds)).collect();
        assert_eq!(
            seen,
            [
                ("rate up, kbit/s", 4900.0, true),
                ("rate up of the kernel's tbf, kbit/s", 5300.0, false),
                ("one way up, median ms", 8.6, false),
                ("lost up, of 2000", 18.0, true),
            ]
        );
        assert_eq!(properties[2].bounds, (6.5, 8.5));
    }

    #[test]
    fn the_machine_says_what_is_unknown_and_the_range_of_the_rest() {
        let mut runs = [fixture::run("lte", "split 1", 3), fixture::run("lte", "split 1", 3)];
        (runs[0].load, runs[1].load) = (Some(0.25), Some(1.5));
        (runs[0].mhz, runs[1].mhz) = (None, None);
        let facts = machine(None, "no sensor", "1.0.0", &runs);
        let of = |name: &str| facts.iter().find(|(other, _)| other == name).unwrap().1.as_str();
        assert_eq!(of("load"), "0.2 to 1.5: mean of a minute, before each run");
        assert_eq!(of("clock"), "unknown");
        assert_eq!(of("slowed for heat"), "unknown: the kernel counts none here");
        assert!(!of("processor").is_empty() && !of("governor").is_empty());
    }
}
