//! Links with names, and a relay between a real head and a real tail that behaves like one of them.
//!
//! * [`Ladder`] and [`Link`]: the links of `bench/links.toml` or of the user's own file.
//! * [`Shaper`]: one direction of a link, pure: datagrams and `now` in, datagrams and when they are due out.
//! * [`Relay`]: a thread with sockets around two shapers.
//! * [`Ideal`]: what a link costs a message at least, to hold a measured time against.
//!
//! ```
//! use std::time::Duration;
//! use narrows_netsim::{Shape, Shaper};
//!
//! let mut line = Shaper::new(Shape { rate: Some(8_000), ..Shape::default() }, 1);
//! // 72 bytes and 28 of IPv4 and UDP header take 0.1 s at 8 kbit/s.
//! line.push(Duration::ZERO, 72, "datagram");
//! assert_eq!(line.due(), Some(Duration::from_millis(100)));
//! assert_eq!(line.pop(Duration::from_millis(99)), None);
//! assert_eq!(line.pop(Duration::from_millis(100)), Some("datagram"));
//! ```

mod fidelity;
mod ideal;
mod link;
mod measure;
mod namespaces;
mod probe;
mod relay;
mod shape;

pub use fidelity::{DirectionFidelity, Fidelity};
pub use ideal::{Ideal, wire_bytes};
pub use link::{Direction, Ladder, Link, LinkError};
pub use measure::Prober;
pub use relay::{Counts, Relay};
pub use shape::{Count, HEADER, Loss, Shape, Shaper};
