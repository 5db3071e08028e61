//! What a stream of pictures has had.

/// What a stream had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pictures that were delivered.
    pub pictures: u64,
    /// Pictures that were begun and given up: cut, too large, or not built like a picture.
    pub damaged: u64,
    /// Bytes that belong to no picture that was delivered.
    pub skipped: u64,
}
