//! Why a stream cannot be read.

/// Why a stream cannot be read, or a description of its format cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFault {
    /// The stream holds no picture in a format that is read.
    #[error(
        "no pictures in the first {bytes} bytes; this is {what}. MJPEG and Y4M are recognised, and raw frames are read \
             where their format is given (i420:WxH or nv12:WxH)"
    )]
    Unknown {
        /// How many bytes were looked at.
        bytes: usize,
        /// What they are, as far as they tell.
        what: String,
    },
    /// A stream of a format that is not read.
    #[error("Y4M: {0}")]
    Y4m(String),
    /// The size, the stride or the colours of raw frames cannot be used.
    #[error("{0}")]
    Raw(String),
}
