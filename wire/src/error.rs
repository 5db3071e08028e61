//! The errors of messages and sessions.

use crate::{codes::FrameType, refusal::HelloRefusal};

/// An error of a message or a session. [`Error::kind`] says which side is at fault.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer's bytes do not follow PROTOCOL.md.
    #[error("malformed {message}: {field}: {problem}")]
    Malformed {
        /// The name of the message.
        message: &'static str,
        /// The field at fault.
        field: &'static str,
        /// The problem with it.
        problem: Problem,
    },
    /// The peer sent a message of a type that is not allowed at this point.
    #[error("unexpected {got}, expected {expected}")]
    Unexpected {
        /// The type of the message.
        got: FrameType,
        /// The types that are allowed.
        expected: &'static str,
    },
    /// The peer's answer does not fit the request.
    #[error("the answer to frame {id} does not fit the request: {reason}")]
    Mismatch {
        /// The number of the frame.
        id: u64,
        /// The contradiction.
        reason: &'static str,
    },
    /// The server refused the hello.
    #[error("{0}")]
    Refused(Box<HelloRefusal>),
    /// A value given by the caller is over a limit (PROTOCOL.md section 6).
    #[error("{field} is {got}, the limit is {limit}")]
    OverLimit {
        /// The name of the value.
        field: &'static str,
        /// The limit.
        limit: usize,
        /// The value.
        got: usize,
    },
    /// A value given by the caller cannot be expressed in the protocol.
    #[error("{field}: {reason}")]
    Invalid {
        /// The name of the value.
        field: &'static str,
        /// The reason.
        reason: &'static str,
    },
    /// As many frames are in flight as the server allows.
    #[error("{limit} frames are in flight, the server allows no more")]
    Full {
        /// The server's limit.
        limit: usize,
    },
    /// The session was used before the welcome.
    #[error("the session is not open")]
    NotOpen,
    /// The caller named a frame that is not in flight.
    #[error("frame {id} is not in flight")]
    NoSuchFrame {
        /// The number of the frame.
        id: u64,
    },
}

/// The side at fault for an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The peer broke the protocol; the connection is to be closed.
    Peer,
    /// The peer refused, with a reason.
    Refused,
    /// The caller asked for something that cannot be sent.
    Caller,
}

impl Error {
    /// The side at fault.
    #[must_use]
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

/// The problem with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The message ends inside the field.
    #[error("the message ends {missing} bytes too early")]
    Truncated {
        /// The number of missing bytes.
        missing: usize,
    },
    /// Bytes follow the last field.
    #[error("{extra} bytes too many")]
    Trailing {
        /// The number of these bytes.
        extra: usize,
    },
    /// A count or length is over its limit.
    #[error("{got} is over the limit of {limit}")]
    OverLimit {
        /// The limit.
        limit: usize,
        /// The count or length.
        got: usize,
    },
    /// The field must not have this value.
    #[error("{0}")]
    Invalid(&'static str),
}
