//! The client's side of a connection: it sends the hello and requests, and checks replies against their requests.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    bundle::BundleId,
    codes::{OutcomeKind, Path},
    error::Error,
    hello::{Hello, HelloReply, Standing, Welcome},
    reply::{FrameReply, Outcome, Reply},
    request::{Payload, Query, Request, TaskRequest},
};

/// The client's side of one connection.
///
/// The caller sends the bytes of [`Client::hello`] and gives the answer to [`Client::welcome`]. For each frame it sends the
/// bytes of [`Client::request`] and gives the answer to [`Client::reply`], or calls [`Client::abandon`] if the stream was
/// reset or lost.
#[derive(Debug)]
pub struct Client {
    hello: Hello,
    welcome: Option<Welcome>,
    next: u64,
    in_flight: BTreeMap<u64, Pending>,
}

#[derive(Debug)]
struct Pending {
    sent: Instant,
    path: Option<Path>,
    truncatable: bool,
    task_requests: Vec<TaskRequest>,
}

/// A reply that fits its request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The server's answer.
    pub reply: FrameReply,
    /// The time from the encoding of the request to the arrival of the reply.
    pub round_trip: Duration,
}

impl Client {
    /// A session that begins with this hello.
    #[must_use]
    pub fn new(hello: Hello) -> Client {
        Client { hello, welcome: None, next: 0, in_flight: BTreeMap::new() }
    }

    /// The bytes of the hello, for the connection's first stream.
    ///
    /// # Errors
    /// Those of [`Hello::encode`].
    pub fn hello(&self) -> Result<Vec<u8>, Error> {
        self.hello.encode()
    }

    /// Takes the answer to the hello.
    ///
    /// # Errors
    /// [`Error::Refused`] if the server refused, and an error of kind [`crate::ErrorKind::Peer`] if the answer is malformed
    /// or does not fit the hello.
    pub fn welcome(&mut self, bytes: &[u8]) -> Result<&Welcome, Error> {
        let welcome = match HelloReply::parse(bytes)? {
            HelloReply::Welcome(welcome) => welcome,
            HelloReply::Refused(refusal) => return Err(Error::Refused(Box::new(refusal))),
        };
        let mismatch = |field, reason| Error::Malformed {
            message: "welcome",
            field,
            problem: crate::Problem::Invalid(reason),
        };
        if !(self.hello.oldest..=self.hello.newest).contains(&welcome.version) {
            return Err(mismatch("version", "a version the hello did not offer"));
        }
        if !welcome.bundles.iter().all(|served| self.hello.bundles.contains(&served.id)) {
            return Err(mismatch("bundles", "a bundle the hello did not name"));
        }
        Ok(self.welcome.insert(welcome))
    }

    /// How the server stands among others, if it has said so.
    #[must_use]
    pub fn standing(&self) -> Option<&Standing> {
        self.welcome.as_ref()?.standing.as_ref()
    }

    /// The index by which requests name a bundle, if the welcome has arrived and lists the bundle.
    #[must_use]
    pub fn bundle(&self, id: &BundleId) -> Option<u8> {
        let index = self.welcome.as_ref()?.bundles.iter().position(|bundle| bundle.id == *id)?;
        u8::try_from(index).ok()
    }

    /// The number of frames that wait for their reply.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The number of frames that may be sent before one of those in flight is answered or abandoned.
    #[must_use]
    pub fn room(&self) -> usize {
        let limit = self.welcome.as_ref().map_or(0, |welcome| usize::from(welcome.max_in_flight));
        limit.saturating_sub(self.in_flight.len())
    }

    /// Gives a frame its number and encodes its request, which is to be sent on a stream of its own. The budget in the request
    /// is the time from `now` to `deadline`; for a deadline in the past it is 0, and the server refuses the frame.
    ///
    /// # Errors
    /// [`Error::NotOpen`] before the welcome, [`Error::Full`] if too many frames are in flight, and [`Error::Invalid`] or
    /// [`Error::OverLimit`] for values that are not in the welcome or cannot be expressed.
    pub fn request(
        &mut self,
        now: Instant,
        bundle: u8,
        deadline: Option<Instant>,
        task_requests: Vec<TaskRequest>,
        payload: Payload,
    ) -> Result<(u64, Vec<u8>), Error> {
        let welcome = self.welcome.as_ref().ok_or(Error::NotOpen)?;
        let limit = usize::from(welcome.max_in_flight);
        if self.in_flight.len() >= limit {
            return Err(Error::Full { limit });
        }
        let served = welcome.bundles.get(usize::from(bundle));
        let tasks =
            served.ok_or(Error::Invalid { field: "bundle", reason: "not in the welcome" })?.tasks.len();
        if task_requests.iter().any(|task_request| usize::from(task_request.task) >= tasks) {
            return Err(Error::Invalid { field: "task", reason: "not in the welcome" });
        }
        let budget = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let request = Request { id: self.next, bundle, budget, task_requests, payload };
        let bytes = request.encode()?;
        self.next += 1;
        let pending = Pending {
            sent: now,
            path: request.payload.path(),
            truncatable: matches!(request.payload, Payload::Truncatable(_)),
            task_requests: request.task_requests,
        };
        self.in_flight.insert(request.id, pending);
        Ok((request.id, bytes))
    }

    /// Takes the reply that arrived on the stream of frame `id`. The frame is no longer in flight afterwards, even if this
    /// fails.
    ///
    /// # Errors
    /// [`Error::NoSuchFrame`] if the frame is not in flight, and an error of kind [`crate::ErrorKind::Peer`], which ends the
    /// connection, if the reply is malformed or does not fit the request.
    pub fn reply(&mut self, now: Instant, id: u64, bytes: &[u8]) -> Result<Answered, Error> {
        let pending = self.in_flight.remove(&id).ok_or(Error::NoSuchFrame { id })?;
        let reply = FrameReply::parse(bytes)?;
        if reply.id() != id {
            return Err(Error::Mismatch { id, reason: "it is the answer to another frame" });
        }
        if let FrameReply::Answered(reply) = &reply {
            if pending.path.is_some_and(|path| path != reply.path) {
                return Err(Error::Mismatch { id, reason: "it was made on another path" });
            }
            if pending.truncatable != reply.groups.is_some() {
                return Err(Error::Mismatch {
                    id,
                    reason: "only an answer to a truncatable packet states groups",
                });
            }
            check_answers(reply, &pending.task_requests)?;
        }
        Ok(Answered { reply, round_trip: now.saturating_duration_since(pending.sent) })
    }

    /// Removes a frame whose stream was reset or lost. True if it was in flight.
    pub fn abandon(&mut self, id: u64) -> bool {
        self.in_flight.remove(&id).is_some()
    }
}

/// Checks that there is one answer per task request, of the kind and size that its query asks for.
fn check_answers(reply: &Reply, task_requests: &[TaskRequest]) -> Result<(), Error> {
    let mismatch = |reason| Error::Mismatch { id: reply.id, reason };
    if reply.answers.len() != task_requests.len() {
        return Err(mismatch("not one answer per task asked for"));
    }
    for task_request in task_requests {
        let answer = reply.answers.iter().find(|answer| answer.task == task_request.task);
        let outcome = &answer.ok_or(mismatch("a task asked for did not answer"))?.outcome;
        match (&task_request.query, outcome) {
            (_, Outcome::Refused(_)) => {}
            (Query::Classify { top_k }, Outcome::Classes(classes)) => {
                if classes.len() > usize::from(*top_k) {
                    return Err(mismatch("more classes than asked for"));
                }
            }
            (Query::Segment { size }, Outcome::Map(map)) => {
                if size.is_some_and(|size| size != (map.width(), map.height())) {
                    return Err(mismatch("a class map of another size"));
                }
            }
            (_, outcome) if matches!(outcome.kind(), OutcomeKind::Unknown(_)) => {
                return Err(mismatch("an answer of an unknown kind"));
            }
            _ => return Err(mismatch("an answer of another kind")),
        }
    }
    Ok(())
}
