//! The protocol between head (device) and tail (server): messages, sessions, and the settings of QUIC.
//!
//! `wire/PROTOCOL.md` specifies the protocol, and the parsers cite its sections. The crate has three parts:
//!
//! * **pure**: [`Hello`], [`Request`], [`FrameReply`] and the state machines in [`session`] take bytes and the current time
//!   and return values. They use no socket and no clock.
//! * **enrolment**: [`enrol`] holds the messages by which a device gets its certificate, and tokens.
//! * **QUIC**: [`quic`] holds the settings of the transport, [`identity`] reads certificates from a folder, and [`stream`]
//!   sends and receives whole messages.
//!
//! [`text`] displays what a peer says, for logs and messages.
//!
//! A request carries one frame and is one message:
//!
//! ```
//! use narrows_wire::{Query, Payload, Request, TaskRequest};
//!
//! let request = Request {
//!     id: 7,
//!     bundle: 0,
//!     budget: Some(std::time::Duration::from_millis(250)),
//!     task_requests: vec![TaskRequest { task: 0, query: Query::Classify { top_k: 5 } }],
//!     payload: Payload::Packet(vec![1, 2, 3]),
//! };
//! let bytes = request.encode()?;
//! assert_eq!(Request::parse(&bytes)?, request);
//! # Ok::<(), narrows_wire::Error>(())
//! ```

mod bundle;
pub mod codes;
mod cursor;
mod end;
pub mod enrol;
mod error;
mod fault;
mod hello;
pub mod identity;
mod keys;
pub mod limits;
mod map;
mod notice;
mod pinned;
pub mod quic;
mod refusal;
mod reply;
mod request;
pub mod session;
mod socket;
pub mod stream;
pub mod text;

pub use bundle::BundleId;
pub use codes::{
    Close, EnrolmentCode, EnrolmentType, FrameType, Framing, ImageFormat, MapEncoding, OutcomeKind, Path,
    PayloadKind, Provider, QueryKind, RefusalCode, Reset,
};
pub use error::{Error, ErrorKind, Problem};
pub use hello::{Hello, HelloReply, Standing, Welcome, WelcomeBundle};
pub use map::ClassMap;
pub use notice::{BundleNotice, NOTICES_SINCE};
pub use refusal::{HelloRefusal, Refusal};
pub use reply::{Class, FrameReply, Groups, Outcome, Reply, TaskAnswer, Timings};
pub use request::{
    Image, Payload, Query, REQUEST_PREFIX, Request, TaskRequest, Truncatable, request_id, truncatable_wait,
};

/// The versions of the protocol that this crate speaks, oldest and newest.
pub const VERSIONS: (u16, u16) = (1, 3);

/// The ALPN name of the protocol. TLS refuses peers that speak another protocol.
pub const ALPN: &[u8] = b"narrows/1";
