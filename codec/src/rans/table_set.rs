//! Sets of tables with what encoder and decoder derive from them.

use std::ops::RangeInclusive;

use crate::{
    format::table::{Table, with_starts},
    rans::{
        entry::{EncodeEntry, cost},
        lookup::{MixedTables, RunTable},
    },
};

/// The cost of the 16 bits of an escaped value, in 1/256 bit.
const ESCAPE_COST: u16 = 16 * 256;

/// The entries of several tables, one table after the other.
#[derive(Clone, Debug)]
pub(crate) struct TableSet {
    /// Per entry, how an encoder codes it.
    pub(crate) entries: Box<[EncodeEntry]>,
    /// Per entry, its cost in 1/256 bit, including the escaped value.
    pub(crate) costs: Box<[u16]>,
    /// Per entry, whether it is an escape.
    pub(crate) escapes: Box<[bool]>,
    /// Per table, where its entries are.
    pub(crate) spans: Box<[Span]>,
}

/// The entries of a table in its set. The alignment lets a vector load it as one number.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Span {
    /// Index of the table's first entry.
    first: u32,
    /// The smallest regular value.
    low: i16,
    /// The number of regular values, which is the escape's index in the table.
    pub(crate) escape: u16,
}

impl Span {
    /// The value that stands for an escape until its bytes are decoded: the one after the last regular value.
    pub(crate) fn escape_value(self) -> i16 {
        self.low.wrapping_add_unsigned(self.escape)
    }

    /// The index of `value` in a set of at most 65536 entries.
    #[inline(always)]
    pub(crate) fn entry(self, value: i16) -> u16 {
        (self.first as u16).wrapping_add(self.offset(value))
    }

    /// The index of `value` in the table.
    #[inline(always)]
    pub(crate) fn offset(self, value: i16) -> u16 {
        value.wrapping_sub(self.low).cast_unsigned().min(self.escape)
    }

    /// The span as a number: from the lowest bit, `first` (u32), `low` (i16) and `escape` (u16).
    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "used by vector code alone"))]
    pub(crate) fn bits(self) -> u64 {
        u64::from(self.first) | u64::from(self.low.cast_unsigned()) << 32 | u64::from(self.escape) << 48
    }

    /// The smallest regular value, and the first value above all regular ones.
    pub(crate) fn range(self) -> [i32; 2] {
        [i32::from(self.low), i32::from(self.low) + i32::from(self.escape)]
    }
}

impl TableSet {
    fn new(tables: &[Table], precision: u32) -> Self {
        let entries = tables.iter().flat_map(|table| with_starts(table.frequencies()));
        let entries = entries.map(|(frequency, start)| EncodeEntry::new(frequency, start, precision));
        let costs = tables.iter().flat_map(|table| {
            let escape = table.regular();
            let entries = table.frequencies().iter().enumerate();
            entries.map(move |(at, &f)| cost(f, precision) + if at == escape { ESCAPE_COST } else { 0 })
        });
        let escapes = tables.iter().flat_map(|table| (0..=table.regular()).map(|at| at == table.regular()));
        let spans = tables.iter().scan(0, |end, table| {
            let first = *end;
            *end += table.frequencies().len() as u32;
            Some(Span { first, low: table.low(), escape: table.regular() as u16 })
        });
        Self {
            entries: entries.collect(),
            costs: costs.collect(),
            escapes: escapes.collect(),
            spans: spans.collect(),
        }
    }

    /// The encoder's entries of one table.
    pub(crate) fn entries_of(&self, table: usize) -> &[EncodeEntry] {
        &self.entries[self.range(table)]
    }

    /// The costs of the entries of one table, in 1/256 bit.
    pub(crate) fn costs_of(&self, table: usize) -> &[u16] {
        &self.costs[self.range(table)]
    }

    /// For each entry of one table, whether it is an escape.
    pub(crate) fn escapes_of(&self, table: usize) -> &[bool] {
        &self.escapes[self.range(table)]
    }

    fn range(&self, table: usize) -> RangeInclusive<usize> {
        let first = self.spans[table].first as usize;
        first..=first + usize::from(self.spans[table].escape)
    }
}

/// Tables each of which codes whole runs.
#[derive(Clone, Debug)]
pub(crate) struct RunTableSet {
    pub(crate) set: TableSet,
    /// Per table, its lookup for the decoder.
    pub(crate) lookups: Box<[RunTable]>,
}

impl RunTableSet {
    pub(crate) fn new(tables: &[Table], precision: u32) -> Self {
        let lookups = tables.iter().map(|table| RunTable::new(table, precision)).collect();
        Self { set: TableSet::new(tables, precision), lookups }
    }
}

/// Tables of which any may code the next value.
///
/// A table of no value is added after those of the file. It has one entry, which leaves every state as it is, so that
/// lanes without a value can take part in a vector.
#[derive(Clone, Debug)]
pub(crate) struct MixedTableSet {
    pub(crate) set: TableSet,
    pub(crate) lookup: MixedTables,
    /// Per table, where its entries are, as in `set`. There is an element for every byte, so that none is out of bounds.
    pub(crate) spans: Box<[Span; 256]>,
    /// The index of the table of no value, which is also the number of the other tables.
    pub(crate) no_value: u8,
}

impl MixedTableSet {
    /// A set of 1 to 255 tables with at most 65535 entries in all.
    pub(crate) fn new(tables: &[Table], precision: u32) -> Self {
        let lookup = MixedTables::new(tables, precision);
        let mut set = TableSet::new(tables, precision);
        let first = set.entries.len() as u32;
        set.entries = set.entries.into_iter().chain([EncodeEntry::NO_OP]).collect();
        set.costs = set.costs.into_iter().chain([0]).collect();
        set.escapes = set.escapes.into_iter().chain([false]).collect();
        set.spans = set.spans.into_iter().chain([Span { first, low: 0, escape: 1 }]).collect();
        let mut spans = Box::new([set.spans[0]; 256]);
        spans[..set.spans.len()].copy_from_slice(&set.spans);
        Self { set, lookup, spans, no_value: tables.len() as u8 }
    }
}
