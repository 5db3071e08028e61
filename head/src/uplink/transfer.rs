//! Requests and replies over one connection: a stream for each frame, the newest frame with the highest priority.
#![expect(clippy::disallowed_methods, reason = "requests carry what is left of a frame's budget")]

use std::{collections::BTreeMap, time::Instant};

use narrows_wire::{
    Close, ErrorKind, FrameReply, RefusalCode, Reset,
    limits::MAX_REPLY,
    quic::close,
    stream::{StreamError, read_message, write_message},
};
use quinn::{Connection, VarInt};
use tokio::{task::JoinSet, time::timeout_at};

use super::{
    connect::{Connector, Session},
    queue::FrameQueue,
};
use crate::{
    error::{Chain, Unavailable},
    frame::{Encoded, Frame, Outcome, Traffic},
    shutdown::Shutdown,
};

/// How the exchange of frames over a connection ended.
pub(super) enum TransferEnd {
    /// Every frame is answered and none can come.
    Done,
    /// The run was stopped.
    Stopped,
    /// The connection cannot be used any more; unanswered frames are in the resend queue.
    Lost(Unavailable),
}

/// The frames in flight on one connection.
pub(super) struct Transfer<'a> {
    session: &'a mut Session,
    connector: &'a Connector,
    queue: &'a mut FrameQueue,
    requests: JoinSet<(u64, RequestResult)>,
    /// Frames without a reply by request id, each with the size of its request. Bounded by the server's limit.
    in_flight: BTreeMap<u64, (Frame<Encoded>, usize)>,
}

/// How the stream of one request ended.
enum RequestResult {
    Reply(Vec<u8>, Instant),
    /// The frame's deadline passed.
    DeadlinePassed,
    Failed(StreamError),
}

/// What a reply means for the connection.
enum AfterReply {
    /// The frame is finished and the connection goes on.
    Finished,
    /// The server is shutting down and did not accept this frame.
    Draining(Frame<Encoded>),
    /// The connection cannot be used any more; the frame is given back if it may be sent again.
    Lost(Option<Frame<Encoded>>, Unavailable),
}

impl<'a> Transfer<'a> {
    pub(super) fn new(session: &'a mut Session, connector: &'a Connector, queue: &'a mut FrameQueue) -> Self {
        Transfer { session, connector, queue, requests: JoinSet::new(), in_flight: BTreeMap::new() }
    }

    /// Sends frames and handles replies until the connection ends; adds to `replies` how many frames finished.
    pub(super) async fn run(mut self, shutdown: &Shutdown, replies: &mut usize) -> TransferEnd {
        let end = self.exchange(shutdown, replies).await;
        let unanswered = std::mem::take(&mut self.in_flight).into_values().map(|(frame, _)| frame);
        self.queue.push_unanswered(unanswered);
        end
    }

    async fn exchange(&mut self, shutdown: &Shutdown, replies: &mut usize) -> TransferEnd {
        let (mut open, mut draining) = (true, false);
        loop {
            while !draining
                && self.session.client.room() > 0
                && let Some(frame) = self.queue.pop()
            {
                self.send(frame);
            }
            if !open && self.in_flight.is_empty() && self.queue.is_empty() {
                return TransferEnd::Done;
            }
            if draining && self.in_flight.is_empty() {
                return TransferEnd::Lost(Unavailable::ShuttingDown);
            }
            tokio::select! {
                biased;
                Some(request) = self.requests.join_next() => {
                    let (id, result) = match request {
                        Ok(request) => request,
                        Err(error) => return TransferEnd::Lost(Unavailable::Task(error)),
                    };
                    let Some((frame, sent)) = self.in_flight.remove(&id) else { continue };
                    match self.handle_reply(id, frame, sent, result) {
                        AfterReply::Finished => *replies += 1,
                        // The server still answers the frames that it has accepted; the others wait for its return.
                        AfterReply::Draining(frame) => {
                            draining = true;
                            self.queue.push(frame);
                        }
                        AfterReply::Lost(frame, error) => {
                            frame.into_iter().for_each(|frame| self.queue.push(frame));
                            return TransferEnd::Lost(error);
                        }
                    }
                }
                frame = self.queue.receive(), if open && !draining && self.session.client.room() > 0 => match frame {
                    Some(frame) => self.queue.push(frame),
                    None => open = false,
                },
                error = self.session.connection.closed() => {
                    return TransferEnd::Lost(self.connector.classify(error).into());
                }
                () = shutdown.stopped() => return TransferEnd::Stopped,
            }
        }
    }

    /// Starts the request of a frame.
    fn send(&mut self, frame: Frame<Encoded>) {
        let deadline = frame.plan.deadline;
        let request = self.session.client.request(
            Instant::now(),
            self.session.bundle,
            Some(deadline),
            frame.plan.tasks.to_vec(),
            // The frame keeps its payload in case it must be sent again.
            frame.stage.payload.clone(),
        );
        match request {
            Ok((id, bytes)) => {
                // The newest frame is worth most.
                let priority = i32::try_from(frame.id.0).unwrap_or(i32::MAX);
                self.in_flight.insert(id, (frame, bytes.len()));
                let connection = self.session.connection.clone();
                self.requests
                    .spawn(async move { (id, send_request(connection, priority, deadline, bytes).await) });
            }
            Err(error) => {
                let reason = format!("cannot be sent: {}", Chain(&error));
                self.queue.finish(frame, Outcome::Failed(reason));
            }
        }
    }

    /// Finishes a frame with the result of its request, unless it may be sent again.
    fn handle_reply(
        &mut self,
        id: u64,
        frame: Frame<Encoded>,
        sent: usize,
        result: RequestResult,
    ) -> AfterReply {
        let client = &mut self.session.client;
        let outcome = match result {
            RequestResult::Reply(bytes, received_at) => {
                let traffic = Traffic { sent, received: bytes.len(), received_at };
                match client.reply(received_at, id, &bytes).map(|answered| answered.reply) {
                    Ok(FrameReply::Answered(reply)) => Outcome::Answered { reply, traffic },
                    Ok(FrameReply::Refused { refusal, .. }) => match refusal.code {
                        RefusalCode::Draining => return AfterReply::Draining(frame),
                        _ => Outcome::Refused { refusal, traffic },
                    },
                    Err(error) => {
                        let reason = Chain(&error).to_string();
                        if error.kind() == ErrorKind::Peer {
                            close(&self.session.connection, Close::Violation, &reason);
                        }
                        self.queue.finish(frame, Outcome::Failed(reason));
                        return AfterReply::Lost(None, Unavailable::Reply(error));
                    }
                }
            }
            RequestResult::DeadlinePassed => {
                client.abandon(id);
                let budget = frame.budget().as_millis();
                Outcome::Failed(format!("no answer within the budget of {budget} ms"))
            }
            RequestResult::Failed(StreamError::Connection(end)) => {
                return AfterReply::Lost(Some(frame), self.connector.classify(end.0).into());
            }
            RequestResult::Failed(error) => {
                client.abandon(id);
                Outcome::Failed(format!("no answer: {}", Chain(&error)))
            }
        };
        self.queue.finish(frame, outcome);
        AfterReply::Finished
    }
}

/// Sends a request on a stream of its own and reads the reply, until `deadline`.
async fn send_request(
    connection: Connection,
    priority: i32,
    deadline: Instant,
    request: Vec<u8>,
) -> RequestResult {
    let (mut send, mut receive) = match timeout_at(deadline.into(), connection.open_bi()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return RequestResult::Failed(StreamError::Connection(error.into())),
        Err(_) => return RequestResult::DeadlinePassed,
    };
    // This fails only for a closed stream, and then writing fails as well.
    let _ = send.set_priority(priority);
    let exchange = async {
        match write_message(&mut send, &request).await {
            // A server that does not read a request to its end says why on the same stream.
            Ok(()) | Err(StreamError::Reset(_)) => read_message(&mut receive, MAX_REPLY).await,
            Err(error) => Err(error),
        }
    };
    match timeout_at(deadline.into(), exchange).await {
        Ok(Ok(bytes)) => RequestResult::Reply(bytes, Instant::now()),
        Ok(Err(error)) => RequestResult::Failed(error),
        Err(_) => {
            let stale = VarInt::from_u32(Reset::Stale.into());
            let _ = send.reset(stale);
            let _ = receive.stop(stale);
            RequestResult::DeadlinePassed
        }
    }
}
