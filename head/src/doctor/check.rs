//! Checks and how they are told.

use std::fmt;

use narrows_models::Bundle;
use narrows_power::Sensors;
use serde::Serialize;

use crate::Error;

/// One line of the doctor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub what: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What would help; every warning and failure has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing to do.
    Ok,
    /// It works, and could be better or may not last.
    Warning,
    /// It does not work.
    Failed,
}

/// Everything that was looked at, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checks {
    checks: Vec<Check>,
}

impl Check {
    /// Nothing to do.
    pub fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Check { what, state: State::Ok, found: found.into(), remedy: None }
    }

    /// It works, and `remedy` would make it better.
    pub fn warning(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Check { what, state: State::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// It does not work until `remedy`.
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

    /// Whether one of them failed.
    pub fn failed(&self) -> bool {
        self.checks.iter().any(|check| check.state == State::Failed)
    }

    /// As JSON.
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

/// A bundle that was opened: its digests hold.
pub(super) fn bundle(bundle: &Bundle) -> Check {
    let parts = bundle.manifest().digests();
    let here = parts.iter().filter(|(part, _)| bundle.path(part).exists()).count();
    let found = format!(
        "{} {}: the digests of {here} parts hold, {} parts are not on this device",
        bundle.name(),
        bundle.digest().short(),
        parts.len() - here
    );
    Check::ok("bundle", found)
}

/// What can tell joules here.
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
