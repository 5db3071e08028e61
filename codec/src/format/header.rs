//! The first four bytes of a packet (FORMAT.md, section 3).

use crate::{
    Error, GeometryId, LevelId, Mode, Shape,
    format::cursor::{Cursor, Truncated},
};

/// Bytes of a packet before its payload.
pub const HEADER_BYTES: usize = 4;

/// The version of the format that this crate writes and reads.
const VERSION: u8 = 2;

/// The number of lanes that each value of the layout's low three bits stands for.
pub(crate) const LANES: [u8; 6] = [1, 2, 4, 8, 16, 32];

/// The parsed header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How the payload is coded.
    pub mode: Mode,
    /// Index of the rate level, below 16.
    pub level: LevelId,
    /// Index of the geometry, below 16.
    pub geometry: GeometryId,
    /// The layout byte. [`lanes`](Self::lanes), [`groups`](Self::groups) and [`width`](Self::width) decode it.
    pub layout: u8,
    /// The first byte of the SHA-256 of the tables file.
    pub table_id: u8,
}

impl Header {
    /// Parses the header of `packet` without its payload, so that a server knows level and geometry before it decodes.
    /// [`decode`](crate::decode) checks whether the bundle has them and whether the packet was made with its tables.
    ///
    /// # Errors
    /// An [`Error`] of kind [`ErrorKind::Peer`](crate::ErrorKind::Peer) that names the field.
    pub fn parse(packet: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor::new(packet);
        let first = cursor.u8("version").map_err(Truncated::packet)?;
        if first >> 4 != VERSION {
            return Err(Error::Version { found: first >> 4 });
        }
        let found = first & 15;
        let mode = Mode::ALL.into_iter().find(|mode| *mode as u8 == found).ok_or(Error::Mode { found })?;
        let second = cursor.u8("level").map_err(Truncated::packet)?;
        let layout = cursor.u8("layout").map_err(Truncated::packet)?;
        let fits =
            if mode.is_coded() { usize::from(layout & 7) < LANES.len() } else { layout == 1 || layout == 2 };
        if !fits {
            return Err(Error::Layout { found: layout, mode });
        }
        let table_id = cursor.u8("table id").map_err(Truncated::packet)?;
        Ok(Self { mode, level: LevelId(second & 15), geometry: GeometryId(second >> 4), layout, table_id })
    }

    /// The number of lanes of a coded packet; 1 in modes raw and zstd.
    #[must_use]
    pub fn lanes(&self) -> u8 {
        if self.mode.is_coded() { LANES[usize::from(self.layout & 7)] } else { 1 }
    }

    /// The number of channel groups after which a coded packet may be cut; 1 in modes raw and zstd.
    #[must_use]
    pub fn groups(&self) -> usize {
        if self.mode.is_coded() { usize::from(self.layout >> 3) + 1 } else { 1 }
    }

    /// Bytes per symbol in modes raw and zstd; 0 in the coded modes.
    #[must_use]
    pub fn width(&self) -> u8 {
        if self.mode.is_coded() { 0 } else { self.layout }
    }

    /// The header as it stands in the packet.
    pub(crate) fn bytes(&self) -> [u8; HEADER_BYTES] {
        [VERSION << 4 | self.mode as u8, self.geometry.0 << 4 | self.level.0, self.layout, self.table_id]
    }
}

/// The largest size of a packet of a feature of `shape`, in bytes: 384 for header, directory and states, and per symbol
/// one word for itself, one for a tile's index and two for an escape.
#[must_use]
pub fn packet_max(shape: Shape) -> usize {
    384 + 8 * shape.symbols()
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
}
