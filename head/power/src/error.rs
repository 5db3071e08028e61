//! Why a sensor, a recording or a radio model cannot be used.

use std::{error::Error as StdError, io, path::PathBuf};

/// Why a sensor, a recording or a model cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sensor exists and this user may not read it.
    #[error("{} may not be read by this user. {remedy}", path.display())]
    Forbidden {
        /// The file or program.
        path: PathBuf,
        /// How to get the permission.
        remedy: &'static str,
    },
    /// A sensor's file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A sensor's text is not a reading.
    #[error("{place}: {found:?} is not {wanted}")]
    Malformed {
        /// The file or program.
        place: String,
        /// The text.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A sensor has no reading at present.
    #[error("{sensor}: {reason}")]
    Silent {
        /// The sensor.
        sensor: String,
        /// Why, and how to change it.
        reason: String,
    },
    /// A meter's recording breaks a rule.
    #[error("the meter's recording: {0}")]
    Recording(String),
    /// A meter's recording is not CSV.
    #[error("the meter's recording")]
    Csv(#[from] csv::Error),
    /// A radio model breaks a rule.
    #[error("the radio model: {0}")]
    Model(String),
    /// A radio model is not the TOML that it should be.
    #[error("the radio model")]
    Toml(#[from] toml::de::Error),
    /// The thread that samples cannot be started.
    #[error("no thread can be started to read the sensors")]
    Thread(#[source] io::Error),
    /// The thread that samples failed, or the marker was interrupted.
    #[error("this device: {0}")]
    Device(String),
}

/// The kind of an [`Error`], for callers that choose what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Permissions are missing.
    Permission,
    /// The sensor is broken or was removed.
    Sensor,
    /// A recording or a model that the caller gave cannot be used.
    Input,
    /// This machine failed.
    Device,
}

impl Error {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Forbidden { .. } => ErrorKind::Permission,
            Error::Unreadable { .. } | Error::Malformed { .. } | Error::Silent { .. } => ErrorKind::Sensor,
            Error::Recording(_) | Error::Csv(_) | Error::Model(_) | Error::Toml(_) => ErrorKind::Input,
            Error::Thread(_) | Error::Device(_) => ErrorKind::Device,
        }
    }

    /// How to get the permission to read the sensor, if that is what is missing.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Error::Forbidden { remedy, .. } => Some(remedy),
            _ => None,
        }
    }

    /// This error and its sources in one line, for reports.
    pub(crate) fn report(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            text += &format!(": {}", error.to_string().trim_end());
            source = error.source();
        }
        text
    }

    /// A failure to read `path`; `remedy` is how to get the permission.
    pub(crate) fn reading(path: impl Into<PathBuf>, source: io::Error, remedy: &'static str) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Forbidden { path, remedy },
            _ => Error::Unreadable { path, source },
        }
    }
}
