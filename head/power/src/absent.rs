//! Sensors that exist and cannot be read.

use serde::Serialize;

use crate::Error;

/// A sensor that exists and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// Name of the sensor.
    pub sensor: String,
    /// Why it cannot be read.
    pub reason: String,
    /// What would make it readable, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Absent {
    pub(crate) fn new(sensor: impl Into<String>, error: &Error) -> Self {
        let reason = match error {
            Error::Forbidden { path, .. } => format!("{} may not be read by this user", path.display()),
            Error::Silent { reason, .. } => reason.clone(),
            other => other.report(),
        };
        Absent { sensor: sensor.into(), reason, remedy: error.remedy().map(str::to_owned) }
    }
}
