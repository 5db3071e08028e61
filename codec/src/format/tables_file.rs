//! The tables file of a bundle, parsed (FORMAT.md, section 2).

use sha2::{Digest, Sha256};

use crate::{
    CHANNELS_MAX, Error, GROUPS_MAX, LEVELS_MAX, TABLES_MAX, TableName,
    format::{
        context_section::ContextSection,
        cursor::{Cursor, Truncated},
        indexed_section::IndexedSection,
        table::Table,
    },
};

const MAGIC: [u8; 4] = *b"NRWT";
const VERSION: u8 = 2;

/// The bits of the `sections` byte.
const ORDER: u8 = 1;
const INDEXED: u8 = 2;
const CONTEXT: u8 = 4;

/// The fields of the file. Nothing that an encoder or decoder derives from them is here.
#[derive(Clone, Debug)]
pub(crate) struct TablesFile {
    /// The SHA-256 of the file.
    pub(crate) digest: [u8; 32],
    /// 12 or 14: frequencies sum to 2^precision.
    pub(crate) precision: u32,
    /// The channels in the order of coding.
    pub(crate) order: Box<[u16]>,
    /// For each group, where it ends in `order`.
    pub(crate) group_ends: Box<[u16]>,
    /// The static tables of each level, one per channel.
    pub(crate) levels: Box<[Box<[Table]>]>,
    pub(crate) indexed: Option<IndexedSection>,
    pub(crate) context: Option<ContextSection>,
}

impl TablesFile {
    /// Parses `tables.bin`.
    ///
    /// # Errors
    /// An [`Error`] of kind [`ErrorKind::Bundle`](crate::ErrorKind::Bundle) that names the field, and the table if the field
    /// is part of one.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > TABLES_MAX {
            return wrong("length", bytes.len(), "at most 4194304 bytes");
        }
        let mut cursor = Cursor::new(bytes);
        let magic: [u8; 4] = cursor.array("magic").map_err(Truncated::tables)?;
        if magic != MAGIC {
            return wrong("magic", u32::from_be_bytes(magic) as usize, "NRWT");
        }
        let version = cursor.u8("version").map_err(Truncated::tables)?;
        if version != VERSION {
            return wrong("version", version.into(), "2: export the bundle again");
        }
        let precision = cursor.u8("precision").map_err(Truncated::tables)?;
        if precision != 12 && precision != 14 {
            return wrong("precision", precision.into(), "12 or 14");
        }
        let precision = u32::from(precision);
        let channels = usize::from(cursor.u16("channels").map_err(Truncated::tables)?);
        if !(1..=CHANNELS_MAX).contains(&channels) {
            return wrong("channels", channels, "1 to 1024");
        }
        let levels = cursor.u8("levels").map_err(Truncated::tables)?;
        if !(1..=LEVELS_MAX).contains(&levels.into()) {
            return wrong("levels", levels.into(), "1 to 16");
        }
        let groups = usize::from(cursor.u8("groups").map_err(Truncated::tables)?);
        if !(1..=GROUPS_MAX.min(channels)).contains(&groups) {
            return wrong("groups", groups, "1 to 32, and at most one per channel");
        }
        let sections = cursor.u8("sections").map_err(Truncated::tables)?;
        if sections > ORDER | INDEXED | CONTEXT {
            return wrong("sections", sections.into(), "0 to 7");
        }
        let reserved = cursor.u8("reserved").map_err(Truncated::tables)?;
        if reserved != 0 {
            return wrong("reserved", reserved.into(), "0");
        }
        let (order, group_ends) = if sections & ORDER != 0 {
            parse_order(&mut cursor, channels, groups)?
        } else if groups == 1 {
            ((0..channels as u16).collect(), Box::from([channels as u16]))
        } else {
            return wrong("groups", groups, "1 without an order");
        };
        let level = |level| {
            let names = (0..channels).map(|channel| TableName::Static { level, channel });
            names.map(|name| Table::parse(&mut cursor, precision, name)).collect::<Result<_, _>>()
        };
        let levels: Box<[_]> = (0..levels).map(level).collect::<Result<_, _>>()?;
        let indexed = (sections & INDEXED != 0)
            .then(|| IndexedSection::parse(&mut cursor, precision, channels, levels.len()))
            .transpose()?;
        let context = (sections & CONTEXT != 0)
            .then(|| ContextSection::parse(&mut cursor, precision, &order, levels.len()))
            .transpose()?;
        if !cursor.rest().is_empty() {
            return wrong("bytes after the last section", cursor.rest().len(), "0");
        }
        let digest = Sha256::digest(bytes).into();
        Ok(Self { digest, precision, order, group_ends, levels, indexed, context })
    }
}

/// The channels in the order of coding, and where each group ends among them.
type Order = (Box<[u16]>, Box<[u16]>);

/// Parses the order of coding (section 2.2).
fn parse_order(cursor: &mut Cursor<'_>, channels: usize, groups: usize) -> Result<Order, Error> {
    let sizes = cursor.u16s(groups, "sizes").map_err(Truncated::tables)?;
    let sum: usize = sizes.iter().map(|&size| usize::from(size)).sum();
    if sum != channels || sizes.contains(&0) {
        return wrong("sizes", sum, "groups of 1 and more that sum to the channels");
    }
    let order = cursor.u16s(channels, "order").map_err(Truncated::tables)?;
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

fn wrong<T>(field: &'static str, found: usize, expected: &'static str) -> Result<T, Error> {
    Err(Error::Tables { field, found, expected })
}
