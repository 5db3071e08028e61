//! The identity of a bundle.

use std::fmt;

/// The identity of a bundle: the SHA-256 digest of its manifest (models/BUNDLE.md section 1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleId(pub [u8; 32]);

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BundleId({self})")
    }
}

impl From<[u8; 32]> for BundleId {
    fn from(bytes: [u8; 32]) -> Self {
        BundleId(bytes)
    }
}
