//! One whole message over one direction of one stream: written and finished, read to its end.

use quinn::{RecvStream, SendStream, VarInt};

use crate::codes::Reset;

/// Why a message did not get through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer sends more than the message's limit.
    #[error("the message is over the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The peer reset or stopped the stream: it no longer wants the frame.
    #[error("the peer gave the stream up: {0}")]
    Reset(Reset),
    /// The connection is gone.
    #[error("{0}")]
    Connection(#[source] quinn::ConnectionError),
    /// The stream was closed on this side before.
    #[error("the stream is closed")]
    Closed,
}

/// Reads the peer's message to the end of its stream. At most `limit` bytes are held; a longer message stops the
/// stream and is [`StreamError::TooLarge`].
///
/// Not cancel safe: bytes read so far are lost with the future, so give the stream up (or the connection) when
/// this is dropped. Dropping the `RecvStream` stops the peer.
pub async fn read_message(stream: &mut RecvStream, limit: usize) -> Result<Vec<u8>, StreamError> {
    match stream.read_to_end(limit).await {
        Ok(bytes) => Ok(bytes),
        Err(quinn::ReadToEndError::TooLong) => {
            let _ = stream.stop(VarInt::from_u32(Reset::TooLarge.into()));
            Err(StreamError::TooLarge { limit })
        }
        Err(quinn::ReadToEndError::Read(error)) => Err(match error {
            quinn::ReadError::Reset(code) => StreamError::Reset(reset(code)),
            quinn::ReadError::ConnectionLost(error) => StreamError::Connection(error),
            _ => StreamError::Closed,
        }),
    }
}

/// Writes a whole message and finishes the stream. Returns when quinn has taken the bytes, not when the peer has.
///
/// Not cancel safe: a part may have been written when the future is dropped; reset the stream then (dropping the
/// `SendStream` would finish it, and the peer would see a truncated message, which it refuses).
pub async fn write_message(stream: &mut SendStream, bytes: &[u8]) -> Result<(), StreamError> {
    stream.write_all(bytes).await.map_err(|error| match error {
        quinn::WriteError::Stopped(code) => StreamError::Reset(reset(code)),
        quinn::WriteError::ConnectionLost(error) => StreamError::Connection(error),
        _ => StreamError::Closed,
    })?;
    stream.finish().map_err(|_| StreamError::Closed)
}

fn reset(code: VarInt) -> Reset {
    Reset::from(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
}
