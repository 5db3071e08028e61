//! Why the server could not start or run, and which exit code says so.

use std::{io, path::PathBuf};

use narrows_wire::{identity::IdentityError, quic::SetupError};

/// An error of the server, by blame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A bundle cannot be used.
    #[error("bundle {}: {source}", folder.display())]
    Bundle {
        /// The bundle's folder.
        folder: PathBuf,
        /// What is wrong.
        source: narrows_models::Error,
    },
    /// A bundle's probability tables cannot be used.
    #[error("bundle {}: {file}: {source}", folder.display())]
    Tables {
        /// The bundle's folder.
        folder: PathBuf,
        /// The part.
        file: String,
        /// What is wrong.
        source: narrows_codec::Error,
    },
    /// The parts of a bundle do not fit together, or not this server.
    #[error("bundle {}: {reason}", folder.display())]
    Unfit {
        /// The bundle's folder.
        folder: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A test vector does not come out as the bundle says.
    #[error("bundle {}: vector {vector}: {reason}", folder.display())]
    Vector {
        /// The bundle's folder.
        folder: PathBuf,
        /// The vector.
        vector: String,
        /// How it differs.
        reason: String,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Certificates cannot be made.
    #[error(transparent)]
    Certs(#[from] crate::certs::Error),
    /// ONNX Runtime, its device or a network of the bundle.
    #[error(transparent)]
    Net(#[from] crate::net::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// QUIC cannot be set up.
    #[error(transparent)]
    Quic(SetupError),
    /// A file or a signal handler.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Frames were still unanswered when the drain's time was over.
    #[error("{frames} frames were not answered within the drain timeout")]
    Undrained {
        /// How many.
        frames: u64,
    },
}

/// Who is to blame for an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bundle.
    Bundle,
    /// The certificates.
    Identity,
    /// ONNX Runtime or the device.
    Runtime,
    /// The address.
    Bind,
    /// Anything else.
    Other,
}

impl Error {
    /// Who is to blame.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Bundle { .. } | Error::Tables { .. } | Error::Unfit { .. } | Error::Vector { .. } => {
                ErrorKind::Bundle
            }
            Error::Identity(_) | Error::Certs(_) => ErrorKind::Identity,
            Error::Net(error) if error.kind() == crate::net::ErrorKind::Model => ErrorKind::Bundle,
            Error::Net(_) => ErrorKind::Runtime,
            Error::Bind { .. } => ErrorKind::Bind,
            Error::Quic(_) | Error::Io { .. } | Error::Undrained { .. } => ErrorKind::Other,
        }
    }

    /// The process's exit code for this error (`narrows-tail --help`).
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            ErrorKind::Bundle => 3,
            ErrorKind::Identity => 4,
            ErrorKind::Runtime => 5,
            ErrorKind::Bind => 6,
            ErrorKind::Other => 1,
        }
    }
}

impl From<SetupError> for Error {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Identity(error) => Error::Identity(error),
            SetupError::Bind { address, source } => Error::Bind { address, source },
            other => Error::Quic(other),
        }
    }
}
