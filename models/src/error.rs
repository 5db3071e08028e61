//! What is wrong with a bundle, and in which part.

use std::{io, path::PathBuf};

use crate::Digest;

/// Why a bundle could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manifest or a part that it lists is not in the folder.
    #[error("{}: missing part `{part}`; copy the whole bundle folder again", dir.display())]
    Missing {
        /// The bundle's folder.
        dir: PathBuf,
        /// The part, relative to the folder.
        part: String,
    },
    /// A part is there but cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The manifest is not the TOML that BUNDLE.md describes.
    #[error("{}: not a bundle manifest: {}", path.display(), message.trim_end())]
    Syntax {
        /// The manifest.
        path: PathBuf,
        /// Line, column and reason from the parser.
        message: String,
    },
    /// The manifest has another format number than this build reads.
    #[error("manifest.toml: format {found} is not supported, this build reads format {supported}")]
    Version {
        /// The number in the manifest.
        found: i64,
        /// The number this build reads.
        supported: u32,
    },
    /// A field of the manifest breaks a rule of BUNDLE.md.
    #[error("manifest.toml: {field}: {reason}")]
    Field {
        /// The field, as a path such as `task[1].tail`.
        field: String,
        /// The rule that is broken.
        reason: String,
    },
    /// A part is not the one the manifest was written for.
    #[error("{part}: SHA-256 is {found}, the manifest says {expected}; the part was changed or damaged")]
    Tampered {
        /// The part, relative to the folder.
        part: String,
        /// What the manifest says.
        expected: Digest,
        /// What the bytes give.
        found: Digest,
    },
    /// Two parts, or a part and the manifest, disagree on a size.
    #[error("{part}: {what} is {found}, expected {expected}")]
    Shape {
        /// The part, relative to the folder.
        part: String,
        /// What was measured.
        what: &'static str,
        /// The measure found.
        found: String,
        /// The measure that would fit.
        expected: String,
    },
    /// A line of a label file cannot be read.
    #[error("{part}: line {line}: {reason}")]
    Label {
        /// The label file, relative to the folder.
        part: String,
        /// Line number from 1.
        line: usize,
        /// The rule that is broken.
        reason: &'static str,
    },
}

/// The sort of an [`Error`], for those who choose what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A part is missing or unreadable.
    Missing,
    /// The manifest or a label file cannot be understood.
    Malformed,
    /// Made for another version of this software.
    Version,
    /// A part's digest differs.
    Tampered,
    /// Parts do not fit together.
    Shape,
}

impl Error {
    /// The sort of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Missing { .. } | Error::Read { .. } => ErrorKind::Missing,
            Error::Syntax { .. } | Error::Field { .. } | Error::Label { .. } => ErrorKind::Malformed,
            Error::Version { .. } => ErrorKind::Version,
            Error::Tampered { .. } => ErrorKind::Tampered,
            Error::Shape { .. } => ErrorKind::Shape,
        }
    }

    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Field { field: field.into(), reason: reason.into() }
    }
}
