//! Emulated network links with names, and a UDP relay between a real head and a real tail that behaves like one of them.
//!
//! A link limits the rate, delays, loses and reorders datagrams. The relay runs in user space, needs no rights, and shapes
//! both directions.
//!
//! * [`Ladder`] and [`Link`]: the links of `bench/links.toml` or of another file.
//! * [`Shaper`]: one direction of a link, pure: takes datagrams and `now`, returns datagrams when they are due.
//! * [`Relay`]: a thread with sockets around two shapers.
//! * [`Ideal`]: the least time that a link takes for a message, a lower bound for measured times.
//! * [`Trace`]: a recorded link, as the times at which packets may leave.
//!
//! ```
//! use std::time::Duration;
//! use narrows_netsim::{Rate, Shape, Shaper};
//!
//! let mut line = Shaper::new(Shape { rate: Some(Rate::Fixed(8_000)), ..Shape::default() }, 1);
//! // 72 bytes and 28 of IPv4 and UDP header take 0.1 s at 8 kbit/s.
//! line.push(Duration::ZERO, 72, "datagram");
//! assert_eq!(line.due(), Some(Duration::from_millis(100)));
//! assert_eq!(line.pop(Duration::from_millis(99)), None);
//! assert_eq!(line.pop(Duration::from_millis(100)), Some("datagram"));
//! ```

mod ideal;
mod link;
mod relay;
mod shape;
mod trace;

pub use ideal::{Ideal, wire_bytes};
pub use link::{Direction, Ladder, Link};
pub use relay::{Counts, Relay};
pub use shape::{Count, HEADER, Loss, Rate, Shape, Shaper};
pub use trace::{PACKET, Trace, TraceError};
