//! The tables file of a bundle (FORMAT.md, section 2).

use sha2::{Digest, Sha256};

use crate::{
    Error, LevelId, Mode, Table,
    context::ContextModel,
    cursor::Cursor,
    error::TableName,
    indexed::Indexed,
    table::{TableSet, tables_truncated},
};

/// The largest number of channels.
pub const CHANNELS_MAX: usize = 1024;

/// The largest number of rate levels.
pub const LEVELS_MAX: usize = 16;

/// The largest number of groups of channels.
pub const GROUPS_MAX: usize = 32;

/// The largest tables file, in bytes.
pub const TABLES_MAX: usize = 1 << 22;

const MAGIC: [u8; 4] = *b"NRWT";
const VERSION: u8 = 2;

/// The bits of the byte that tells which sections the file holds.
const ORDER: u8 = 1;
const INDEXED: u8 = 2;
const CONTEXT: u8 = 4;

/// The tables of every level and channel, with what encoder and decoder derive from them.
#[derive(Clone, Debug)]
pub struct Tables {
    digest: [u8; 32],
    precision: u32,
    channels: usize,
    /// The channels in the order of coding, and where in it each group ends.
    order: Box<[u16]>,
    ends: Box<[u16]>,
    levels: Box<[TableSet]>,
    pub(crate) indexed: Option<Indexed>,
    pub(crate) context: Option<ContextModel>,
}

impl Tables {
    /// Reads `tables.bin`. What encoder and decoder need is computed here: per table about four kilobytes and 30
    /// bytes per symbol.
    ///
    /// # Errors
    /// An [`Error`] of kind [`ErrorKind::Bundle`](crate::ErrorKind::Bundle) that names the field, and the table where there is
    /// one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |field, found, expected| Err(Error::Tables { field, found, expected });
        if bytes.len() > TABLES_MAX {
            return wrong("length", bytes.len(), "at most 4194304 bytes");
        }
        let mut cursor = Cursor::new(bytes);
        let magic: [u8; 4] = cursor.array("magic").map_err(tables_truncated)?;
        if magic != MAGIC {
            return wrong("magic", u32::from_be_bytes(magic) as usize, "NRWT");
        }
        let version = cursor.u8("version").map_err(tables_truncated)?;
        if version != VERSION {
            return wrong("version", version.into(), "2: export the bundle again");
        }
        let precision = cursor.u8("precision").map_err(tables_truncated)?;
        if precision != 12 && precision != 14 {
            return wrong("precision", precision.into(), "12 or 14");
        }
        let precision = u32::from(precision);
        let channels = usize::from(cursor.u16("channels").map_err(tables_truncated)?);
        if !(1..=CHANNELS_MAX).contains(&channels) {
            return wrong("channels", channels, "1 to 1024");
        }
        let levels = cursor.u8("levels").map_err(tables_truncated)?;
        if !(1..=LEVELS_MAX).contains(&levels.into()) {
            return wrong("levels", levels.into(), "1 to 16");
        }
        let groups = usize::from(cursor.u8("groups").map_err(tables_truncated)?);
        if !(1..=GROUPS_MAX.min(channels)).contains(&groups) {
            return wrong("groups", groups, "1 to 32, and at most one per channel");
        }
        let sections = cursor.u8("sections").map_err(tables_truncated)?;
        if sections > ORDER | INDEXED | CONTEXT {
            return wrong("sections", sections.into(), "0 to 7");
        }
        let reserved = cursor.u8("reserved").map_err(tables_truncated)?;
        if reserved != 0 {
            return wrong("reserved", reserved.into(), "0");
        }
        let (order, ends) = if sections & ORDER != 0 {
            parse_order(&mut cursor, channels, groups)?
        } else if groups == 1 {
            ((0..channels as u16).collect(), Box::from([channels as u16]))
        } else {
            return wrong("groups", groups, "1 without an order");
        };
        let level = |level| {
            let places = (0..channels).map(|channel| TableName::Static { level, channel });
            TableSet::parse(&mut cursor, precision, places)
        };
        let levels: Box<[_]> = (0..levels).map(level).collect::<Result<_, _>>()?;
        let indexed = (sections & INDEXED != 0)
            .then(|| Indexed::parse(&mut cursor, precision, channels, levels.len()))
            .transpose()?;
        let context = (sections & CONTEXT != 0)
            .then(|| ContextModel::parse(&mut cursor, precision, &order, levels.len()))
            .transpose()?;
        if !cursor.rest().is_empty() {
            return wrong("bytes after the last section", cursor.rest().len(), "0");
        }
        let digest = Sha256::digest(bytes).into();
        Ok(Self { digest, precision, channels, order, ends, levels, indexed, context })
    }

    /// The first four bytes of the SHA-256 of the file. Packets carry the first one, and the whole digest is part of
    /// their checksum.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.digest;
        [a, b, c, d]
    }

    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Frequencies of a table sum to two to the power of this: 12 or 14.
    #[must_use]
    pub fn precision(&self) -> u32 {
        self.precision
    }

    /// Number of channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Number of rate levels.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.levels.len()
    }

    /// The static tables of one level, one per channel.
    #[must_use]
    pub fn level(&self, level: LevelId) -> Option<&[Table]> {
        Some(&self.levels.get(level.index())?.tables)
    }

    /// The tables that code the symbols of one of the coded modes; `level` is one of these tables.
    pub(crate) fn table_set(&self, mode: Mode, level: LevelId) -> &TableSet {
        match (mode, &self.indexed, &self.context) {
            (Mode::Indexed, Some(indexed), _) => &indexed.set,
            (Mode::Context | Mode::Columns | Mode::Rows, _, Some(context)) => &context.set,
            _ => &self.levels[level.index()],
        }
    }

    /// What stands in for the symbols of a missing channel.
    pub(crate) fn median(&self, level: LevelId, channel: usize) -> i16 {
        self.levels[level.index()].tables[channel].median()
    }

    /// Number of groups of channels.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.ends.len()
    }

    /// The channels of each group, in the order in which they are coded.
    pub fn order(&self) -> impl DoubleEndedIterator<Item = &[u16]> + ExactSizeIterator {
        self.ends.iter().enumerate().map(|(group, &end)| {
            let begin = if group == 0 { 0 } else { self.ends[group - 1] };
            &self.order[usize::from(begin)..usize::from(end)]
        })
    }

    /// Whether packets of this mode can be written and read.
    #[must_use]
    pub fn supports(&self, mode: Mode) -> bool {
        match mode {
            Mode::Raw | Mode::Static | Mode::Zstd => true,
            Mode::Indexed => self.indexed.is_some(),
            Mode::Context | Mode::Columns | Mode::Rows => self.context.is_some(),
        }
    }
}

type Order = (Box<[u16]>, Box<[u16]>);

fn parse_order(cursor: &mut Cursor<'_>, channels: usize, groups: usize) -> Result<Order, Error> {
    let wrong = |field, found, expected| Err(Error::Tables { field, found, expected });
    let sizes = cursor.u16s(groups, "sizes").map_err(tables_truncated)?;
    let sum: usize = sizes.iter().map(|&size| usize::from(size)).sum();
    if sum != channels || sizes.contains(&0) {
        return wrong("sizes", sum, "groups of 1 and more that sum to the channels");
    }
    let order = cursor.u16s(channels, "order").map_err(tables_truncated)?;
    let mut seen = vec![false; channels];
    for &channel in &order {
        match seen.get_mut(usize::from(channel)) {
            Some(seen) if !*seen => *seen = true,
            _ => return wrong("order", channel.into(), "each channel once"),
        }
    }
    let ends = sizes.iter().scan(0, |end, size| {
        *end += size;
        Some(*end)
    });
    Ok((order, ends.collect()))
}
