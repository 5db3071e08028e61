//! The connection to the server over a whole run: frames in, outcomes out.
//!
//! When a connection is lost, unanswered frames are sent again over the next one. When no server can be reached, this
//! device answers them.
#![expect(clippy::disallowed_methods, reason = "the server is looked for within a given time")]

use std::{
    sync::mpsc::SyncSender,
    time::{Duration, Instant},
};

mod connect;
mod fallback;
mod queue;
mod transfer;

pub(crate) use connect::{CONNECT_TIMEOUT, ConnectError, Connector, Session};
pub(crate) use fallback::{FallbackFrame, LocalAnswers};
pub(crate) use queue::FrameQueue;

use self::{
    connect::jitter,
    fallback::serve_locally,
    transfer::{Transfer, TransferEnd},
};
use crate::{
    Error,
    error::{Chain, Unavailable},
    policy::Backoff,
    shutdown::Shutdown,
};

/// Takes encoded frames to the server and ends every one of them.
#[derive(Debug)]
pub(crate) struct Uplink {
    pub(crate) connector: Connector,
    pub(crate) queue: FrameQueue,
    /// How long to look for a server that was lost.
    pub(crate) retry_for: Duration,
    /// Where frames go that no server answers; `None` if this device does not answer them either.
    pub(crate) fallback: Option<SyncSender<FallbackFrame>>,
    pub(crate) shutdown: Shutdown,
}

impl Uplink {
    /// Works until no frames are left. `first` is the result of connecting for the first time.
    ///
    /// # Errors
    /// What ended the run early. The frames that were left have failed.
    pub(crate) async fn run(mut self, first: Result<Session, Error>) -> Result<(), Error> {
        let mut session = match first {
            Ok(session) => session,
            Err(error) => match self.serve_locally(error).await? {
                Some(session) => session,
                None => return Ok(()),
            },
        };
        let mut backoff = None;
        loop {
            let mut replies = 0;
            let transfer = Transfer::new(&mut session, &self.connector, &mut self.queue);
            match transfer.run(&self.shutdown, &mut replies).await {
                TransferEnd::Done => {
                    session.close().await;
                    return Ok(());
                }
                TransferEnd::Stopped => {
                    self.fail_interrupted();
                    session.close().await;
                    return Ok(());
                }
                TransferEnd::Lost(reason) => {
                    let (server, unanswered) = (self.connector.server(), self.queue.len());
                    tracing::warn!(
                        "lost the server at {server}: {}; unanswered frames: {unanswered}",
                        Chain(&reason)
                    );
                    // A server that accepts connections and drops them without an answer is not back: its time runs on.
                    if replies > 0 {
                        backoff = None;
                    }
                    let patience =
                        backoff.get_or_insert_with(|| Backoff::new(Instant::now(), self.retry_for));
                    match self.reconnect(patience, reason).await {
                        Ok(Some(new)) => session = new,
                        Ok(None) => return Ok(()),
                        Err(error) => match self.serve_locally(error).await? {
                            Some(new) => (session, backoff) = (new, None),
                            None => return Ok(()),
                        },
                    }
                }
            }
        }
    }

    /// Attempts to connect until it succeeds, `backoff` ends, or no frames are left.
    async fn reconnect(
        &mut self,
        backoff: &mut Backoff,
        mut reason: Unavailable,
    ) -> Result<Option<Session>, Error> {
        let started = Instant::now();
        loop {
            self.queue.drop_expired();
            if self.queue.is_exhausted() {
                return Ok(None);
            }
            let Some(pause) = backoff.next(Instant::now(), jitter()) else {
                return Err(self.connector.unreachable(started.elapsed(), reason));
            };
            let left = backoff.deadline().saturating_duration_since(Instant::now() + pause);
            let attempt = async {
                tokio::time::sleep(pause).await;
                self.connector.connect(left).await
            };
            tokio::select! {
                () = self.shutdown.stopped() => {
                    self.fail_interrupted();
                    return Ok(None);
                }
                attempt = attempt => match attempt {
                    Ok(session) => {
                        let (server, resent) = (self.connector.server(), self.queue.len());
                        tracing::warn!("the server at {server} is back; frames that are sent again: {resent}");
                        return Ok(Some(session));
                    }
                    Err(ConnectError::Permanent(error)) => return Err(error),
                    Err(ConnectError::Transient(error)) => reason = error,
                },
            }
        }
    }

    async fn serve_locally(&mut self, error: Error) -> Result<Option<Session>, Error> {
        let fallback = self.fallback.as_ref();
        serve_locally(&mut self.queue, &self.connector, fallback, &self.shutdown, error).await
    }

    fn fail_interrupted(&mut self) {
        self.queue.fail_remaining("interrupted before the answer came");
    }
}
