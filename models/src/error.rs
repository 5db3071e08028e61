//! Why a bundle cannot be opened.

use std::{
    io,
    path::{Path, PathBuf},
    string::FromUtf8Error,
};

use crate::{Digest, signature::SignatureFault};

/// Why a bundle cannot be opened: what is wrong, and with which part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manifest or a part that it lists is not in the folder.
    #[error("{}", missing(dir, part))]
    Missing {
        /// The bundle's folder.
        dir: PathBuf,
        /// The part, relative to the folder.
        part: String,
    },
    /// A part exists but cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The manifest is not the TOML that BUNDLE.md describes.
    #[error("{}: not a bundle manifest", path.display())]
    Syntax {
        /// The manifest.
        path: PathBuf,
        /// The error of the parser, with line and column.
        source: Box<toml::de::Error>,
    },
    /// The manifest is not UTF-8.
    #[error("{}: not a bundle manifest", path.display())]
    Encoding {
        /// The manifest.
        path: PathBuf,
        /// The byte that is not UTF-8.
        source: FromUtf8Error,
    },
    /// The manifest has another format number than this build reads.
    #[error("manifest.toml: format {found} is not supported, this build reads formats {oldest} to {newest}")]
    Version {
        /// The number in the manifest.
        found: i64,
        /// The oldest number that this build reads.
        oldest: u32,
        /// The newest number that this build reads.
        newest: u32,
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
        /// The digest in the manifest.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// A tensor of a network lies in another file, which the manifest does not cover.
    #[error(
        "{part}: the values of tensor `{tensor}` lie in the file `{file}`, which the manifest does not cover; \
         save the network with its weights inside (models/BUNDLE.md, section 1)"
    )]
    External {
        /// The network, relative to the folder.
        part: String,
        /// The tensor.
        tensor: String,
        /// The other file, as the network names it.
        file: String,
    },
    /// A network is not an ONNX file.
    #[error("{part}: not an ONNX file; copy the whole bundle folder again")]
    Network {
        /// The network, relative to the folder.
        part: String,
    },
    /// Two parts, or a part and the manifest, disagree on a size.
    #[error("{part}: {what} is {found}, expected {expected}")]
    Shape {
        /// The part, relative to the folder.
        part: String,
        /// The size that was compared.
        what: &'static str,
        /// Its value.
        found: String,
        /// The value that fits.
        expected: String,
    },
    /// The bundle is not signed as it should be, or its version is not to be used.
    #[error("{}", dir.display())]
    Signature {
        /// The bundle's folder.
        dir: PathBuf,
        /// What is wrong.
        source: Box<SignatureFault>,
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

/// Says which part is missing, or that the folder is no bundle, and where one comes from.
fn missing(dir: &Path, part: &str) -> String {
    match (part, dir.is_dir()) {
        ("manifest.toml", false) => format!(
            "{}: there is no such folder; give that of a bundle, such as models/bundles/lite2 of the project \
             (missing: manifest.toml)",
            dir.display()
        ),
        ("manifest.toml", true) => format!(
            "{}: not a bundle, manifest.toml is missing; give the folder of a bundle, such as \
             models/bundles/lite2 of the project, or make one (models/recipes)",
            dir.display()
        ),
        _ => format!("{}: missing part `{part}`; copy the whole bundle folder again", dir.display()),
    }
}

/// The kind of an [`Error`], for callers that choose what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A part is missing or unreadable.
    Missing,
    /// The manifest, a label file or a network cannot be parsed.
    Malformed,
    /// The bundle has a format that this build does not read.
    Version,
    /// The digest of a part differs, or no digest covers all of it.
    Tampered,
    /// Sizes of parts do not agree.
    Shape,
    /// The signature is wrong, or the version is older than one that was used.
    Signature,
    /// There is no signature.
    Unsigned,
}

impl Error {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Missing { .. } | Error::Read { .. } => ErrorKind::Missing,
            Error::Syntax { .. }
            | Error::Encoding { .. }
            | Error::Field { .. }
            | Error::Label { .. }
            | Error::Network { .. } => ErrorKind::Malformed,
            Error::Version { .. } => ErrorKind::Version,
            Error::Tampered { .. } | Error::External { .. } => ErrorKind::Tampered,
            Error::Shape { .. } => ErrorKind::Shape,
            Error::Signature { source, .. } if matches!(**source, SignatureFault::Missing) => {
                ErrorKind::Unsigned
            }
            Error::Signature { .. } => ErrorKind::Signature,
        }
    }

    pub(crate) fn signature(dir: &Path, source: SignatureFault) -> Self {
        Error::Signature { dir: dir.to_owned(), source: Box::new(source) }
    }

    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Field { field: field.into(), reason: reason.into() }
    }
}
