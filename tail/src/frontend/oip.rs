//! The front end for clients without a head: KServe's Open Inference Protocol, version 2, over HTTP, on the same engine and
//! scheduler, with the same rights. docs/oip.md says what it answers.

mod http;
mod infer;
mod models;
mod tensors;

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, time::sleep};

use super::{admission::PermitCount, quic::Shared};

/// How often a drain looks for requests that are not answered.
const LOOK: Duration = Duration::from_millis(20);

/// The front end.
pub(crate) struct Oip {
    shared: Arc<Shared>,
    /// Whether clients without a token are answered, under the name [`ANONYMOUS`].
    anonymous: bool,
    /// Items that one request may have.
    largest: usize,
    drain: watch::Receiver<bool>,
    /// Requests of inference that are not answered.
    requests: PermitCount,
}

/// The name of clients without a token.
pub(crate) const ANONYMOUS: &str = "anonymous";

impl Oip {
    /// A front end beside the one for heads. A request may have `largest` items; with `anonymous` clients without a token are
    /// answered. It takes no new requests once `drain` becomes true.
    pub(crate) fn new(
        shared: Arc<Shared>,
        anonymous: bool,
        largest: usize,
        drain: watch::Receiver<bool>,
    ) -> Arc<Oip> {
        Arc::new(Oip { shared, anonymous, largest, drain, requests: PermitCount::default() })
    }

    /// Serves at most `connections` clients at a time, until the future is dropped.
    ///
    /// # Errors
    /// The operating system's, where the listener cannot be used.
    pub(crate) async fn serve(self: Arc<Self>, listener: StdListener, connections: usize) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        narrows_http::serve(TcpListener::from_std(listener)?, connections, self).await;
        Ok(())
    }

    /// Returns once every request that was accepted is answered.
    pub(crate) async fn drained(&self) {
        while self.requests.in_use() > 0 {
            sleep(LOOK).await;
        }
    }

    fn is_draining(&self) -> bool {
        *self.drain.borrow()
    }
}

/// Logs where the front end is, and warns where others can reach it.
pub(crate) fn announce(address: SocketAddr, anonymous: bool) {
    tracing::info!(%address, "Open Inference Protocol listening");
    if !address.ip().to_canonical().is_loopback() {
        let who = if anonymous { "whoever reaches it is answered" } else { "tokens can be read on the way" };
        tracing::warn!(%address, "without encryption: {who} (--oip-http); put a proxy with TLS in front");
    }
}
