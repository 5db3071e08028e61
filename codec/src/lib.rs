//! Integer features to bytes and back.
//!
//! A [`Feature`] holds the integer symbols that a bottleneck puts out, shape \[channels, height, width\]. [`encode`]
//! turns it into a packet and [`decode`] turns the packet into an equal feature, both with the probability
//! [`Tables`] of a bundle. The format is `FORMAT.md` beside this crate's manifest; the names of its sections are
//! cited where they are read. No floating-point number decides a byte, so every machine writes and reads the same.
//!
//! [`Encoder`] and [`Decoder`] are the same with memory that is used again.
//!
//! ```
//! use narrows_codec::{Choice, Feature, GeometryId, LevelId, Mode, Shape, Tables, decode, encode};
//!
//! // Two channels, one level: FORMAT.md, section 7.
//! let tables = Tables::parse(&[
//!     0x4e, 0x52, 0x57, 0x54, 2, 12, 2, 0, 1, 1, 0, 0, // NRWT, version 2, 12 bits, 2 channels, 1 level, 1 group
//!     0xff, 0xff, 3, 0x80, 0x08, 0x80, 0x10, 0xe8, 0x07, 0x18, // -1..=1: 1024 2048 1000, escape 24
//!     0x00, 0x00, 1, 0xa0, 0x1f, 0x60, // 0: 4000, escape 96
//! ])?;
//! let shape = Shape::new(2, 2, 2)?;
//! let feature = Feature::new(shape, vec![0, 0, 1, -1, 0, 0, 5, 0])?;
//!
//! let mut packet = Vec::new();
//! encode(&tables, GeometryId(0), LevelId(0), Choice::Only(Mode::Static), &feature, &mut packet)?;
//! assert_eq!(packet.len(), 10);
//! assert_eq!(decode(&tables, &[shape], &packet)?.feature, feature);
//! # Ok::<(), narrows_codec::Error>(())
//! ```

#[cfg(target_arch = "x86_64")]
mod avx2;
mod checksum;
mod context;
mod cursor;
mod decode;
mod encode;
mod error;
mod feature;
mod header;
mod ids;
mod indexed;
mod kernel;
#[cfg(target_arch = "x86_64")]
mod kernel_avx2;
mod model;
mod plan;
mod rans;
mod simd;
mod state;
mod states;
mod table;
mod tables;

pub use decode::{Decoded, Decoder, Packet, decode, decode_into};
pub use encode::{Choice, Encoder, encode};
pub use error::{Error, ErrorKind, TableName};
pub use feature::{Feature, SIDE_MAX, SYMBOLS_MAX, Shape};
pub use header::{HEADER_BYTES, Header, Mode, packet_max, prefixes};
pub use ids::{GeometryId, LevelId};
pub use table::Table;
pub use tables::{CHANNELS_MAX, GROUPS_MAX, LEVELS_MAX, TABLES_MAX, Tables};
