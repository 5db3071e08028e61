//! The flags `--gate` and `--gate-max-age`.

use std::time::Duration;

use super::threshold::Threshold;
use crate::Error;

/// Distance of `--gate auto`, in quantiser steps: above what noise and compression of a still scene move, below what an object
/// of 32 pixels moves that enters it (models/results/README.md).
const AUTO: f64 = 0.3;

/// Milliseconds for which an answer is kept unless another time is chosen.
const MAX_AGE: u64 = 5000;
/// Longest such time: an hour.
const LONGEST: u64 = 3_600_000;

/// Below which distance from the last answered frame its answer is kept, in quantiser steps; with `auto` one that suits a still
/// camera.
pub type GateMode = Threshold<255>;

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
            GateMode::At(distance) => distance,
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
        assert_eq!("0.5".parse(), Ok(GateMode::At(0.5)));
        for text in ["", "on", "-0.1", "256", "inf", "nan", "1x"] {
            let error = text.parse::<GateMode>().unwrap_err();
            assert!(error.contains("off, auto or a number from 0 to 255"), "{text}: {error}");
        }
    }
}
