//! The section of the tables file for mode indexed (FORMAT.md, section 2.3).

use crate::{
    Error, LevelId, TableName,
    format::{
        cursor::{Cursor, Truncated},
        table::Table,
    },
};

/// The parsed section.
#[derive(Clone, Debug)]
pub(crate) struct IndexedSection {
    /// Rows and columns of a tile; 0 when the whole channel is one tile.
    pub(crate) tile: usize,
    /// The tables that tiles choose from, 2 to 128.
    pub(crate) tables: Box<[Table]>,
    /// The table of the index differences, per level.
    pub(crate) deltas: Box<[Table]>,
    /// The predicted index of the first tile: level by level, in a level channel by channel.
    bases: Box<[u8]>,
    channels: usize,
}

impl IndexedSection {
    /// Parses the section of a file of `channels` channels and `levels` levels.
    ///
    /// # Errors
    /// An [`Error`] of kind [`ErrorKind::Bundle`](crate::ErrorKind::Bundle) that names the field.
    pub(crate) fn parse(
        cursor: &mut Cursor<'_>,
        precision: u32,
        channels: usize,
        levels: usize,
    ) -> Result<Self, Error> {
        let wrong = |field, found, expected| Err(Error::Tables { field, found, expected });
        let tile = usize::from(cursor.u8("tile").map_err(Truncated::tables)?);
        let count = cursor.u8("indexed tables").map_err(Truncated::tables)?;
        if !(2..=128).contains(&count) {
            return wrong("indexed tables", count.into(), "2 to 128");
        }
        let tables = Table::parse_mixed(cursor, precision, (0..count).map(TableName::Indexed))?;
        let mut bases = Vec::new();
        let mut deltas = Vec::new();
        for level in 0..levels {
            let of_level = cursor.take(channels, "bases").map_err(Truncated::tables)?;
            if let Some(&base) = of_level.iter().find(|base| **base >= count) {
                return wrong("base", base.into(), "an index of the tables");
            }
            bases.extend_from_slice(of_level);
            let table = Table::parse(cursor, precision, TableName::Deltas { level: level as u8 })?;
            if (table.low(), table.regular()) != (0, count.into()) {
                return wrong("deltas", table.regular(), "low 0, and as many values as tables");
            }
            deltas.push(table);
        }
        Ok(Self { tile, tables, deltas: deltas.into(), bases: bases.into(), channels })
    }

    /// The predicted index of the first tile of a channel.
    pub(crate) fn base(&self, level: LevelId, channel: usize) -> u8 {
        self.bases[level.index() * self.channels + channel]
    }
}
