//! Messages between head and tail, and the QUIC settings that carry them.
//!
//! `wire/PROTOCOL.md` is normative; the parsers cite its sections. The crate has two halves:
//!
//! * **pure**: [`Hello`], [`Request`], [`FrameReply`] and the state machines in [`session`] take bytes and `now` and
//!   return values. They touch no socket and no clock.
//! * **QUIC**: [`quic`] is the one door to quinn's settings, [`identity`] reads certificates from a folder, and
//!   [`stream`] moves one whole message over one stream.
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

pub mod codes;
mod cursor;
mod error;
mod hello;
pub mod identity;
pub mod limits;
mod map;
pub mod quic;
mod reply;
mod request;
pub mod session;
pub mod stream;

pub use codes::{
    Close, FrameType, Framing, ImageFormat, MapEncoding, OutcomeKind, Path, PayloadKind, Provider, QueryKind,
    RefusalCode, Reset,
};
pub use error::{Error, ErrorKind, Problem};
pub use hello::{BundleId, Hello, HelloRefusal, HelloReply, Welcome, WelcomeBundle};
pub use map::ClassMap;
pub use reply::{Class, FrameReply, Outcome, Refusal, Reply, TaskAnswer, Timings};
pub use request::{Image, Payload, Query, Request, TaskRequest};

/// The versions of the protocol that this crate speaks, oldest and newest.
pub const VERSIONS: (u16, u16) = (1, 1);

/// The ALPN name of the protocol: the first line of defence against a stranger on the port.
pub const ALPN: &[u8] = b"narrows/1";
