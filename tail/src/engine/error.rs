//! The errors that keep an engine from starting.

use std::{error::Error as StdError, io, path::PathBuf};

use super::ort;
use crate::Shortage;

/// The reason why an engine could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A bundle cannot be used.
    #[error("bundle {}", folder.display())]
    Bundle {
        /// The bundle's folder.
        folder: PathBuf,
        /// The error of the bundle.
        source: narrows_models::Error,
    },
    /// The probability tables of a bundle cannot be used.
    #[error("bundle {}: {file}", folder.display())]
    Tables {
        /// The bundle's folder.
        folder: PathBuf,
        /// The file of the tables.
        file: String,
        /// The error of the tables.
        source: narrows_codec::Error,
    },
    /// The parts of a bundle contradict each other, or the engine cannot serve them.
    #[error("bundle {}: {reason}", folder.display())]
    Unfit {
        /// The bundle's folder.
        folder: PathBuf,
        /// The contradiction.
        reason: String,
    },
    /// A network does not compute what a test vector of its bundle says.
    #[error("bundle {}: vector {vector}: {reason}", folder.display())]
    Vector {
        /// The bundle's folder.
        folder: PathBuf,
        /// The vector.
        vector: String,
        /// The difference.
        reason: String,
    },
    /// ONNX Runtime, its device, or a network of the bundle cannot be used.
    #[error(transparent)]
    Ort(#[from] ort::Error),
    /// The operating system grants too few threads for a network.
    #[error("--threads, --workers")]
    Limit(#[from] Shortage),
    /// The file for the recording of arrivals cannot be made.
    #[error("cannot record arrivals in {}", path.display())]
    Recording {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A worker thread cannot be started.
    #[error("cannot start a worker")]
    Thread(#[source] io::Error),
}

/// The part at fault for an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A bundle.
    Bundle,
    /// ONNX Runtime or the device.
    Runtime,
    /// The operating system.
    System,
}

impl Error {
    /// The part at fault.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Bundle { .. } | Error::Tables { .. } | Error::Unfit { .. } | Error::Vector { .. } => {
                ErrorKind::Bundle
            }
            Error::Ort(error) if error.kind() == ort::ErrorKind::Model => ErrorKind::Bundle,
            Error::Ort(_) => ErrorKind::Runtime,
            Error::Limit(_) | Error::Recording { .. } | Error::Thread(_) => ErrorKind::System,
        }
    }
}

/// An error and its sources, joined by colons, for logs and for texts that cannot carry an error value.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
