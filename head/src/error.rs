//! What can go wrong on the device, split by blame.

use std::{path::PathBuf, time::Duration};

use narrows_wire::{BundleId, HelloRefusal, identity::IdentityError, quic::SetupError};

use crate::{image::ImageFault, net, source::SourceFault};

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A flag has a value that cannot work.
    #[error("{flag}: {reason}")]
    Usage {
        /// The flag.
        flag: &'static str,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// The bundle cannot be opened.
    #[error("--bundle: {0}")]
    Bundle(#[from] narrows_models::Error),
    /// The bundle's tables are not what FORMAT.md describes.
    #[error("--bundle: {part}: {source}")]
    Tables {
        /// The part.
        part: String,
        /// What is wrong with it.
        source: narrows_codec::Error,
    },
    /// The bundle's head is a network that cannot be run exactly.
    #[error("--bundle: {part}: {source}")]
    Head {
        /// The part.
        part: String,
        /// What is wrong with it, and at which node.
        source: net::Error,
    },
    /// A frame failed in the head's network.
    #[error("--bundle: {0}")]
    Net(#[from] net::Error),
    /// Head and tail hold different bundles.
    #[error(
        "the server at {server} serves another bundle: {theirs}; this head holds {ours}. \
         Install the same bundle folder on both sides",
        ours = short(.ours),
        theirs = if .theirs.is_empty() { "none".into() } else { .theirs.iter().map(short).collect::<Vec<_>>().join(", ") }
    )]
    Mismatch {
        /// Where the server was looked for.
        server: String,
        /// The identity of this head's bundle.
        ours: BundleId,
        /// What the server said it has.
        theirs: Vec<BundleId>,
    },
    /// The identity folder is at fault.
    #[error("--identity: {0}")]
    Identity(#[from] IdentityError),
    /// The two sides do not accept each other's certificates.
    #[error(
        "no trust between this head and the server at {server}: {reason}. \
         --identity must come from the CA that the server was set up with, and --server must use a name in its certificate"
    )]
    Trust {
        /// Where the server was looked for.
        server: String,
        /// What TLS said.
        reason: String,
    },
    /// There is nothing to work on.
    #[error("{0}")]
    Source(#[from] SourceFault),
    /// The server could not be reached in time.
    #[error("no server at {server} within {:.1} s: {reason}", .waited.as_secs_f64())]
    Unreachable {
        /// Where it was looked for.
        server: String,
        /// For how long.
        waited: Duration,
        /// What the last try ended with.
        reason: String,
    },
    /// The server is there and does not want this head.
    #[error("the server at {server}: {refusal}")]
    Refused {
        /// Where the server is.
        server: String,
        /// In its own words.
        refusal: Box<HelloRefusal>,
    },
    /// The server is not one of ours, or broken.
    #[error("the server at {server} breaks the protocol: {source}")]
    Protocol {
        /// Where the server is.
        server: String,
        /// What it did.
        source: narrows_wire::Error,
    },
    /// A frame's file cannot be read.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A frame's file is not an image that can be used.
    #[error("{}: {source}{}", file.display(), because(source))]
    Image {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: ImageFault,
    },
    /// The feature could not be coded.
    #[error("the frame cannot be coded: {0}")]
    Code(#[source] narrows_codec::Error),
    /// Power cannot be measured, or what a meter recorded cannot be used.
    #[error("{0}")]
    Power(#[from] narrows_power::Error),
    /// The image could not be encoded for the server.
    #[error("the image cannot be encoded: {0}")]
    Encode(String),
    /// A result cannot be written.
    #[error("cannot write {place}: {source}")]
    Output {
        /// A file, or standard output.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// This machine gives no socket, thread or random bytes.
    #[error("this device: {0}")]
    Device(String),
}

/// The sort of an [`Error`], for those who choose what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller asked for something that does not exist.
    Usage,
    /// The bundle is missing, damaged, or not the server's.
    Bundle,
    /// The certificates are missing, damaged, or not trusted.
    Identity,
    /// There is nothing to work on.
    Source,
    /// The server is away, or said no.
    Server,
    /// One frame cannot be used; the next one may.
    Frame,
    /// This machine failed.
    Device,
}

impl Error {
    /// The sort of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Usage { .. } => ErrorKind::Usage,
            Error::Bundle(_)
            | Error::Tables { .. }
            | Error::Head { .. }
            | Error::Net(_)
            | Error::Mismatch { .. } => ErrorKind::Bundle,
            Error::Identity(_) | Error::Trust { .. } => ErrorKind::Identity,
            Error::Source(_) => ErrorKind::Source,
            Error::Unreachable { .. } | Error::Refused { .. } | Error::Protocol { .. } => ErrorKind::Server,
            Error::File { .. } | Error::Image { .. } | Error::Code(_) | Error::Encode(_) => ErrorKind::Frame,
            Error::Power(error) if error.kind() == narrows_power::ErrorKind::Input => ErrorKind::Usage,
            Error::Power(_) | Error::Output { .. } | Error::Device(_) => ErrorKind::Device,
        }
    }

    pub(crate) fn usage(flag: &'static str, reason: impl Into<String>) -> Self {
        Error::Usage { flag, reason: reason.into() }
    }
}

impl From<SetupError> for Error {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Identity(error) => Error::Identity(error),
            other => Error::Device(other.to_string()),
        }
    }
}

/// The first 12 digits of an identity, as models/ prints it.
fn short(id: &BundleId) -> String {
    id.to_string()[..12].to_owned()
}

fn because(fault: &ImageFault) -> String {
    match std::error::Error::source(fault) {
        Some(source) => format!(": {}", source.to_string().trim_end()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_both_bundles() {
        let error = Error::Mismatch {
            server: "pi:1".into(),
            ours: BundleId([0xab; 32]),
            theirs: vec![BundleId([0xcd; 32]), BundleId([0; 32])],
        };
        let text = error.to_string();
        assert!(text.contains("abababababab.") && text.contains("cdcdcdcdcdcd, 000000000000;"), "{text}");
        assert_eq!(error.kind(), ErrorKind::Bundle);
    }

    #[test]
    fn an_image_error_names_file_and_cause() {
        let error = Error::Image { file: "a/b.jpg".into(), source: ImageFault::Truncated };
        assert_eq!(error.to_string(), "a/b.jpg: the image is truncated");
        let source = crate::image::decode(b"text").unwrap_err();
        let text = Error::Image { file: "x.png".into(), source }.to_string();
        assert!(text.starts_with("x.png: the image cannot be decoded: "), "{text}");
    }
}
