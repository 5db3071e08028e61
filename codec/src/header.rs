//! The first four bytes of a packet (FORMAT.md, section 3), and the directory after them.

use std::fmt;

use crate::{
    Error, GROUPS_MAX, GeometryId, LEVELS_MAX, LevelId, Shape,
    cursor::{Cursor, Truncated},
};

/// Bytes of a packet before its payload.
pub const HEADER_BYTES: usize = 4;

/// The version of the format that this crate writes and reads.
const VERSION: u8 = 2;

/// How many geometries a bundle may have.
pub(crate) const GEOMETRIES_MAX: usize = 16;

/// How many lanes each number of the layout stands for.
pub(crate) const LANES: [u8; 6] = [1, 2, 4, 8, 16, 32];

/// How the symbols of a packet are coded (FORMAT.md, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Mode {
    /// One or two bytes per symbol.
    Raw = 0,
    /// Range ANS with one table per level and channel.
    Static = 1,
    /// A Zstandard frame over the bytes of [`Mode::Raw`].
    Zstd = 2,
    /// Range ANS with a table per tile, whose index is sent.
    Indexed = 3,
    /// Range ANS with tables chosen by what is already decoded.
    Context = 4,
    /// As [`Mode::Context`], each symbol expected to equal the one above it.
    Columns = 5,
    /// As [`Mode::Columns`] with rows and columns exchanged: each symbol is expected to equal the one to its left.
    Rows = 6,
}

impl Mode {
    /// Every mode, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Raw, Self::Static, Self::Zstd, Self::Indexed, Self::Context, Self::Columns, Self::Rows];

    /// Whether range ANS codes it, in lanes and groups.
    #[must_use]
    pub fn is_coded(self) -> bool {
        !matches!(self, Self::Raw | Self::Zstd)
    }

    /// Whether its tables are chosen by what is already decoded.
    pub(crate) fn has_contexts(self) -> bool {
        matches!(self, Self::Context | Self::Columns | Self::Rows)
    }

    /// The shape in which a feature of `shape` is coded.
    pub(crate) fn coded_shape(self, shape: Shape) -> Shape {
        if self == Self::Rows { shape.transposed() } else { shape }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Static => "static",
            Self::Zstd => "zstd",
            Self::Indexed => "indexed",
            Self::Context => "context",
            Self::Columns => "columns",
            Self::Rows => "rows",
        })
    }
}

/// What a packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How the payload is coded.
    pub mode: Mode,
    /// Index of the rate level, below 16.
    pub level: LevelId,
    /// Index of the geometry, below 16.
    pub geometry: GeometryId,
    /// What [`lanes`](Self::lanes), [`groups`](Self::groups) and [`width`](Self::width) tell.
    pub layout: u8,
    /// The first byte of the SHA-256 of the tables file.
    pub table_id: u8,
}

impl Header {
    /// Reads the header of `packet` without its payload, so that a server can tell level and geometry before it
    /// decodes. Whether the bundle has them, and whether the tables are the right ones, is for
    /// [`decode`](crate::decode) to say.
    ///
    /// # Errors
    /// An [`Error`] of kind [`ErrorKind::Peer`](crate::ErrorKind::Peer) that names the field.
    pub fn parse(packet: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(packet);
        let first = cursor.u8("version")?;
        if first >> 4 != VERSION {
            return Err(Error::Version { found: first >> 4 });
        }
        let found = first & 15;
        let mode = Mode::ALL.into_iter().find(|mode| *mode as u8 == found).ok_or(Error::Mode { found })?;
        let second = cursor.u8("level")?;
        let layout = cursor.u8("layout")?;
        let fits =
            if mode.is_coded() { usize::from(layout & 7) < LANES.len() } else { layout == 1 || layout == 2 };
        if !fits {
            return Err(Error::Layout { found: layout, mode });
        }
        let table_id = cursor.u8("table id")?;
        Ok(Self { mode, level: LevelId(second & 15), geometry: GeometryId(second >> 4), layout, table_id })
    }

    /// The lanes of a coded mode, 1 of the others.
    #[must_use]
    pub fn lanes(&self) -> u8 {
        if self.mode.is_coded() { LANES[usize::from(self.layout & 7)] } else { 1 }
    }

    /// The groups into which a coded packet was cut, 1 of the other modes.
    #[must_use]
    pub fn groups(&self) -> usize {
        if self.mode.is_coded() { usize::from(self.layout >> 3) + 1 } else { 1 }
    }

    /// Bytes per symbol in the modes that hold symbols as they are, 0 in the others.
    #[must_use]
    pub fn width(&self) -> u8 {
        if self.mode.is_coded() { 0 } else { self.layout }
    }

    pub(crate) fn bytes(&self) -> [u8; HEADER_BYTES] {
        [VERSION << 4 | self.mode as u8, self.geometry.0 << 4 | self.level.0, self.layout, self.table_id]
    }
}

const _: () = assert!(LEVELS_MAX <= 16 && GEOMETRIES_MAX <= 16 && GROUPS_MAX <= 32);

/// What the directory says of one group: the words up to its end, and the check.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupEnd {
    pub(crate) words: u64,
    pub(crate) check: u16,
}

/// The directory of a packet of so many groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory {
    group_ends: [GroupEnd; GROUPS_MAX],
    groups: usize,
}

impl Directory {
    pub(crate) fn parse(cursor: &mut Cursor<'_>, groups: usize) -> Result<Self, Error> {
        let mut group_ends = [GroupEnd::default(); GROUPS_MAX];
        let mut sum = 0;
        for group_end in &mut group_ends[..groups - 1] {
            sum += cursor.number("directory")?.ok_or(Error::Number { field: "directory" })? as u64;
            *group_end = GroupEnd { words: sum, check: cursor.u16("directory")? };
        }
        Ok(Self { group_ends, groups })
    }

    /// The group_ends between groups.
    pub(crate) fn group_ends(&self) -> &[GroupEnd] {
        &self.group_ends[..self.groups - 1]
    }

    /// How many groups a packet of so many words holds.
    pub(crate) fn groups_decoded(&self, words: usize) -> Result<usize, Error> {
        let words = words as u64;
        match self.group_ends().iter().rposition(|group_end| group_end.words <= words) {
            Some(last) if self.group_ends[last].words == words => Ok(last + 1),
            Some(last) if last + 2 < self.groups => Err(Error::PacketTruncated { field: "words" }),
            None if self.groups > 1 => Err(Error::PacketTruncated { field: "words" }),
            _ => Ok(self.groups),
        }
    }
}

/// Where a packet may be cut: the lengths of the prefixes of `packet` that can be decoded, shortest first. The last one
/// is that of the packet itself.
///
/// # Errors
/// An [`Error`] of kind [`ErrorKind::Peer`](crate::ErrorKind::Peer) that names the field.
pub fn prefixes(packet: &[u8]) -> Result<impl Iterator<Item = usize>, Error> {
    let header = Header::parse(packet)?;
    let mut cursor = Cursor::new(packet);
    cursor.take(HEADER_BYTES, "header")?;
    let directory = Directory::parse(&mut cursor, header.groups())?;
    if header.mode.is_coded() {
        crate::states::skip(&mut cursor, header.lanes())?;
    }
    let begin = packet.len() - cursor.rest().len();
    let len = packet.len();
    let group_ends = directory.group_ends;
    let inner = (0..header.groups() - 1).map(move |group| begin as u64 + 2 * group_ends[group].words);
    Ok(inner.filter(move |end| *end < len as u64).map(|end| end as usize).chain([len]))
}

/// The largest packet of a feature of `shape`, in bytes: 384 before the words, and for each symbol a word of its own, one
/// for its tile, and two for its escape.
#[must_use]
pub fn packet_max(shape: Shape) -> usize {
    384 + 8 * shape.symbols()
}

impl From<Truncated> for Error {
    fn from(Truncated(field): Truncated) -> Self {
        Self::PacketTruncated { field }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        for mode in Mode::ALL {
            let layout = if mode.is_coded() { 31 << 3 | 4 } else { 2 };
            let header = Header { mode, level: LevelId(3), geometry: GeometryId(15), layout, table_id: 0xab };
            assert_eq!(Header::parse(&header.bytes()).unwrap(), header);
            for len in 0..HEADER_BYTES {
                let error = Header::parse(&header.bytes()[..len]).unwrap_err();
                assert!(matches!(error, Error::PacketTruncated { .. }), "{len}");
            }
        }
    }

    #[test]
    fn values_outside_the_format_are_named() {
        for (bytes, name) in [
            ([0x11, 0, 0, 0], "version: 1"),
            ([0x27, 0, 0, 0], "mode"),
            ([0x21, 0, 6, 0], "layout"),
            ([0x20, 0, 0, 0], "layout"),
            ([0x22, 0, 3, 0], "layout"),
        ] {
            assert!(Header::parse(&bytes).unwrap_err().to_string().contains(name), "{name}");
        }
    }

    #[test]
    fn only_whole_groups_are_decoded() {
        let mut bytes = Vec::new();
        for words in [3_usize, 0, 200] {
            crate::cursor::push_number(words, &mut bytes);
            bytes.extend([0, 0]);
        }
        let directory = Directory::parse(&mut Cursor::new(&bytes), 4).unwrap();
        for (words, groups) in
            [(3, Some(2)), (203, Some(3)), (204, Some(4)), (2, None), (202, None), (0, None)]
        {
            assert_eq!(directory.groups_decoded(words).ok(), groups, "{words}");
        }
    }
}
