//! Errors, by what was refused and who caused it.

use std::{fmt, io};

use crate::Mode;

/// Why a packet, a tables file or an argument was refused. The text names the field of FORMAT.md.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The packet is longer than any packet of its shape can be.
    #[error("packet: length: {found} bytes, at most {max} for this geometry")]
    PacketLength {
        /// Bytes in the packet.
        found: usize,
        /// The limit, [`packet_max`](crate::packet_max).
        max: usize,
    },
    /// The packet ends before the field does.
    #[error("packet: {field}: the packet ends before it does")]
    PacketTruncated {
        /// The field of FORMAT.md.
        field: &'static str,
    },
    /// Bytes are left after the last field.
    #[error("packet: {field}: {bytes} bytes left over")]
    PacketTrailing {
        /// The last field of FORMAT.md.
        field: &'static str,
        /// How many bytes.
        bytes: usize,
    },
    /// The format's version is not one that this crate reads.
    #[error("packet: version: {found}, this reader knows 2")]
    Version {
        /// The packet's.
        found: u8,
    },
    /// The mode is not one of this version.
    #[error("packet: mode: unknown number {found}")]
    Mode {
        /// The packet's.
        found: u8,
    },
    /// The packet's level is outside the tables.
    #[error("packet: level: {found}, the tables have {levels}")]
    Level {
        /// The packet's.
        found: u8,
        /// How many levels there are.
        levels: usize,
    },
    /// The packet's geometry is outside the bundle.
    #[error("packet: geometry: {found}, the bundle has {geometries}")]
    Geometry {
        /// The packet's.
        found: u8,
        /// How many geometries there are.
        geometries: usize,
    },
    /// The layout byte is not one that the mode allows.
    #[error("packet: layout: {found} is not one of mode {mode}")]
    Layout {
        /// The packet's.
        found: u8,
        /// The packet's mode.
        mode: Mode,
    },
    /// The packet has another number of channel groups than the tables.
    #[error("packet: groups: {found}, the tables have {groups}")]
    Groups {
        /// The packet's.
        found: usize,
        /// The tables'.
        groups: usize,
    },
    /// The mode needs a section that the tables do not hold.
    #[error("packet: mode: {mode}, for which these tables have no section")]
    Section {
        /// The packet's.
        mode: Mode,
    },
    /// The packet was encoded with other tables.
    #[error("packet: table id: {found:#04x}, these tables are {expected:#04x}")]
    TableId {
        /// The packet's.
        found: u8,
        /// The reader's, the first byte of [`Tables::id`](crate::Tables::id).
        expected: u8,
    },
    /// A LEB128 number is longer than necessary or than four bytes.
    #[error("packet: {field}: a number that is not in its shortest form")]
    Number {
        /// The field of FORMAT.md.
        field: &'static str,
    },
    /// The bits after the last state are not zero.
    #[error("packet: states: bits are set after the last one")]
    Padding,
    /// A group has another number of words than the directory states.
    #[error("packet: words: group {group} ends after {found} words instead of {expected}")]
    GroupWords {
        /// The group, from 0.
        group: usize,
        /// Words up to its end.
        found: u64,
        /// The number in the directory.
        expected: u64,
    },
    /// The symbols up to the end of a group are not those that were encoded.
    #[error("packet: check: {found:#06x} after group {group}, the symbols give {expected:#06x}")]
    GroupCheck {
        /// The group, from 0.
        group: usize,
        /// The packet's.
        found: u16,
        /// That of the tables, the header and the decoded symbols.
        expected: u16,
    },
    /// The final state of a lane is not one that an encoder begins with.
    #[error("packet: words: lane {lane} ends at {found:#x}, expected 0x8000 to 0xffff")]
    FinalState {
        /// The lane.
        lane: usize,
        /// Its state.
        found: u32,
    },
    /// An escape stands for a value that the table holds.
    #[error("packet: escapes: {found} is a regular value in channel {channel}")]
    Escape {
        /// The value.
        found: i16,
        /// Its channel.
        channel: usize,
    },
    /// The table index of a tile is an escape.
    #[error("packet: index: an escape in channel {channel}")]
    Index {
        /// The tile's channel.
        channel: usize,
    },
    /// The zstd frame is damaged or does not hold the expected number of bytes.
    #[error("packet: frame: {problem}")]
    Frame {
        /// What is wrong with it.
        problem: &'static str,
        /// The error of the zstd library, if it found the problem.
        #[source]
        source: Option<io::Error>,
    },
    /// The symbols are not those that were encoded, or the tables are not those they were encoded with.
    #[error("packet: checksum: {found:#010x}, tables and symbols give {expected:#010x}")]
    Checksum {
        /// The packet's, as many bits as its lanes hold.
        found: u32,
        /// That of the tables, the header and the decoded symbols, as many bits.
        expected: u32,
    },

    /// A field of the tables file has a value that FORMAT.md does not allow.
    #[error("tables: {field}: {found}, expected {expected}")]
    Tables {
        /// The field of FORMAT.md.
        field: &'static str,
        /// Its value.
        found: usize,
        /// What is allowed.
        expected: &'static str,
    },
    /// One table has a value that FORMAT.md does not allow.
    #[error("tables: {table}: {field}: {found}, expected {expected}")]
    Table {
        /// The table.
        table: TableName,
        /// The field of FORMAT.md.
        field: &'static str,
        /// Its value.
        found: usize,
        /// What is allowed.
        expected: &'static str,
    },
    /// The tables file ends before the field does.
    #[error("tables: {field}: the file ends before it does")]
    TablesTruncated {
        /// The field of FORMAT.md.
        field: &'static str,
    },
    /// The shape of a geometry has another number of channels than the tables.
    #[error("tables: channels: {tables}, the feature has {feature}")]
    Channels {
        /// The channels of the tables.
        tables: usize,
        /// The channels of the shape.
        feature: usize,
    },

    /// The shape is empty or exceeds a limit.
    #[error("shape {channels}x{height}x{width}: {problem}")]
    Shape {
        /// The channels of the shape.
        channels: usize,
        /// The rows of the shape.
        height: usize,
        /// The columns of the shape.
        width: usize,
        /// The limit that it exceeds.
        problem: &'static str,
    },
    /// The number of symbols is not that of the shape.
    #[error("{found} symbols for a shape of {expected}")]
    Symbols {
        /// The number of symbols.
        found: usize,
        /// The number that the shape has.
        expected: usize,
    },
    /// The level to encode with is outside the tables.
    #[error("level {found}: the tables have {levels}")]
    NoLevel {
        /// The level.
        found: u8,
        /// How many levels there are.
        levels: usize,
    },
    /// The geometry to encode for is over the format's limit.
    #[error("geometry {found}: the format has room for {max}")]
    NoGeometry {
        /// The geometry.
        found: u8,
        /// How many geometries a packet can tell apart.
        max: usize,
    },
    /// The mode to encode with needs a section that the tables do not hold.
    #[error("mode {mode}: these tables have no section for it; export them with one or take another mode")]
    NoMode {
        /// The mode.
        mode: Mode,
    },
    /// The zstd library failed.
    #[error("the zstd library failed")]
    Zstd {
        /// The error of the library.
        #[source]
        source: io::Error,
    },
}

/// A table of the tables file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableName {
    /// The static table of a level and channel.
    Static {
        /// The level.
        level: u8,
        /// The channel.
        channel: usize,
    },
    /// A table that tiles choose from, by its index.
    Indexed(u8),
    /// The table of a level's tile index differences.
    Deltas {
        /// The level.
        level: u8,
    },
    /// A table that contexts choose from, by its index.
    Context(u8),
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static { level, channel } => write!(f, "level {level}, channel {channel}"),
            Self::Indexed(table) => write!(f, "indexed table {table}"),
            Self::Deltas { level } => write!(f, "deltas of level {level}"),
            Self::Context(table) => write!(f, "context table {table}"),
        }
    }
}

/// Who caused an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The packet: its sender is broken, hostile, or holds another bundle.
    Peer,
    /// The tables file, or tables and geometries that do not fit together.
    Bundle,
    /// The caller: an argument.
    Caller,
    /// This machine, for example for want of memory.
    Device,
}

impl Error {
    /// Who caused the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::PacketLength { .. }
            | Self::PacketTruncated { .. }
            | Self::PacketTrailing { .. }
            | Self::Version { .. }
            | Self::Mode { .. }
            | Self::Level { .. }
            | Self::Geometry { .. }
            | Self::Layout { .. }
            | Self::Groups { .. }
            | Self::Section { .. }
            | Self::TableId { .. }
            | Self::Number { .. }
            | Self::Padding
            | Self::GroupWords { .. }
            | Self::GroupCheck { .. }
            | Self::FinalState { .. }
            | Self::Escape { .. }
            | Self::Index { .. }
            | Self::Frame { .. }
            | Self::Checksum { .. } => ErrorKind::Peer,
            Self::Tables { .. }
            | Self::Table { .. }
            | Self::TablesTruncated { .. }
            | Self::Channels { .. } => ErrorKind::Bundle,
            Self::Shape { .. }
            | Self::Symbols { .. }
            | Self::NoLevel { .. }
            | Self::NoGeometry { .. }
            | Self::NoMode { .. } => ErrorKind::Caller,
            Self::Zstd { .. } => ErrorKind::Device,
        }
    }
}
