//! What can be wrong, and whose fault it is.

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
    #[error("packet: version: {found}, this reader knows 1")]
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
    /// The packet was made with other tables.
    #[error("packet: table id: {found:02x?}, these tables are {expected:02x?}")]
    TableId {
        /// The packet's.
        found: [u8; 4],
        /// The reader's, [`Tables::id`](crate::Tables::id).
        expected: [u8; 4],
    },
    /// A lane's first state is outside \[2^15, 2^31).
    #[error("packet: states: lane {lane} begins at {found:#x}")]
    State {
        /// The lane.
        lane: usize,
        /// Its state.
        found: u32,
    },
    /// A lane does not end where every lane ends.
    #[error("packet: words: lane {lane} ends at {found:#x} instead of 0x8000")]
    FinalState {
        /// The lane.
        lane: usize,
        /// Its state.
        found: u32,
    },
    /// An escape holds a symbol that needed none.
    #[error("packet: escapes: {found} is a regular symbol of channel {channel}")]
    Escape {
        /// The symbol.
        found: i16,
        /// Its channel.
        channel: usize,
    },
    /// The zstd frame is damaged or does not hold the expected number of bytes.
    #[error("packet: frame: {problem}")]
    Frame {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The decoded symbols are not those that were encoded.
    #[error("packet: check: {found:#010x}, the symbols give {expected:#010x}")]
    Check {
        /// The packet's.
        found: u32,
        /// Of the header and the decoded symbols.
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
    #[error("tables: level {level}, channel {channel}: {field}: {found}, expected {expected}")]
    Table {
        /// The table's level.
        level: usize,
        /// The table's channel.
        channel: usize,
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
    /// The compressor failed.
    #[error("zstd")]
    Zstd {
        /// Its own words.
        #[source]
        source: std::io::Error,
    },
}

/// Whose fault an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
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
    pub fn kind(&self) -> Kind {
        match self {
            Self::PacketLength { .. }
            | Self::PacketTruncated { .. }
            | Self::PacketTrailing { .. }
            | Self::Version { .. }
            | Self::Mode { .. }
            | Self::Level { .. }
            | Self::Geometry { .. }
            | Self::Layout { .. }
            | Self::TableId { .. }
            | Self::State { .. }
            | Self::FinalState { .. }
            | Self::Escape { .. }
            | Self::Frame { .. }
            | Self::Check { .. } => Kind::Peer,
            Self::Tables { .. }
            | Self::Table { .. }
            | Self::TablesTruncated { .. }
            | Self::Channels { .. } => Kind::Bundle,
            Self::Shape { .. } | Self::Symbols { .. } | Self::NoLevel { .. } | Self::NoGeometry { .. } => {
                Kind::Caller
            }
            Self::Zstd { .. } => Kind::Device,
        }
    }
}
