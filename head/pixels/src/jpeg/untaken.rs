//! Why a file is left to a decoder of all files.

use std::fmt;

/// A file that [`JpegDecoder`](crate::JpegDecoder) does not take, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untaken(pub(crate) &'static str);

impl fmt::Display for Untaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Untaken {}
