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
    /// The caller has no memory for the peer's message.
    #[error("there is no memory for the message")]
    NoMemory,
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

/// Bytes that are read from a stream at once.
const CHUNK: usize = 64 * 1024;

/// The least memory that a message is given beyond what its buffer has.
const MIN_GROWTH: usize = 4096;

/// Reads the peer's message to the end of the stream. At most `limit` bytes are kept.
///
/// This is not cancel safe: the bytes read so far are lost with the future, so the stream must be given up when it is
/// dropped. Dropping the `RecvStream` stops the peer.
///
/// # Errors
/// Those of [`read_into`].
pub async fn read_message(stream: &mut RecvStream, limit: usize) -> Result<Vec<u8>, StreamError> {
    let mut message = Vec::new();
    read_into(stream, &mut message, limit, |_| true).await?;
    Ok(message)
}

/// Appends the peer's message to `message`, up to the end of the stream, so that it has at most `limit` bytes.
///
/// The bytes are read in their order, and each is copied to the buffer at once, so fragments take no memory beyond QUIC's
/// window. Before the buffer grows, `reserve` is asked for the capacity that it will have. The capacity is at most twice the
/// message, or 4 KiB; what `message` has at first is filled without asking. With an error, `message` keeps what was read.
///
/// # Errors
/// [`StreamError::TooLarge`] for a longer message and [`StreamError::NoMemory`] if `reserve` returns false; the stream is
/// stopped then. Otherwise the reason why the message did not arrive.
pub async fn read_into(
    stream: &mut RecvStream,
    message: &mut Vec<u8>,
    limit: usize,
    mut reserve: impl FnMut(usize) -> bool,
) -> Result<(), StreamError> {
    while read_chunk(stream, message, limit, &mut reserve).await? {}
    Ok(())
}

/// Appends what has arrived of the peer's message to `message`, as [`read_into`] does with all of it. Waits until there is
/// something, and returns whether more may follow.
///
/// This is cancel safe: what a dropped future has not appended is read by the next call.
///
/// # Errors
/// Those of [`read_into`].
pub async fn read_chunk(
    stream: &mut RecvStream,
    message: &mut Vec<u8>,
    limit: usize,
    mut reserve: impl FnMut(usize) -> bool,
) -> Result<bool, StreamError> {
    let room = message.capacity() - message.len();
    let chunk = match stream.read_chunk(if room == 0 { CHUNK } else { room }, true).await {
        Ok(Some(chunk)) => chunk.bytes,
        Ok(None) => return Ok(false),
        Err(quinn::ReadError::Reset(code)) => return Err(StreamError::Reset(reset(code))),
        Err(quinn::ReadError::ConnectionLost(error)) => {
            return Err(StreamError::Connection(error.into()));
        }
        Err(_) => return Err(StreamError::Closed),
    };
    let length = message.len() + chunk.len();
    if length > limit {
        let _ = stream.stop(VarInt::from_u32(Reset::TooLarge.into()));
        return Err(StreamError::TooLarge { limit });
    }
    if length > message.capacity() {
        let capacity = (2 * message.capacity()).max(length).max(MIN_GROWTH).min(limit);
        if !reserve(capacity) {
            let _ = stream.stop(VarInt::from_u32(Reset::Refused.into()));
            return Err(StreamError::NoMemory);
        }
        message.reserve_exact(capacity - message.len());
    }
    message.extend_from_slice(&chunk);
    Ok(true)
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
