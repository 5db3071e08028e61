//! The flag `--exit`.

use narrows_models::Bundle;

use super::threshold::Threshold;

/// From which confidence on the local network's answer is used and a frame is not sent: a probability, or with `auto` what the
/// bundle was calibrated to.
pub type ExitMode = Threshold<1>;

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
            (ExitMode::At(threshold), _) => Ok(Some(threshold)),
            (_, Some(exit)) => Ok(Some(exit.threshold)),
            (_, None) => {
                let reason = "auto: the bundle has no calibrated exit; give a threshold from 0 to 1, or \
                              calibrate it with `recipe exit` (models/recipes/README.md)";
                Err(reason.to_owned())
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
        assert_eq!("0.45".parse(), Ok(ExitMode::At(0.45)));
        for text in ["", "on", "45", "-0.1", "1.01", "nan", "0.5x"] {
            let error = text.parse::<ExitMode>().unwrap_err();
            assert!(error.contains("off, auto or a number from 0 to 1"), "{text}: {error}");
        }
    }
}
