//! What went wrong with ONNX Runtime, its device or a network, and who is to blame.

use std::path::PathBuf;

use super::{Device, LIBRARY_VARIABLE};

/// Why ONNX Runtime did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No library was named and none lies where one is expected.
    #[error(
        "ONNX Runtime is missing: none of {places} exists; run `make runtime`, or name the library with --runtime or {LIBRARY_VARIABLE}"
    )]
    Missing {
        /// Where it was looked for.
        places: String,
    },
    /// The library cannot be loaded or is too old.
    #[error("ONNX Runtime at {} is unusable: {reason}; run `make runtime`, or name another with --runtime or {LIBRARY_VARIABLE}", library.display())]
    Library {
        /// The file.
        library: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// The device is not there or not usable.
    #[error("{device} is not usable: {reason}")]
    Device {
        /// The device.
        device: Device,
        /// What ONNX Runtime says.
        reason: String,
    },
    /// The file is not a network that ONNX Runtime can run.
    #[error("{}: {reason}", model.display())]
    Model {
        /// The file.
        model: PathBuf,
        /// What ONNX Runtime says.
        reason: String,
    },
    /// The network has no tensor of this name, or of another type.
    #[error("{}: tensor {tensor}: {reason}", model.display())]
    Tensor {
        /// The file.
        model: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A run failed.
    #[error("{}: {reason}", model.display())]
    Run {
        /// The file.
        model: PathBuf,
        /// What ONNX Runtime says.
        reason: String,
    },
}

/// Who is to blame for an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The library.
    Library,
    /// The device.
    Device,
    /// The network file.
    Model,
    /// The run: memory, or an input of the wrong shape.
    Run,
}

impl Error {
    /// Who is to blame.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Missing { .. } | Error::Library { .. } => ErrorKind::Library,
            Error::Device { .. } => ErrorKind::Device,
            Error::Model { .. } | Error::Tensor { .. } => ErrorKind::Model,
            Error::Run { .. } => ErrorKind::Run,
        }
    }
}
