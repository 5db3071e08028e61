//! What is written of a measurement.

use serde::Serialize;

use super::{
    machine::Machine,
    stages::{Camera, Network},
    sustained::Sustained,
};
use crate::doctor::Checks;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The program and its version.
    pub(super) program: String,
    /// Seconds since 1970, by this device's clock.
    pub(super) taken_at: u64,
    pub(super) machine: Machine,
    pub(super) bundle: BundleFacts,
    /// What `narrows-head doctor` finds.
    pub(super) checks: Checks,
    pub(super) networks: Vec<Network>,
    pub(super) cameras: Vec<Camera>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sustained: Option<Sustained>,
    /// Whether it was ended before its time.
    pub(super) interrupted: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct BundleFacts {
    pub(super) name: String,
    pub(super) digest: String,
}
