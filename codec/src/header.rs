//! The first twelve bytes of a packet (FORMAT.md, section 3).

use std::fmt;

use crate::cursor::{Cursor, CutOff};
use crate::{Error, LEVELS_MAX, Shape};

/// Bytes of a packet before its payload.
pub const HEADER_BYTES: usize = 12;

/// The version of the format that this crate writes and reads.
const VERSION: u8 = 1;

/// How many geometries a bundle may have.
pub(crate) const GEOMETRIES_MAX: usize = 16;

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
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Static => "static",
            Self::Zstd => "zstd",
        })
    }
}

/// What a packet says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How the payload is coded.
    pub mode: Mode,
    /// Index of the rate level, below 16.
    pub level: u8,
    /// Index of the geometry, below 16.
    pub geometry: u8,
    /// [`Mode::Static`]: lanes, 1, 2, 4 or 8. Other modes: bytes per symbol, 1 or 2.
    pub layout: u8,
    /// The first four bytes of the SHA-256 of the tables file.
    pub table_id: [u8; 4],
    /// CRC-32 over the first eight bytes of the packet and the symbols as i16, little-endian.
    pub check: u32,
}

impl Header {
    /// Reads the header of `packet` without its payload, so that a server can tell level and geometry before it
    /// decodes. Whether the bundle has them, and whether the tables are the right ones, is for
    /// [`decode`](crate::decode) to say.
    ///
    /// # Errors
    /// An [`Error`] of kind [`Kind::Peer`](crate::Kind::Peer) that names the field.
    pub fn parse(packet: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(packet);
        let first = cursor.u8("version")?;
        if first >> 4 != VERSION {
            return Err(Error::Version { found: first >> 4 });
        }
        let mode = match first & 15 {
            0 => Mode::Raw,
            1 => Mode::Static,
            2 => Mode::Zstd,
            found => return Err(Error::Mode { found }),
        };
        let level = cursor.u8("level")?;
        if usize::from(level) >= LEVELS_MAX {
            return Err(Error::Level { found: level, levels: LEVELS_MAX });
        }
        let geometry = cursor.u8("geometry")?;
        if usize::from(geometry) >= GEOMETRIES_MAX {
            return Err(Error::Geometry { found: geometry, geometries: GEOMETRIES_MAX });
        }
        let layout = cursor.u8("layout")?;
        match (mode, layout) {
            (Mode::Static, 1 | 2 | 4 | 8) | (Mode::Raw | Mode::Zstd, 1 | 2) => {}
            _ => return Err(Error::Layout { found: layout, mode }),
        }
        let table_id = cursor.array("table id")?;
        let check = cursor.u32("check")?;
        Ok(Self { mode, level, geometry, layout, table_id, check })
    }

    /// The header's bytes, with the check of `symbols` in place of its own.
    pub(crate) fn bytes(&self, symbols: &[i16]) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.front());
        bytes[8..].copy_from_slice(&self.check_of(symbols).to_le_bytes());
        bytes
    }

    /// The check that belongs to this header and `symbols`.
    pub(crate) fn check_of(&self, symbols: &[i16]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.front());
        let mut bytes = [[0; 2]; 1024];
        for chunk in symbols.chunks(bytes.len()) {
            for (to, from) in bytes.iter_mut().zip(chunk) {
                *to = from.to_le_bytes();
            }
            hasher.update(bytes[..chunk.len()].as_flattened());
        }
        hasher.finalize()
    }

    fn front(&self) -> [u8; 8] {
        let [a, b, c, d] = self.table_id;
        [VERSION << 4 | self.mode as u8, self.level, self.geometry, self.layout, a, b, c, d]
    }
}

/// The largest packet of a feature of `shape`, in bytes: twelve for the header, four for each of eight lanes, and
/// per symbol a word and an escape.
#[must_use]
pub fn packet_max(shape: Shape) -> usize {
    HEADER_BYTES + 4 * 8 + 4 * shape.symbols()
}

impl From<CutOff> for Error {
    fn from(CutOff(field): CutOff) -> Self {
        Self::PacketTruncated { field }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let header =
            Header { mode: Mode::Static, level: 3, geometry: 1, layout: 4, table_id: *b"abcd", check: 0 };
        let bytes = header.bytes(&[1, -1]);
        let check = header.check_of(&[1, -1]);
        assert_eq!(Header::parse(&bytes).unwrap(), Header { check, ..header });
        for len in 0..HEADER_BYTES {
            assert!(matches!(Header::parse(&bytes[..len]), Err(Error::PacketTruncated { .. })), "{len}");
        }
    }

    #[test]
    fn values_outside_the_format_are_named() {
        let good = [0x11, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, value, name) in
            [(0, 0x21, "version"), (0, 0x13, "mode"), (1, 16, "level"), (2, 16, "geometry"), (3, 3, "layout")]
        {
            let mut bytes = good;
            bytes[at] = value;
            assert!(Header::parse(&bytes).unwrap_err().to_string().contains(name), "{name}");
        }
    }
}
