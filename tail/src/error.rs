//! The errors of the server, and their exit codes.

use std::{io, path::PathBuf};

use narrows_wire::{identity::IdentityError, quic::SetupError};

use crate::{Shortage, certs, devices, engine, enrol, signing};

/// An error of the server. [`Error::kind`] says what is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine cannot be opened: a bundle, ONNX Runtime or the device.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The server's identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Certificates cannot be made.
    #[error(transparent)]
    Certs(#[from] certs::Error),
    /// A bundle cannot be signed, or is not what was signed.
    #[error(transparent)]
    Signature(#[from] signing::Error),
    /// Devices cannot be enrolled.
    #[error(transparent)]
    Enrol(#[from] enrol::Error),
    /// The CA that is to sign has not signed the server's certificate.
    #[error(
        "the CA in {} has not signed the certificate in {}, so devices that it enrols would not know this server; give \
         --enrol-ca the CA that the server's identity is from",
        dir.display(),
        identity.display()
    )]
    OtherAuthority {
        /// The folder of the CA.
        dir: PathBuf,
        /// The folder of the server's identity.
        identity: PathBuf,
    },
    /// The file with the devices' rights cannot be read.
    #[error("cannot read {} (--devices)", file.display())]
    UnreadDevices {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file with the devices' rights cannot be used.
    #[error("{}", file.display())]
    Devices {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: devices::Fault,
    },
    /// The address to listen on cannot be resolved.
    #[error("cannot listen on {listen}: the name cannot be resolved on this machine")]
    Resolve {
        /// The address.
        listen: String,
        /// The error of the resolver.
        source: io::Error,
    },
    /// The operating system grants too few threads or open files.
    #[error(transparent)]
    Limit(#[from] Shortage),
    /// The server cannot listen on the address.
    #[error("cannot listen on {address}{}", reason(source))]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// QUIC cannot be set up.
    #[error(transparent)]
    Quic(SetupError),
    /// A file cannot be written, or the operating system refuses threads or signal handlers.
    #[error("{what}")]
    Io {
        /// The action that failed.
        what: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Accepted frames were not answered when the drain timeout was over.
    #[error("{frames} frames were not answered within the drain timeout")]
    Undrained {
        /// Their number.
        frames: u64,
    },
}

/// The part at fault for an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A bundle.
    Bundle,
    /// The certificates.
    Identity,
    /// ONNX Runtime or the device.
    Runtime,
    /// The address to listen on.
    Bind,
    /// Anything else.
    Other,
}

impl Error {
    /// The part at fault.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Engine(error) => match error.kind() {
                engine::ErrorKind::Bundle => ErrorKind::Bundle,
                engine::ErrorKind::Runtime => ErrorKind::Runtime,
                engine::ErrorKind::System => ErrorKind::Other,
            },
            Error::Signature(signing::Error::Bundle(_)) => ErrorKind::Bundle,
            Error::Signature(_) => ErrorKind::Other,
            Error::Identity(_) | Error::Certs(_) | Error::Enrol(_) | Error::OtherAuthority { .. } => {
                ErrorKind::Identity
            }
            Error::Bind { .. } | Error::Resolve { .. } => ErrorKind::Bind,
            Error::UnreadDevices { .. }
            | Error::Devices { .. }
            | Error::Quic(_)
            | Error::Io { .. }
            | Error::Limit(_)
            | Error::Undrained { .. } => ErrorKind::Other,
        }
    }

    /// The process's exit code for this error (`narrows-tail --help`).
    #[must_use]
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

/// What a failed bind means, and what to do.
fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another program listens there; end it, or give --listen another port (0 takes a free one)"
        }
        io::ErrorKind::AddrNotAvailable => {
            ": no interface of this machine has this address; 0.0.0.0 and [::] stand for all of them"
        }
        io::ErrorKind::PermissionDenied => ": ports below 1024 need privileges; give --listen a higher one",
        _ => "",
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
