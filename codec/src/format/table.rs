//! Tables of frequencies (FORMAT.md, section 2.1).

use crate::{
    Error, TableName,
    format::cursor::{Cursor, Truncated},
};

/// The most entries, escapes counted, of all tables of which any may code the next value.
const MIXED_ENTRIES_MAX: usize = (1 << 16) - 1;

/// The distribution of one channel's symbols at one level: a frequency for each regular symbol and one for the escape,
/// which stands for every other symbol.
#[derive(Clone, Debug)]
pub struct Table {
    low: i16,
    frequencies: Box<[u16]>,
}

impl Table {
    /// Parses one table.
    ///
    /// # Errors
    /// [`Error::Table`] with `table` and the field, or [`Error::TablesTruncated`].
    pub(crate) fn parse(cursor: &mut Cursor<'_>, precision: u32, table: TableName) -> Result<Self, Error> {
        let wrong = |field, found, expected| Err(Error::Table { table, field, found, expected });
        let low = cursor.i16("low").map_err(Truncated::tables)?;
        let Some(count) = cursor.number("count").map_err(Truncated::tables)? else {
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
            let Some(frequency) = cursor.number("frequencies").map_err(Truncated::tables)? else {
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

    /// Parses tables of which any may code the next value, so that their number of entries is limited as well.
    ///
    /// # Errors
    /// Those of [`Table::parse`], and [`Error::Tables`] when there are too many entries.
    pub(crate) fn parse_mixed(
        cursor: &mut Cursor<'_>,
        precision: u32,
        names: impl Iterator<Item = TableName>,
    ) -> Result<Box<[Self]>, Error> {
        let tables =
            names.map(|name| Self::parse(cursor, precision, name)).collect::<Result<Box<[_]>, _>>()?;
        let found = tables.iter().map(|table| table.frequencies.len()).sum();
        if found > MIXED_ENTRIES_MAX {
            return Err(Error::Tables {
                field: "entries of shared tables",
                found,
                expected: "at most 65535",
            });
        }
        Ok(tables)
    }

    /// The smallest regular symbol.
    #[inline]
    #[must_use]
    pub fn low(&self) -> i16 {
        self.low
    }

    /// The frequencies of the regular symbols from [`low`](Self::low) up, then the escape's. They sum to 2^precision.
    #[inline]
    #[must_use]
    pub fn frequencies(&self) -> &[u16] {
        &self.frequencies
    }

    /// The index of `symbol` in [`frequencies`](Self::frequencies). The last one, the escape's, for a symbol that is not
    /// regular.
    #[inline]
    #[must_use]
    pub fn entry(&self, symbol: i16) -> usize {
        self.offset(symbol).min(self.regular())
    }

    /// Whether `symbol` is regular, so that it needs no escape.
    #[inline]
    #[must_use]
    pub fn holds(&self, symbol: i16) -> bool {
        self.offset(symbol) < self.regular()
    }

    /// The regular symbol in the middle of the distribution. A decoder fills channels with it that a cut packet lacks.
    #[must_use]
    pub fn median(&self) -> i16 {
        let half = self.frequencies.iter().map(|&frequency| u32::from(frequency)).sum::<u32>() / 2;
        let mut regular = with_starts(&self.frequencies[..self.regular()]);
        let at = regular.position(|(frequency, start)| start + u32::from(frequency) >= half);
        self.low.wrapping_add_unsigned(at.unwrap_or(self.regular() - 1) as u16)
    }

    /// The number of regular symbols, which is also the index of the escape.
    #[inline]
    pub(crate) fn regular(&self) -> usize {
        self.frequencies.len() - 1
    }

    /// The distance from the smallest regular symbol, modulo 2^16: symbols below it come out above all regular ones.
    #[inline]
    fn offset(&self, symbol: i16) -> usize {
        symbol.wrapping_sub(self.low).cast_unsigned().into()
    }
}

/// Each frequency with its start, which is the sum of the frequencies before it.
pub(crate) fn with_starts(frequencies: &[u16]) -> impl Iterator<Item = (u16, u32)> {
    frequencies.iter().scan(0, |end, &frequency| {
        let start = *end;
        *end += u32::from(frequency);
        Some((frequency, start))
    })
}
