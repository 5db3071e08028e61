//! Where, when and with what a report was measured.

use std::path::Path;

use narrows_models::Bundle;

use super::{dataset::Dataset, report::Run};
use crate::machine;

/// The machine with its clocks and its load during the runs: pairs of name and value, in the order to show.
///
/// `throttled` is [`machine::throttled`] of before the first run, `sensor` the power sensor or why there is none, and
/// `runtime` the version of ONNX Runtime.
#[must_use]
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

/// Limits of this run that a reader must know.
#[must_use]
pub fn notes(bundle: &Bundle, sets: &[Dataset]) -> Vec<String> {
    let unlabelled: Vec<&str> =
        sets.iter().filter(|set| !set.labelled()).map(|set| set.name.as_str()).collect();
    let mut notes = Vec::new();
    if !unlabelled.is_empty() {
        notes.push(format!(
            "No labelled data was given for {}: accuracy is not measured, only agreement with the unsplit network. \
             `--data` gives accuracy.",
            unlabelled.join(" and ")
        ));
    }
    if bundle.local().is_none() {
        notes.push("The bundle has no local network: the device alone is not compared.".into());
    }
    notes
}

/// The command line. Absolute paths lose their folders, which are private.
#[must_use]
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
    fn the_machine_has_ranges_and_says_what_is_unknown() {
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
