//! The server's side of a connection: it answers the hello and checks requests against the server's catalog.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use crate::{
    VERSIONS,
    bundle::BundleId,
    codes::{Framing, ImageFormat, QueryKind, RefusalCode},
    error::Error,
    hello::{Hello, HelloReply, STANDING_SINCE, Standing, Welcome, WelcomeBundle},
    limits::{HELLO_TIMEOUT, MAX_BUNDLES},
    refusal::{HelloRefusal, Refusal},
    reply::FrameReply,
    request::{Payload, Query, Request, TaskRequest},
};

/// The bundles and limits of a server, shared by all its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// The bundles that it serves.
    pub bundles: Vec<CatalogBundle>,
    /// The frames that may be in flight on one connection, 1 to [`crate::limits::MAX_IN_FLIGHT`].
    pub max_in_flight: u16,
}

/// One bundle of a [`Catalog`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogBundle {
    /// Its identity.
    pub id: BundleId,
    /// Its tasks, in the manifest's order.
    pub tasks: Vec<CatalogTask>,
}

/// One task of a [`CatalogBundle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogTask {
    /// Its name in the manifest.
    pub name: String,
    /// The kind of query that it answers.
    pub kind: QueryKind,
    /// Whether its unsplit network is served, so that it answers images.
    pub unsplit: bool,
}

/// The server's side of one connection.
///
/// The caller gives the message of the first stream to [`Server::hello`] and those of later streams to [`Server::request`],
/// and calls [`Server::finish`] for each accepted frame that is answered or given up.
#[derive(Debug)]
pub struct Server {
    catalog: Arc<Catalog>,
    opened: Instant,
    /// For each bundle of the welcome its index in the catalog; empty before the hello.
    bundles: Vec<usize>,
    in_flight: BTreeSet<u64>,
    draining: bool,
    standing: Standing,
    version: u16,
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloOutcome {
    /// The connection is open; the caller sends these bytes.
    Open(Vec<u8>),
    /// The hello is refused; the caller sends these bytes and closes with [`crate::Close::Refused`].
    Refused {
        /// The message.
        bytes: Vec<u8>,
        /// The reason, for the log.
        refusal: Refusal,
    },
}

/// The decision on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The caller answers the frame.
    Accepted(Accepted),
    /// The request is refused; the caller sends these bytes on its stream.
    Refused {
        /// The number of the frame.
        id: u64,
        /// The message.
        bytes: Vec<u8>,
        /// The reason, for the log.
        refusal: Refusal,
    },
}

/// A request that the server can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The number of the frame.
    pub id: u64,
    /// The index of the bundle in the [`Catalog`].
    pub bundle: usize,
    /// The time by which the work must have begun; `None` is no deadline.
    pub deadline: Option<Instant>,
    /// The queries. Every task is in the catalog and answers queries of this kind.
    pub task_requests: Vec<TaskRequest>,
    /// A packet, or an image of a known format and framing, the unsplit networks of whose tasks are served.
    pub payload: Payload,
}

impl Server {
    /// A session whose handshake ended at `now`.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, now: Instant) -> Server {
        Server {
            catalog,
            opened: now,
            bundles: Vec::new(),
            in_flight: BTreeSet::new(),
            draining: false,
            standing: Standing::default(),
            version: 0,
        }
    }

    /// Replaces the catalog. Called before the hello, by a server that looks for the client's bundles then.
    pub fn offer(&mut self, catalog: Arc<Catalog>) {
        self.catalog = catalog;
    }

    /// The version of the connection; 0 before the welcome.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The place of a bundle of the catalog in the welcome, if it is there.
    #[must_use]
    pub fn place(&self, bundle: usize) -> Option<u8> {
        let place = self.bundles.iter().position(|&index| index == bundle)?;
        u8::try_from(place).ok()
    }

    /// Sets what the welcome says about the server among others.
    pub fn stand(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// The time by which the hello must arrive; otherwise the connection is closed with [`crate::Close::HelloTimeout`].
    #[must_use]
    pub fn hello_due(&self) -> Instant {
        self.opened + HELLO_TIMEOUT
    }

    /// Takes the message of the first stream.
    ///
    /// # Errors
    /// An error of the peer, which ends the connection with [`crate::Close::Violation`].
    pub fn hello(&mut self, bytes: &[u8]) -> Result<HelloOutcome, Error> {
        let hello = Hello::parse(bytes)?;
        let bundles: Vec<usize> = (0..self.catalog.bundles.len())
            .filter(|&index| hello.bundles.contains(&self.catalog.bundles[index].id))
            .collect();
        match self.negotiate(&hello, &bundles) {
            Ok(version) => {
                let served = bundles.iter().map(|&index| {
                    let bundle = &self.catalog.bundles[index];
                    let tasks = bundle.tasks.iter().map(|task| task.name.clone()).collect();
                    WelcomeBundle { id: bundle.id, tasks }
                });
                let max_in_flight = self.catalog.max_in_flight;
                let standing = (version >= STANDING_SINCE).then(|| std::mem::take(&mut self.standing));
                let welcome = Welcome { version, max_in_flight, bundles: served.collect(), standing };
                let bytes = HelloReply::Welcome(welcome).encode()?;
                (self.bundles, self.version) = (bundles, version);
                Ok(HelloOutcome::Open(bytes))
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Refuses a hello for a reason that the session does not know, such as too many connections.
    ///
    /// # Errors
    /// [`Error::OverLimit`] or [`Error::Invalid`] for a catalog that cannot be expressed.
    pub fn refuse(&mut self, refusal: Refusal) -> Result<HelloOutcome, Error> {
        self.bundles.clear();
        // A client needs to know that its own is not among them, not all that there are.
        let serves = self.catalog.bundles.iter().take(MAX_BUNDLES).map(|bundle| bundle.id).collect();
        let message =
            HelloRefusal { refusal: refusal.clone(), oldest: VERSIONS.0, newest: VERSIONS.1, serves };
        Ok(HelloOutcome::Refused { bytes: message.encode()?, refusal })
    }

    /// Refuses a hello of a client that is told nothing of what is served.
    ///
    /// # Errors
    /// [`Error::OverLimit`] or [`Error::Invalid`] for a refusal that cannot be expressed.
    pub fn refuse_alone(&mut self, refusal: Refusal) -> Result<HelloOutcome, Error> {
        self.catalog = Arc::new(Catalog { bundles: Vec::new(), max_in_flight: self.catalog.max_in_flight });
        self.refuse(refusal)
    }

    /// The version of the connection, or the reason why the hello is refused.
    fn negotiate(&self, hello: &Hello, common: &[usize]) -> Result<u16, Refusal> {
        if self.draining {
            return Err(Refusal::new(RefusalCode::Draining, "the server is shutting down"));
        }
        let version = hello.newest.min(VERSIONS.1);
        if version < hello.oldest.max(VERSIONS.0) {
            let text = format!("the client speaks versions {} to {}", hello.oldest, hello.newest);
            return Err(Refusal::new(RefusalCode::Version, text));
        }
        if common.is_empty() {
            let held: Vec<String> = hello.bundles.iter().map(ToString::to_string).collect();
            return Err(Refusal::new(RefusalCode::Bundle, format!("the client holds {}", held.join(", "))));
        }
        let available = |name: &String| {
            common
                .iter()
                .any(|&index| self.catalog.bundles[index].tasks.iter().any(|task| task.name == *name))
        };
        match hello.tasks.iter().find(|name| !available(name)) {
            Some(name) => {
                Err(Refusal::new(RefusalCode::Task, format!("no common bundle has the task {name}")))
            }
            None => Ok(version),
        }
    }

    /// Takes one request.
    ///
    /// # Errors
    /// An error of the peer, which ends the connection with [`crate::Close::Violation`].
    pub fn request(&mut self, now: Instant, bytes: &[u8]) -> Result<Verdict, Error> {
        let request = Request::parse(bytes)?;
        if self.bundles.is_empty() {
            return Err(Error::Unexpected { got: crate::FrameType::Request, expected: "hello" });
        }
        if self.in_flight.contains(&request.id) {
            return Err(Error::Mismatch { id: request.id, reason: "a frame of this number is in flight" });
        }
        match self.admit(&request) {
            Ok(bundle) => {
                self.in_flight.insert(request.id);
                Ok(Verdict::Accepted(Accepted {
                    id: request.id,
                    bundle,
                    deadline: request.budget.map(|budget| now + budget),
                    task_requests: request.task_requests,
                    payload: request.payload,
                }))
            }
            Err(refusal) => {
                let reply = FrameReply::Refused { id: request.id, refusal: refusal.clone() };
                Ok(Verdict::Refused { id: request.id, bytes: reply.encode()?, refusal })
            }
        }
    }

    /// The request's bundle as an index in the catalog, or the reason why the request is refused.
    fn admit(&self, request: &Request) -> Result<usize, Refusal> {
        if self.draining {
            return Err(Refusal::new(RefusalCode::Draining, "the server is shutting down"));
        }
        if self.in_flight.len() >= usize::from(self.catalog.max_in_flight) {
            let text = format!("the welcome allowed {}", self.catalog.max_in_flight);
            return Err(Refusal::new(RefusalCode::TooManyInFlight, text));
        }
        let Some(&bundle) = self.bundles.get(usize::from(request.bundle)) else {
            let text = format!("index {}, the welcome lists {}", request.bundle, self.bundles.len());
            return Err(Refusal::new(RefusalCode::NoSuchBundle, text));
        };
        let tasks = &self.catalog.bundles[bundle].tasks;
        for task_request in &request.task_requests {
            let Some(task) = tasks.get(usize::from(task_request.task)) else {
                let text = format!("index {}, the bundle has {}", task_request.task, tasks.len());
                return Err(Refusal::new(RefusalCode::NoSuchTask, text));
            };
            if let Query::Unknown { kind, .. } = task_request.query {
                return Err(Refusal::new(RefusalCode::Unsupported, format!("question of kind {kind}")));
            }
            if task.kind != task_request.query.kind() {
                let text = format!("{} answers {}, not {}", task.name, task.kind, task_request.query.kind());
                return Err(Refusal::new(RefusalCode::WrongKind, text));
            }
            if !task.unsplit && matches!(request.payload, Payload::Image(_)) {
                let text = format!("{} takes packets only", task.name);
                return Err(Refusal::new(RefusalCode::UnsplitNotServed, text));
            }
        }
        let unknown = match &request.payload {
            Payload::Packet(_) | Payload::Truncatable(_) => None,
            Payload::Image(image) => match (image.format, image.framing) {
                (ImageFormat::Unknown(format), _) => Some(format!("image format {format}")),
                (_, Framing::Unknown(framing)) => Some(format!("image framing {framing}")),
                _ => None,
            },
            Payload::Unknown { kind, .. } => Some(format!("payload of kind {kind}")),
        };
        if let Some(text) = unknown {
            return Err(Refusal::new(RefusalCode::Unsupported, text));
        }
        if request.budget.is_some_and(|budget| budget.is_zero()) {
            return Err(Refusal::new(RefusalCode::Expired, "the frame arrived with no budget left"));
        }
        Ok(bundle)
    }

    /// Removes a frame that was answered or given up. True if it was in flight.
    pub fn finish(&mut self, id: u64) -> bool {
        self.in_flight.remove(&id)
    }

    /// Refuses every hello and request from now on with [`RefusalCode::Draining`]. Frames in flight are not affected.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The number of frames that were accepted and are not finished.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}
