//! The entropy codec of narrows: the integer features of a bottleneck to a few kilobytes, and back.
//!
//! In split computing the first layers of a network run on a device and end in a bottleneck. Its output, a [`Feature`] of
//! shape \[channels, height, width\], is what travels to the server. [`encode`] compresses it to a packet with range ANS
//! and probability [`Tables`] that both sides have from the model bundle; [`decode`] restores the same symbols.
//!
//! The bitstream is specified in `FORMAT.md` beside the manifest of this crate; comments cite its sections. Only integer
//! arithmetic decides about bytes, so every machine writes and reads the same. Untrusted packets
//! are safe to decode: a packet is either refused with an [`Error`] that names the field, or gives symbols that fit its
//! checksum. The caller's shapes bound memory and time.
//!
//! * [`Choice`] selects a [`Mode`] or the smallest packet; a [`LevelId`] selects one of the rate levels of the tables.
//! * With [`Encoder::truncatable`] a packet can be cut at any of its [`prefixes`] and still be decoded; the channels that are
//!   missing are filled with medians.
//! * [`Encoder`] and [`Decoder`] use their memory again, for streams of features. They use AVX2 where the processor has it;
//!   the portable code writes the same bytes.
//!
//! ```
//! use narrows_codec::{Choice, Feature, GeometryId, LevelId, Mode, Shape, Tables, decode, encode};
//!
//! // The tables of FORMAT.md, section 7. A bundle has them as `tables.bin`.
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

mod context;
mod decode;
mod encode;
mod error;
mod feature;
mod format;
mod ids;
mod indexed;
mod limits;
mod rans;
mod simd;
mod tables;

pub use decode::{Decoded, Decoder, Packet, decode, decode_into};
pub use encode::{Choice, Encoder, encode};
pub use error::{Error, ErrorKind, TableName};
pub use feature::{Feature, Shape};
pub use format::{
    directory::prefixes,
    header::{HEADER_BYTES, Header, packet_max},
    mode::Mode,
    table::Table,
};
pub use ids::{GeometryId, LevelId};
pub use limits::{CHANNELS_MAX, GROUPS_MAX, LEVELS_MAX, SIDE_MAX, SYMBOLS_MAX, TABLES_MAX};
pub use tables::Tables;
