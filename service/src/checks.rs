//! Checks of a program's surroundings and their output.

use std::{
    fmt,
    io::{self, Write},
};

use serde::Serialize;

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
    /// That of the writer of JSON, if there is no memory for it.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// Prints the checks to standard output, as lines or as JSON. That nobody reads them is no error.
    ///
    /// # Errors
    /// That of standard output.
    pub fn print(&self, json: bool) -> io::Result<()> {
        print(&if json { self.json()? } else { self.to_string() })
    }
}

/// Writes a text to standard output. That nobody reads it is no error.
///
/// # Errors
/// That of standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
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
