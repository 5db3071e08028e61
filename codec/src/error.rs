//! What can be wrong, and whose fault it is.

use std::fmt;

use crate::Mode;

/// Why a packet, a tables file or an argument was not accepted.
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
        /// How many.
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
    /// The packet was cut into another number of groups than the tables have.
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
    /// The packet was made with other tables.
    #[error("packet: table id: {found:#04x}, these tables are {expected:#04x}")]
    TableId {
        /// The packet's.
        found: u8,
        /// The reader's, the first byte of [`Tables::id`](crate::Tables::id).
        expected: u8,
    },
    /// A number is longer than it needs to be, or than any may be.
    #[error("packet: {field}: a number that is not in its shortest form")]
    Number {
        /// The field of FORMAT.md.
        field: &'static str,
    },
    /// The bits after the last state are not zero.
    #[error("packet: states: bits are set after the last one")]
    Padding,
    /// A group takes another number of words than the directory says.
    #[error("packet: words: group {group} ends after {found} words instead of {expected}")]
    GroupWords {
        /// The group, from 0.
        group: usize,
        /// Words up to its end.
        found: u64,
        /// What the directory says.
        expected: u64,
    },
    /// The symbols up to a group's end are not those that were encoded.
    #[error("packet: check: {found:#06x} after group {group}, the symbols give {expected:#06x}")]
    GroupCheck {
        /// The group, from 0.
        group: usize,
        /// The packet's.
        found: u16,
        /// Of the tables, the header and the decoded symbols.
        expected: u16,
    },
    /// A lane does not end where a lane can end.
    #[error("packet: words: lane {lane} ends at {found:#x}, expected 0x8000 to 0xffff")]
    FinalState {
        /// The lane.
        lane: usize,
        /// Its state.
        found: u32,
    },
    /// An escape holds a value that needed none.
    #[error("packet: escapes: {found} is a regular value in channel {channel}")]
    Escape {
        /// The value.
        found: i16,
        /// Its channel.
        channel: usize,
    },
    /// A tile's index is the escape.
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
    },
    /// The symbols are not those that were encoded, or the tables are others.
    #[error("packet: checksum: {found:#010x}, tables and symbols give {expected:#010x}")]
    Checksum {
        /// The packet's, as far as it has room for it.
        found: u32,
        /// Of the tables, the header and the decoded symbols, as far as the packet has room for it.
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
    #[error("tables: {place}: {field}: {found}, expected {expected}")]
    Table {
        /// The table.
        place: TableName,
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
        /// Of the tables.
        tables: usize,
        /// Of the feature's shape.
        feature: usize,
    },

    /// The shape is empty or over a limit.
    #[error("shape {channels}x{height}x{width}: {problem}")]
    Shape {
        /// Channels asked for.
        channels: usize,
        /// Rows asked for.
        height: usize,
        /// Columns asked for.
        width: usize,
        /// The limit that it breaks.
        problem: &'static str,
    },
    /// The number of symbols is not the shape's.
    #[error("{found} symbols for a shape of {expected}")]
    Symbols {
        /// Symbols given.
        found: usize,
        /// Symbols of the shape.
        expected: usize,
    },
    /// The level to encode with is outside the tables.
    #[error("level {found}: the tables have {levels}")]
    NoLevel {
        /// The level asked for.
        found: u8,
        /// How many levels there are.
        levels: usize,
    },
    /// The geometry to encode for is over the format's limit.
    #[error("geometry {found}: the format has room for {max}")]
    NoGeometry {
        /// The geometry asked for.
        found: u8,
        /// How many geometries a packet can name.
        max: usize,
    },
    /// The mode to encode with needs a section that the tables do not hold.
    #[error("mode {mode}: these tables have no section for it; export them with one or take another mode")]
    NoMode {
        /// The mode asked for.
        mode: Mode,
    },
    /// The compressor failed.
    #[error("zstd")]
    Zstd {
        /// Its own words.
        #[source]
        source: std::io::Error,
    },
}

/// Which table of the tables file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableName {
    /// That of a level and channel.
    Static {
        /// The level.
        level: u8,
        /// The channel.
        channel: usize,
    },
    /// One that tiles choose from.
    Indexed(u8),
    /// That of the tiles' indices.
    Deltas {
        /// The level.
        level: u8,
    },
    /// One that contexts choose from.
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

/// Whose fault an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The packet: its sender is broken, hostile, or holds another bundle.
    Peer,
    /// The tables file, or tables and geometries that do not fit together.
    Bundle,
    /// An argument.
    Caller,
    /// This machine.
    Device,
}

impl Error {
    /// Whose fault this is.
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
