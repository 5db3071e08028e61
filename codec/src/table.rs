//! Tables of frequencies, and families of tables that are chosen from (FORMAT.md, section 2.1).

use crate::{
    Error,
    cursor::{Cursor, Truncated},
    error::TableName,
    model::{EncodeEntry, MixedTables, RunTable, cost, starts},
};

/// The most entries of a family of which any table may be next: one name is left for [`EncodeEntry::NO_OP`].
const ENTRIES_MAX: usize = (1 << 16) - 1;

/// The distribution of one channel's symbols at one level.
#[derive(Clone, Debug)]
pub struct Table {
    low: i16,
    frequencies: Box<[u16]>,
}

impl Table {
    fn parse(cursor: &mut Cursor<'_>, precision: u32, place: TableName) -> Result<Self, Error> {
        let wrong = |field, found, expected| Err(Error::Table { place, field, found, expected });
        let low = cursor.i16("low").map_err(tables_truncated)?;
        let Some(count) = cursor.number("count").map_err(tables_truncated)? else {
            return wrong("count", 0, "a number in its shortest form");
        };
        if !(1..1 << precision).contains(&count) {
            return wrong("count", count, "1 to 2^precision less 1");
        }
        if count > usize::from(i16::MAX.abs_diff(low)) + 1 {
            return wrong("count", count, "no regular value above 32767");
        }
        if cursor.rest().len() <= count {
            return Err(Error::TablesTruncated { field: "frequencies" });
        }
        let mut frequencies = Vec::with_capacity(count + 1);
        let mut left = 1 << precision;
        for _ in 0..=count {
            let Some(frequency) = cursor.number("frequencies").map_err(tables_truncated)? else {
                return wrong("frequency", 0, "a number in its shortest form");
            };
            if frequency == 0 {
                return wrong("frequency", 0, "at least 1");
            }
            if frequency > left {
                return wrong("frequency", frequency, "a sum of 2^precision");
            }
            left -= frequency;
            frequencies.push(frequency as u16);
        }
        if left != 0 {
            return wrong("sum of frequencies", (1 << precision) - left, "2^precision");
        }
        Ok(Self { low, frequencies: frequencies.into() })
    }

    /// The smallest regular symbol.
    #[inline]
    #[must_use]
    pub fn low(&self) -> i16 {
        self.low
    }

    /// The frequencies of the regular symbols from [`low`](Self::low) on, then the escape's; they sum to 2^precision.
    #[inline]
    #[must_use]
    pub fn frequencies(&self) -> &[u16] {
        &self.frequencies
    }

    /// The entry of `symbol` in [`frequencies`](Self::frequencies); the last, the escape's, for a symbol that is not
    /// regular.
    #[inline]
    #[must_use]
    pub fn entry(&self, symbol: i16) -> usize {
        self.offset(symbol).min(self.regular())
    }

    /// Whether the table holds `symbol`, so that it needs no escape.
    #[inline]
    #[must_use]
    pub fn holds(&self, symbol: i16) -> bool {
        self.offset(symbol) < self.regular()
    }

    /// The regular symbol in the middle of the distribution, which stands in for symbols that are missing.
    #[must_use]
    pub fn median(&self) -> i16 {
        let half = self.frequencies.iter().map(|&frequency| u32::from(frequency)).sum::<u32>() / 2;
        let mut regular = starts(&self.frequencies[..self.regular()]);
        let at = regular.position(|(frequency, start)| start + u32::from(frequency) >= half);
        self.low.wrapping_add_unsigned(at.unwrap_or(self.regular() - 1) as u16)
    }

    /// How far `symbol` is above the smallest regular one; those below come out above all regular ones.
    #[inline]
    fn offset(&self, symbol: i16) -> usize {
        symbol.wrapping_sub(self.low).cast_unsigned().into()
    }

    /// Number of regular symbols, which is the escape's entry.
    #[inline]
    fn regular(&self) -> usize {
        self.frequencies.len() - 1
    }
}

/// Tables, with what encoder and decoder derive from them.
#[derive(Clone, Debug)]
pub(crate) struct TableSet {
    pub(crate) tables: Box<[Table]>,
    /// As a decoder sees tables that whole runs have.
    pub(crate) models: Box<[RunTable]>,
    /// The entries of all tables, one table after the other; of shared ones, then [`EncodeEntry::NO_OP`].
    pub(crate) encode_entries: Box<[EncodeEntry]>,
    /// What those entries cost in 1/256 bit, with what an escape stands for.
    pub(crate) costs: Box<[u16]>,
    /// Which of them are escapes.
    pub(crate) escapes: Box<[bool]>,
    pub(crate) spans: Box<[Span]>,
}

/// Where a table's entries are in its set.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Span {
    pub(crate) first: u32,
    pub(crate) low: i16,
    /// Number of regular values, which is the escape's entry.
    pub(crate) escape: u16,
}

impl Span {
    /// The entry of `value` in a set whose entries have 16-bit names.
    #[inline(always)]
    pub(crate) fn entry(self, value: i16) -> u16 {
        (self.first as u16).wrapping_add(self.offset(value))
    }

    /// The entry of `value` in the table.
    #[inline(always)]
    pub(crate) fn offset(self, value: i16) -> u16 {
        value.wrapping_sub(self.low).cast_unsigned().min(self.escape)
    }

    /// In one number: from the lowest bit, `first` (u32), `low`, `escape`.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "read by vectors alone"))]
    pub(crate) fn bits(self) -> u64 {
        u64::from(self.first) | u64::from(self.low.cast_unsigned()) << 32 | u64::from(self.escape) << 48
    }
}

impl TableSet {
    /// Reads one table for each place, which whole runs have.
    pub(crate) fn parse(
        cursor: &mut Cursor<'_>,
        precision: u32,
        places: impl Iterator<Item = TableName>,
    ) -> Result<Self, Error> {
        let mut set = Self::parse_tables(cursor, precision, places)?;
        set.models =
            set.tables.iter().map(|table| RunTable::new(table.low, &table.frequencies, precision)).collect();
        Ok(set)
    }

    fn parse_tables(
        cursor: &mut Cursor<'_>,
        precision: u32,
        places: impl Iterator<Item = TableName>,
    ) -> Result<Self, Error> {
        let tables =
            places.map(|place| Table::parse(cursor, precision, place)).collect::<Result<Box<[_]>, _>>()?;
        let encode_entries = tables.iter().flat_map(|table| starts(&table.frequencies));
        let encode_entries =
            encode_entries.map(|(frequency, start)| EncodeEntry::new(frequency, start, precision));
        let costs = tables.iter().flat_map(|table| {
            let escape = table.regular();
            let entries = table.frequencies.iter().enumerate();
            entries.map(move |(at, &f)| cost(f, precision) + if at == escape { ESCAPE_COST } else { 0 })
        });
        let escapes = tables.iter().flat_map(|table| (0..=table.regular()).map(|at| at == table.regular()));
        let spans = tables.iter().scan(0, |end, table| {
            let first = *end;
            *end += table.frequencies.len() as u32;
            Some(Span { first, low: table.low, escape: table.regular() as u16 })
        });
        Ok(Self {
            models: Box::default(),
            encode_entries: encode_entries.collect(),
            costs: costs.collect(),
            escapes: escapes.collect(),
            spans: spans.collect(),
            tables,
        })
    }

    /// As [`parse`](Self::parse), for tables of which any may be next: their entries have 16-bit names. The last table,
    /// which is not in the file, has one entry and stands for no value.
    pub(crate) fn parse_shared(
        cursor: &mut Cursor<'_>,
        precision: u32,
        places: impl Iterator<Item = TableName>,
    ) -> Result<(Self, MixedTables), Error> {
        let mut set = Self::parse_tables(cursor, precision, places)?;
        if set.encode_entries.len() > ENTRIES_MAX {
            let found = set.encode_entries.len();
            return Err(Error::Tables {
                field: "entries of shared tables",
                found,
                expected: "at most 65535",
            });
        }
        let tables = set.tables.iter().map(|table| (table.low, &table.frequencies[..]));
        let shared = MixedTables::new(tables, precision);
        let first = set.encode_entries.len() as u32;
        set.encode_entries = set.encode_entries.into_iter().chain([EncodeEntry::NO_OP]).collect();
        set.costs = set.costs.into_iter().chain([0]).collect();
        set.escapes = set.escapes.into_iter().chain([false]).collect();
        set.spans = set.spans.into_iter().chain([Span { first, low: 0, escape: 1 }]).collect();
        Ok((set, shared))
    }

    /// The entries of one of the tables.
    pub(crate) fn encode_entries_of(&self, table: usize) -> &[EncodeEntry] {
        &self.encode_entries[self.range(table)]
    }

    /// What the entries of one of the tables cost.
    pub(crate) fn costs_of(&self, table: usize) -> &[u16] {
        &self.costs[self.range(table)]
    }

    /// Which entries of one of the tables are escapes.
    pub(crate) fn escapes_of(&self, table: usize) -> &[bool] {
        &self.escapes[self.range(table)]
    }

    fn range(&self, table: usize) -> std::ops::RangeInclusive<usize> {
        let first = self.spans[table].first as usize;
        first..=first + usize::from(self.spans[table].escape)
    }
}

/// What the sixteen bits of an escaped value cost.
const ESCAPE_COST: u16 = 16 * 256;

pub(crate) fn tables_truncated(Truncated(field): Truncated) -> Error {
    Error::TablesTruncated { field }
}
