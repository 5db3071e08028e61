//! What may be wrong with a signature.

/// What is wrong with a signature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureFault {
    /// There is none.
    #[error(
        "it is not signed: there is no model.sig in its folder; sign it with `narrows-tail bundle sign`, or allow unsigned ones"
    )]
    Missing,
    /// It is not what the specification says.
    #[error("model.sig is damaged: {0}")]
    Malformed(String),
    /// It is by another key.
    #[error("model.sig is by the key {by}, and none of the keys that are trusted: {trusted}")]
    OtherKey {
        /// The key that it names, or `unknown`.
        by: String,
        /// The keys that are trusted.
        trusted: String,
    },
    /// The signature does not fit what was signed.
    #[error("model.sig is forged or damaged: the signature does not fit its content")]
    Forged,
    /// A file is another one than was signed.
    #[error("{file}: it is not the file that was signed")]
    Changed {
        /// The file, relative to the folder.
        file: String,
    },
    /// A file that was signed is missing.
    #[error("{file}: it was signed, and is missing")]
    Gone {
        /// The file, relative to the folder.
        file: String,
    },
    /// A file was not signed.
    #[error("{file}: it was not signed; remove it, or sign the folder again")]
    Added {
        /// The file, relative to the folder.
        file: String,
    },
    /// A key cannot be used.
    #[error("no public key of the curve P-256 or P-384 in PEM (`narrows-tail bundle key` makes one)")]
    Key,
    /// A version that is older than one that was used before.
    #[error(
        "version {found} of {name} is older than {newest}, which was used before; allow it with --allow-older, or install the newer \
         one"
    )]
    Older {
        /// The bundle's name.
        name: String,
        /// Its version.
        found: String,
        /// The newest version that was used.
        newest: String,
    },
}
