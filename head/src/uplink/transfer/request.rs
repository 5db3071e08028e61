//! One request and its reply on a stream of their own.
#![expect(clippy::disallowed_methods, reason = "the arrival of a reply is timestamped")]

use std::time::Instant;

use narrows_wire::{
    Reset,
    limits::MAX_REPLY,
    stream::{StreamError, read_message},
};
use quinn::{Connection, VarInt};
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    time::timeout_at,
};

/// How the stream of one request ended.
pub(super) enum RequestResult {
    Reply(Vec<u8>, Instant),
    /// The frame's deadline passed, or nobody waits for the answer any more.
    GivenUp,
    Failed(StreamError),
}

/// Sends a request on a stream of its own, chunk by chunk until their sender is dropped, and reads the reply, until `deadline`
/// or until the sender of `given_up` is dropped.
pub(super) async fn send_request(
    connection: Connection,
    priority: i32,
    deadline: Instant,
    mut chunks: UnboundedReceiver<Vec<u8>>,
    mut given_up: oneshot::Receiver<()>,
) -> RequestResult {
    let (mut send, mut receive) = tokio::select! {
        stream = timeout_at(deadline.into(), connection.open_bi()) => match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return RequestResult::Failed(StreamError::Connection(error.into())),
            Err(_) => return RequestResult::GivenUp,
        },
        _ = &mut given_up => return RequestResult::GivenUp,
    };
    // This fails only for a closed stream, and then writing fails as well.
    let _ = send.set_priority(priority);
    let mut finished = false;
    let write = async {
        while let Some(chunk) = chunks.recv().await {
            // A server that does not read a request to its end says why on the same stream, and the end of the connection
            // shows there too.
            if send.write_all(&chunk).await.is_err() {
                return std::future::pending().await;
            }
        }
        finished = send.finish().is_ok();
        std::future::pending().await
    };
    let exchanged: Option<Result<Vec<u8>, StreamError>> = tokio::select! {
        biased;
        _ = given_up => None,
        exchanged = timeout_at(deadline.into(), read_message(&mut receive, MAX_REPLY)) => exchanged.ok(),
        never = write => never,
    };
    let stale = VarInt::from_u32(Reset::Stale.into());
    if !finished || exchanged.is_none() {
        // Dropping the stream would finish it.
        let _ = send.reset(stale);
    }
    match exchanged {
        Some(Ok(bytes)) => RequestResult::Reply(bytes, Instant::now()),
        Some(Err(error)) => RequestResult::Failed(error),
        None => {
            let _ = receive.stop(stale);
            RequestResult::GivenUp
        }
    }
}
