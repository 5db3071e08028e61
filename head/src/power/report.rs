//! What `narrows-head power` prints, as JSON or as a table.

use narrows_power::{Absent, Cost, Measured, Plan, Rail, Total, Window};
use serde::Serialize;

/// The rails and sensors of this device.
#[derive(Serialize)]
pub(super) struct Listing<'a> {
    pub(super) board: Option<&'a str>,
    pub(super) rails: Vec<&'a Rail>,
    pub(super) absent: &'a [Absent],
}

/// The result of a measurement.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<Vec<String>>,
    /// Exit code of the command; absent without a command or when a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit: Option<i32>,
    /// Whether readings cover the whole run.
    pub(super) complete: bool,
    pub(super) interrupted: bool,
    pub(super) seconds: f64,
    pub(super) total: Option<Total>,
    /// Reason why there is no total.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unknown: Option<String>,
    pub(super) rails: Vec<Measured>,
    pub(super) absent: Vec<Absent>,
    pub(super) failures: Vec<String>,
    /// Why the board was slower than it can be; empty where nothing says that it was.
    pub(super) throttled: Vec<String>,
    /// Reasons to rely less on all rails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) remarks: Vec<String>,
    pub(super) plan: Plan,
    pub(super) markers: Vec<Window>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sampler: Option<Cost>,
}
