//! What went wrong in a message or a session, and who is to blame.

use crate::{codes::FrameType, hello::HelloRefusal};

/// An error of the protocol's pure half.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer's bytes are not a message of PROTOCOL.md.
    #[error("malformed {message}: {field}: {problem}")]
    Malformed {
        /// The message that was being read.
        message: &'static str,
        /// The field that is wrong.
        field: &'static str,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The peer sent a message that does not belong here.
    #[error("unexpected {got}, expected {expected}")]
    Unexpected {
        /// What came.
        got: FrameType,
        /// What may come.
        expected: &'static str,
    },
    /// The peer's answer does not fit what was asked.
    #[error("the answer to frame {id} does not fit the request: {reason}")]
    Mismatch {
        /// The frame.
        id: u64,
        /// What does not fit.
        reason: &'static str,
    },
    /// The server refused the hello.
    #[error("{0}")]
    Refused(Box<HelloRefusal>),
    /// The caller's value is over a limit of PROTOCOL.md section 6.
    #[error("{field} is {got}, the limit is {limit}")]
    OverLimit {
        /// The value.
        field: &'static str,
        /// The limit.
        limit: usize,
        /// What was given.
        got: usize,
    },
    /// The caller's value has no form on the wire.
    #[error("{field}: {reason}")]
    Invalid {
        /// The value.
        field: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// The caller has as many frames in flight as the server allows.
    #[error("{limit} frames are in flight, the server allows no more")]
    Full {
        /// The server's limit.
        limit: usize,
    },
    /// The caller used the session before the welcome, or after its end.
    #[error("the session is not open")]
    NotOpen,
    /// The caller names a frame that is not in flight.
    #[error("frame {id} is not in flight")]
    NoSuchFrame {
        /// The frame.
        id: u64,
    },
}

/// Who is to blame for an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The peer broke the protocol: close the connection.
    Peer,
    /// The peer said no, by name.
    Refused,
    /// This side asked for something that cannot be sent.
    Caller,
}

impl Error {
    /// Who is to blame.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Malformed { .. } | Error::Unexpected { .. } | Error::Mismatch { .. } => ErrorKind::Peer,
            Error::Refused(_) => ErrorKind::Refused,
            Error::OverLimit { .. }
            | Error::Invalid { .. }
            | Error::Full { .. }
            | Error::NotOpen
            | Error::NoSuchFrame { .. } => ErrorKind::Caller,
        }
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The message ends inside the field.
    #[error("the message ends {missing} bytes too early")]
    Truncated {
        /// Bytes that are missing.
        missing: usize,
    },
    /// Bytes follow the last field.
    #[error("{extra} bytes too many")]
    Trailing {
        /// Bytes after the end.
        extra: usize,
    },
    /// A count or length is over its limit.
    #[error("{got} is over the limit of {limit}")]
    OverLimit {
        /// The limit.
        limit: usize,
        /// What came.
        got: usize,
    },
    /// The value is outside what the field may hold.
    #[error("{0}")]
    Invalid(&'static str),
}
