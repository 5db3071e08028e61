//! Whole messages over one direction of a stream.

use quinn::{RecvStream, SendStream, VarInt};

use crate::{codes::Reset, end::ConnectionEnd};

/// The reason why a message was not sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer's message is longer than the limit.
    #[error("the message is over the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The peer reset or stopped the stream, because it no longer needs the frame.
    #[error("the peer gave the stream up: {0}")]
    Reset(Reset),
    /// The connection is lost.
    #[error(transparent)]
    Connection(#[from] ConnectionEnd),
    /// The stream was already closed on this side.
    #[error("the stream is closed")]
    Closed,
}

/// Reads the peer's message to the end of the stream. At most `limit` bytes are kept.
///
/// This is not cancel safe: the bytes read so far are lost with the future, so the stream must be given up when it is
/// dropped. Dropping the `RecvStream` stops the peer.
///
/// # Errors
/// [`StreamError::TooLarge`] for a longer message, after which the stream is stopped; otherwise the reason why the message
/// did not arrive.
pub async fn read_message(stream: &mut RecvStream, limit: usize) -> Result<Vec<u8>, StreamError> {
    match stream.read_to_end(limit).await {
        Ok(bytes) => Ok(bytes),
        Err(quinn::ReadToEndError::TooLong) => {
            let _ = stream.stop(VarInt::from_u32(Reset::TooLarge.into()));
            Err(StreamError::TooLarge { limit })
        }
        Err(quinn::ReadToEndError::Read(error)) => Err(match error {
            quinn::ReadError::Reset(code) => StreamError::Reset(reset(code)),
            quinn::ReadError::ConnectionLost(error) => StreamError::Connection(error.into()),
            _ => StreamError::Closed,
        }),
    }
}

/// Writes a whole message and finishes the stream. It returns when quinn has buffered the bytes, which is before the peer
/// has them.
///
/// This is not cancel safe: a part may have been written when the future is dropped. The stream must be reset then, because
/// dropping the `SendStream` would finish it, and the peer would see a truncated message, which is a violation.
///
/// # Errors
/// The reason why the message could not be sent.
pub async fn write_message(stream: &mut SendStream, bytes: &[u8]) -> Result<(), StreamError> {
    stream.write_all(bytes).await.map_err(|error| match error {
        quinn::WriteError::Stopped(code) => StreamError::Reset(reset(code)),
        quinn::WriteError::ConnectionLost(error) => StreamError::Connection(error.into()),
        _ => StreamError::Closed,
    })?;
    stream.finish().map_err(|_| StreamError::Closed)
}

fn reset(code: VarInt) -> Reset {
    Reset::from(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
}
