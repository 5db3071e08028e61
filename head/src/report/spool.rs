//! What became of the frames of a spool.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// The state of the spool (`--spool`). Counts are those of this run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// The folder.
    pub folder: String,
    /// Frames that were put on disk.
    pub stored: u64,
    /// Frames from the disk that a server answered, or refused for good.
    pub settled: u64,
    /// Frames on disk that wait to be sent.
    pub waiting: u64,
    /// Frames on disk that wait for a run with their bundle.
    pub of_other_bundles: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Seconds since the capture of the oldest frame on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_s: Option<f64>,
    /// Frames dropped for want of room (`--spool-bytes`).
    pub dropped_full: u64,
    /// Frames dropped for their age (`--spool-age`).
    pub dropped_aged: u64,
    /// Files that were damaged and put aside, or could not be read.
    pub damaged: u64,
    /// Frames that could not be written.
    pub unwritten: u64,
    /// Why the last frame could not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// The state of the spool, shared by those that change and report it.
#[derive(Debug, Default)]
pub(crate) struct SpoolTally(Mutex<SpoolStatus>);

impl SpoolTally {
    /// The state of a spool in this folder.
    pub(crate) fn new(folder: String) -> Self {
        SpoolTally(Mutex::new(SpoolStatus { folder, ..SpoolStatus::default() }))
    }

    /// The state, to be read or changed.
    pub(crate) fn lock(&self) -> MutexGuard<'_, SpoolStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for SpoolStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SpoolStatus { folder, stored, settled, waiting, bytes, .. } = self;
        write!(
            f,
            "spool {folder}: {stored} stored, {settled} sent later, {waiting} waiting ({bytes} bytes)"
        )?;
        for (count, what) in [
            (self.of_other_bundles, "waiting for another bundle"),
            (self.dropped_full, "dropped for want of room"),
            (self.dropped_aged, "dropped for their age"),
            (self.damaged, "damaged"),
            (self.unwritten, "not written"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        match &self.trouble {
            Some(trouble) => write!(f, "; {trouble}"),
            None => Ok(()),
        }
    }
}
