//! The errors of ONNX Runtime, of its device and of the networks it runs.

use std::{error::Error as StdError, path::PathBuf};

use super::{device::Device, library::LIBRARY_VARIABLE};

/// What ONNX Runtime or its loader reported.
type Source = Box<dyn StdError + Send + Sync>;

/// An error of ONNX Runtime. [`Error::kind`] says what is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No library was named, and there is none in the places that are searched.
    #[error(
        "ONNX Runtime is missing: none of {places} exists; run `make runtime`, or name the library with --runtime or {LIBRARY_VARIABLE}"
    )]
    Missing {
        /// The places that were searched.
        places: String,
    },
    /// The library cannot be loaded, or it is too old.
    #[error("ONNX Runtime at {} is unusable; run `make runtime`, or name another with --runtime or {LIBRARY_VARIABLE}", library.display())]
    Library {
        /// The file.
        library: PathBuf,
        /// The loader's error.
        source: Source,
    },
    /// The device does not exist or cannot be used.
    #[error("{device} is not usable")]
    Device {
        /// The device.
        device: Device,
        /// The error of ONNX Runtime.
        source: Source,
    },
    /// The file of a network cannot be read.
    #[error("cannot read the network {}", model.display())]
    Read {
        /// The file.
        model: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is not a network that ONNX Runtime can run.
    #[error("cannot open the network {}", model.display())]
    Model {
        /// The file.
        model: PathBuf,
        /// The error of ONNX Runtime.
        source: Source,
    },
    /// The network has no tensor of this name, or the tensor has another type or shape.
    #[error("{}: tensor {tensor}: {reason}", model.display())]
    Tensor {
        /// The file.
        model: PathBuf,
        /// The tensor.
        tensor: String,
        /// The difference.
        reason: String,
    },
    /// An inference run failed.
    #[error("cannot run the network {}", model.display())]
    Run {
        /// The file.
        model: PathBuf,
        /// The error of ONNX Runtime.
        source: Source,
    },
}

/// The part at fault for an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// ONNX Runtime's library.
    Library,
    /// The device.
    Device,
    /// The network's file.
    Model,
    /// The inference run: out of memory, or an input of the wrong shape.
    Run,
}

impl Error {
    /// The part at fault.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Missing { .. } | Error::Library { .. } => ErrorKind::Library,
            Error::Device { .. } => ErrorKind::Device,
            Error::Read { .. } | Error::Model { .. } | Error::Tensor { .. } => ErrorKind::Model,
            Error::Run { .. } => ErrorKind::Run,
        }
    }
}
