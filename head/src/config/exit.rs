//! The flag `--exit`.

use std::{fmt, str::FromStr};

use narrows_models::Bundle;

/// From which confidence on the local network's answer is used and a frame is not sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ExitMode {
    /// From none: every frame is sent.
    Off,
    /// From the threshold that the bundle was calibrated to.
    Auto,
    /// From this probability on, from 0 to 1.
    Threshold(f64),
}

impl FromStr for ExitMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(ExitMode::Off),
            "auto" => Ok(ExitMode::Auto),
            _ => {
                let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
                share
                    .map(ExitMode::Threshold)
                    .ok_or_else(|| "give off, auto or a number from 0 to 1".to_owned())
            }
        }
    }
}

impl fmt::Display for ExitMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitMode::Off => f.write_str("off"),
            ExitMode::Auto => f.write_str("auto"),
            ExitMode::Threshold(threshold) => threshold.fmt(f),
        }
    }
}

impl ExitMode {
    /// The threshold on the local network's confidence where the run asks for `tasks`, or why there can be none. `sends` says
    /// whether the path sends frames.
    pub(super) fn threshold(
        self,
        sends: bool,
        bundle: &Bundle,
        tasks: &[usize],
    ) -> Result<Option<f64>, String> {
        if self == ExitMode::Off {
            return Ok(None);
        }
        if !sends {
            return Err("--path local sends nothing; leave it out, or choose split or image".to_owned());
        }
        let local = bundle.local().ok_or("the bundle brings no local network")?;
        if let Some(&other) = tasks.iter().find(|&&task| task != local.task) {
            let (own, other) = (&bundle.tasks()[local.task].name, &bundle.tasks()[other].name);
            return Err(format!("{other} needs the server for every frame; use it with --tasks {own} alone"));
        }
        if !bundle.has(&local.file) {
            return Err(format!("{} is not in the bundle's folder on this device", local.file));
        }
        match (self, &local.exit) {
            (ExitMode::Threshold(threshold), _) => Ok(Some(threshold)),
            (_, Some(exit)) => Ok(Some(exit.threshold)),
            (_, None) => {
                Err("auto: the bundle has no calibrated exit; give a threshold from 0 to 1, or calibrate it \
                              with `recipe exit` (models/recipes/README.md)"
                    .to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_off_auto_or_a_share() {
        assert_eq!("off".parse(), Ok(ExitMode::Off));
        assert_eq!("auto".parse(), Ok(ExitMode::Auto));
        assert_eq!("0.45".parse(), Ok(ExitMode::Threshold(0.45)));
        for text in ["", "on", "45", "-0.1", "1.01", "nan", "0.5x"] {
            let error = text.parse::<ExitMode>().unwrap_err();
            assert!(error.contains("off, auto or a number from 0 to 1"), "{text}: {error}");
        }
    }
}
