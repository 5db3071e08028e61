//! Writes reports as JSON files.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes `report` to `path`, indented; without a path, does nothing.
pub(crate) fn write(path: Option<&Path>, report: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)? + "\n";
    fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
}
