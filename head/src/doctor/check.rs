//! Checks and their output.

use std::fmt;

use narrows_models::Bundle;
use narrows_power::Sensors;
use serde::Serialize;

use crate::Error;

/// One checked property, with what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name of the property.
    pub what: &'static str,
    /// State of the property.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What would help; every warning and every failure has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// State of a checked property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Ok,
    /// It works, and could be better or may stop working.
    Warning,
    /// It does not work.
    Failed,
}

/// All checks, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checks {
    checks: Vec<Check>,
}

impl Check {
    /// It works.
    #[must_use]
    pub fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Check { what, state: State::Ok, found: found.into(), remedy: None }
    }

    /// It works, and `remedy` would make it better.
    #[must_use]
    pub fn warning(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Check { what, state: State::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// It does not work until `remedy`.
    #[must_use]
    pub fn failed(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Check { what, state: State::Failed, found: found.into(), remedy: Some(remedy.into()) }
    }
}

impl Checks {
    /// Adds a check.
    pub fn push(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// Adds checks.
    pub fn extend(&mut self, checks: impl IntoIterator<Item = Check>) {
        self.checks.extend(checks);
    }

    /// Whether a check failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.checks.iter().any(|check| check.state == State::Failed)
    }

    /// Returns the checks as JSON.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no memory for it.
    pub fn json(&self) -> Result<String, Error> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n")
            .map_err(|error| Error::Device { problem: "no JSON", source: error.into() })
    }
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let state = match check.state {
                State::Ok => "ok",
                State::Warning => "warning",
                State::Failed => "failed",
            };
            writeln!(f, "{state:<8} {:<12} {}", check.what, check.found)?;
            if let Some(remedy) = &check.remedy {
                writeln!(f, "{:<21} {remedy}", "")?;
            }
        }
        Ok(())
    }
}

/// The check of a bundle that was opened, so its digests are right.
pub(super) fn bundle(bundle: &Bundle) -> Check {
    let parts = bundle.manifest().digests();
    let here = parts.iter().filter(|(part, _)| bundle.has(part)).count();
    let found = format!(
        "{} {}: the digests of {here} parts hold, {} parts are not on this device",
        bundle.name(),
        bundle.digest().short(),
        parts.len() - here
    );
    Check::ok("bundle", found)
}

/// The checks of the power sensors.
pub(super) fn sensors(sensors: &Sensors) -> Vec<Check> {
    let rails: Vec<&str> = sensors.rails().map(|rail| rail.name.as_str()).collect();
    let mut checks = vec![match rails.is_empty() {
        true => Check::warning(
            "power",
            "no power sensor can be read: joules are unknown",
            "Put an INA226 or INA260 into the supply, or align a USB meter's recording (`narrows-head power --marker`)",
        ),
        false => Check::ok("power", rails.join(", ")),
    }];
    checks.extend(sensors.absent.iter().map(|absent| {
        let remedy =
            absent.remedy.as_deref().unwrap_or("`narrows-head power` lists what can be read instead");
        Check::warning("power", format!("{}: {}", absent.sensor, absent.reason), remedy)
    }));
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_decides_the_exit_code_and_a_warning_does_not() {
        let mut checks = Checks::default();
        checks.push(Check::ok("a", "fine"));
        checks.push(Check::warning("b", "slow", "hurry"));
        assert!(!checks.failed());
        checks.push(Check::failed("c", "broken", "mend"));
        assert!(checks.failed());
        let text = checks.to_string();
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains("warning  b            slow\n                      hurry\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&checks.json().unwrap()).unwrap();
        assert_eq!(json["checks"][2]["state"], "failed");
        assert!(json["checks"][0].get("remedy").is_none());
    }
}
