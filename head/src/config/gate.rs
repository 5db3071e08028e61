//! The flags `--gate` and `--gate-max-age`.

use std::{fmt, str::FromStr, time::Duration};

use crate::Error;

/// Distance of `--gate auto`, in quantiser steps: above what noise and compression of a still scene move, below what an object
/// of 32 pixels moves that enters it (models/results/README.md).
const AUTO: f64 = 0.3;

/// Milliseconds for which an answer is kept unless another time is chosen.
const MAX_AGE: u64 = 5000;
/// Longest such time: an hour.
const LONGEST: u64 = 3_600_000;

/// Below which distance from the last answered frame its answer is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GateMode {
    /// Below none: every frame is given an answer of its own.
    Off,
    /// Below one that suits a still camera.
    Auto,
    /// Below this many quantiser steps.
    Distance(f64),
}

impl FromStr for GateMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(GateMode::Off),
            "auto" => Ok(GateMode::Auto),
            _ => {
                let steps = text.parse().ok().filter(|steps| (0.0..=255.0).contains(steps));
                steps
                    .map(GateMode::Distance)
                    .ok_or_else(|| "give off, auto or a number from 0 to 255".to_owned())
            }
        }
    }
}

impl fmt::Display for GateMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GateMode::Off => f.write_str("off"),
            GateMode::Auto => f.write_str("auto"),
            GateMode::Distance(steps) => steps.fmt(f),
        }
    }
}

/// When the answer to an earlier frame of the same source is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateSettings {
    /// Below which distance of the features, in quantiser steps of the bundle's default level.
    pub threshold: f64,
    /// Longest time between the captures of the two frames.
    pub max_age: Duration,
}

impl GateMode {
    /// The settings of the gate, if there is to be one; `max_age` is that of `--gate-max-age` in milliseconds.
    ///
    /// # Errors
    /// [`Error::Usage`] for an age without a gate, or one that is out of range.
    pub(super) fn settings(self, max_age: Option<u64>) -> Result<Option<GateSettings>, Error> {
        let wrong = |reason: String| Error::usage("--gate-max-age", reason);
        let threshold = match self {
            GateMode::Off if max_age.is_some() => return Err(wrong("only --gate keeps answers".to_owned())),
            GateMode::Off => return Ok(None),
            GateMode::Auto => AUTO,
            GateMode::Distance(distance) => distance,
        };
        let age = max_age.unwrap_or(MAX_AGE);
        match (1..=LONGEST).contains(&age) {
            true => Ok(Some(GateSettings { threshold, max_age: Duration::from_millis(age) })),
            false => Err(wrong(format!("{age} is out of range; give 1 to {LONGEST}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_off_auto_or_a_distance() {
        assert_eq!("off".parse(), Ok(GateMode::Off));
        assert_eq!("auto".parse(), Ok(GateMode::Auto));
        assert_eq!("0.5".parse(), Ok(GateMode::Distance(0.5)));
        for text in ["", "on", "-0.1", "256", "inf", "nan", "1x"] {
            let error = text.parse::<GateMode>().unwrap_err();
            assert!(error.contains("off, auto or a number from 0 to 255"), "{text}: {error}");
        }
    }
}
