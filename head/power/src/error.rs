//! What can go wrong while measuring, split by blame.

use std::{io, path::PathBuf};

/// Why a sensor, a recording or a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sensor is there and this user may not read it.
    #[error("{} may not be read by this user. {remedy}", path.display())]
    Forbidden {
        /// The file or program.
        path: PathBuf,
        /// What opens it.
        remedy: &'static str,
    },
    /// A sensor's file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A sensor says something else than a reading.
    #[error("{place}: {found:?} is not {wanted}")]
    Malformed {
        /// The file or program.
        place: String,
        /// What stands there.
        found: String,
        /// What belongs there.
        wanted: &'static str,
    },
    /// A sensor gives no reading at present.
    #[error("{sensor}: {reason}")]
    Silent {
        /// The sensor.
        sensor: String,
        /// Why, and the way out.
        reason: String,
    },
    /// A meter's recording cannot be used.
    #[error("the meter's recording: {0}")]
    Recording(String),
    /// A radio model cannot be used.
    #[error("the radio model: {0}")]
    Model(String),
    /// This machine gives no thread, or the one that samples failed.
    #[error("this device: {0}")]
    Device(String),
}

/// The sort of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The sensor is there; permissions are missing.
    Permission,
    /// The sensor is away or broken.
    Sensor,
    /// What the caller brought is at fault: a recording or a model.
    Input,
    /// This machine failed.
    Device,
}

impl Error {
    /// The sort of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Forbidden { .. } => ErrorKind::Permission,
            Error::Unreadable { .. } | Error::Malformed { .. } | Error::Silent { .. } => ErrorKind::Sensor,
            Error::Recording(_) | Error::Model(_) => ErrorKind::Input,
            Error::Device(_) => ErrorKind::Device,
        }
    }

    /// What opens the sensor, if permissions are what is missing.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Error::Forbidden { remedy, .. } => Some(remedy),
            _ => None,
        }
    }

    pub(crate) fn reading(path: impl Into<PathBuf>, source: io::Error, remedy: &'static str) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Forbidden { path, remedy },
            _ => Error::Unreadable { path, source },
        }
    }
}
