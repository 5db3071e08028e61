//! The errors of `narrows-tail enrol`.

use std::{io, path::PathBuf};

use crate::certs;

/// The reason why a token could not be made, or a request not decided.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The CA cannot be used, or a file beside it not be written.
    #[error(transparent)]
    Certs(#[from] certs::Error),
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file of a token or a request is damaged.
    #[error("{} is damaged; remove it, and make a new token", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// A file of a token or a request cannot be written as text.
    #[error("{} cannot be written", file.display())]
    Unwritten {
        /// The file.
        file: PathBuf,
        /// What cannot be written.
        source: Box<toml::ser::Error>,
    },
    /// The name or pattern of a token cannot be one.
    #[error("{0}")]
    Names(String),
    /// No request, or more than one, is meant.
    #[error("{0}")]
    Which(String),
    /// The request was decided before.
    #[error("the request of {name} with the key {key} was {how} before")]
    Decided {
        /// The device.
        name: String,
        /// The fingerprint of its key.
        key: String,
        /// What was decided.
        how: &'static str,
    },
    /// A signing request cannot be used.
    #[error("the signing request is damaged, or not signed by its own key")]
    Request(#[source] rcgen::Error),
    /// The operating system gives no random numbers.
    #[error("cannot make a token")]
    Random(#[source] io::Error),
}
