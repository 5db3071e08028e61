//! The errors of `narrows-tail certs`.

use std::{io, path::PathBuf};

use narrows_wire::identity::IdentityError;

/// The reason why certificates could not be made, renewed, revoked or listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file exists; files are never overwritten.
    #[error("{} exists; nothing was written (remove it, or choose another --dir)", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot read or write {}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A certificate, a key or a revocation list cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The name cannot be part of a certificate.
    #[error("{name:?}: {reason}")]
    Name {
        /// The name.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The CA's certificate or key is damaged.
    #[error("{} is damaged", file.display())]
    Ca {
        /// The file.
        file: PathBuf,
        /// The error of the parser.
        source: rcgen::Error,
    },
    /// The CA's key is not that of the CA's certificate.
    #[error("{} is not the key of ca.pem beside it; nothing was written", file.display())]
    OtherKey {
        /// The file of the key.
        file: PathBuf,
    },
    /// The CA's certificate has ended.
    #[error(
        "the CA in {} ended on {on}; nothing was written. Make a new one in another folder: narrows-tail certs init",
        file.display()
    )]
    Ended {
        /// The file of the CA's certificate.
        file: PathBuf,
        /// The day.
        on: String,
    },
    /// No certificate was issued to a device of this name.
    #[error("no certificate was issued to a device {name:?}; {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names of the devices that have certificates.
        known: String,
    },
    /// The device's certificate is revoked, so it is not renewed.
    #[error(
        "the certificate of {name} is revoked, and its key may be in other hands. To let the device in again, give it a \
         new key: remove {} and run narrows-tail certs device {name}",
        folder.display()
    )]
    Revoked {
        /// The name.
        name: String,
        /// The device's folder.
        folder: PathBuf,
    },
    /// A key, a certificate or a revocation list could not be made.
    #[error("cannot make a certificate")]
    Make(#[source] rcgen::Error),
    /// The operating system gives no random numbers.
    #[error("cannot make a serial number")]
    Random(#[source] io::Error),
}
