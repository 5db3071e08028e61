//! The flags of the record of decisions.

use std::path::PathBuf;

use super::outputs::size;

/// Size at which the file is renamed unless another one is given.
const SIZE: u64 = 64 << 20;
/// Least such size: a state with many frames fits often.
const LEAST: u64 = 64 << 10;

/// A file of observations and decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionSettings {
    /// The file.
    pub file: PathBuf,
    /// Bytes at which it is renamed.
    pub size: u64,
}

/// The flags of the record of decisions, as given.
#[derive(Debug, Clone, clap::Args)]
pub struct DecisionFlags {
    /// Record what rate control observed and decided in this file, on which `narrows-bench policy --replay` decides again
    /// (docs/rate-control.md); it is appended to
    #[arg(long, value_name = "FILE")]
    pub decisions: Option<PathBuf>,

    /// Size at which the file of --decisions is renamed to FILE.1, in the place of the one before, with K, M or G for powers of
    /// 1024 [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "decisions")]
    pub decisions_size: Option<u64>,
}

impl DecisionFlags {
    /// The settings, if decisions are recorded. `has_decisions` tells whether the run decides anything.
    ///
    /// # Errors
    /// The flag whose value is out of range, and what it may be.
    pub(super) fn settings(&self, has_decisions: bool) -> Result<Option<DecisionSettings>, crate::Error> {
        let Some(file) = self.decisions.clone() else { return Ok(None) };
        if !has_decisions {
            let reason = "nothing is decided with these flags; use it with --level auto, --exit or --gate";
            return Err(crate::Error::usage("--decisions", reason));
        }
        let size = super::in_range("--decisions-size", self.decisions_size.unwrap_or(SIZE), LEAST, 1 << 40)?;
        Ok(Some(DecisionSettings { file, size }))
    }
}
