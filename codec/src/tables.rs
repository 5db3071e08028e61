//! The probability tables of a bundle (FORMAT.md, section 2).

use sha2::{Digest, Sha256};

use crate::Error;
use crate::cursor::{Cursor, CutOff};
use crate::model::{Narrow, SCALE, Wide};
use crate::rans::{self, Words};

/// The largest number of channels.
pub const CHANNELS_MAX: usize = 1024;

/// The largest number of rate levels.
pub const LEVELS_MAX: usize = 16;

/// The largest number of regular symbols in one table.
pub const REGULAR_MAX: usize = 4095;

/// The largest tables file, in bytes.
pub const TABLES_MAX: usize = 1 << 22;

const MAGIC: [u8; 4] = *b"NRWT";
const VERSION: u8 = 1;
const PRECISION: u8 = 12;

/// The tables of every level and channel, with what encoder and decoder derive from them.
#[derive(Clone, Debug)]
pub struct Tables {
    id: [u8; 4],
    channels: usize,
    /// Level by level, in a level channel by channel.
    tables: Vec<Table>,
}

impl Tables {
    /// Reads `tables.bin`. What encoder and decoder need is computed here: per table about 4 KiB and 16 bytes per
    /// symbol.
    ///
    /// # Errors
    /// An [`Error`] of kind [`Kind::Bundle`](crate::Kind::Bundle) that names the field, and the table where there is
    /// one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |field, found, expected| Err(Error::Tables { field, found, expected });
        if bytes.len() > TABLES_MAX {
            return wrong("length", bytes.len(), "at most 4194304 bytes");
        }
        let mut cursor = Cursor::new(bytes);
        let magic: [u8; 4] = cursor.array("magic").map_err(cut)?;
        if magic != MAGIC {
            return wrong("magic", u32::from_be_bytes(magic) as usize, "NRWT");
        }
        let version = cursor.u8("version").map_err(cut)?;
        if version != VERSION {
            return wrong("version", version.into(), "1");
        }
        let precision = cursor.u8("precision").map_err(cut)?;
        if precision != PRECISION {
            return wrong("precision", precision.into(), "12");
        }
        let channels = usize::from(cursor.u16("channels").map_err(cut)?);
        if !(1..=CHANNELS_MAX).contains(&channels) {
            return wrong("channels", channels, "1 to 1024");
        }
        let levels = usize::from(cursor.u8("levels").map_err(cut)?);
        if !(1..=LEVELS_MAX).contains(&levels) {
            return wrong("levels", levels, "1 to 16");
        }
        if let Some(found) = cursor.array::<3>("reserved").map_err(cut)?.into_iter().find(|byte| *byte != 0) {
            return wrong("reserved", found.into(), "0");
        }
        let mut tables = Vec::new();
        for level in 0..levels {
            for channel in 0..channels {
                tables.push(Table::parse(&mut cursor, level, channel)?);
            }
        }
        if !cursor.rest().is_empty() {
            return wrong("bytes after the last table", cursor.rest().len(), "0");
        }
        let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(bytes).into();
        Ok(Self { id: [a, b, c, d], channels, tables })
    }

    /// The first four bytes of the SHA-256 of the file; every packet carries them.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// Number of channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Number of rate levels.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.tables.len() / self.channels
    }

    /// The tables of one level, one per channel.
    #[must_use]
    pub fn level(&self, level: usize) -> Option<&[Table]> {
        self.tables.chunks_exact(self.channels).nth(level)
    }
}

/// The distribution of one channel's symbols at one level.
#[derive(Clone, Debug)]
pub struct Table {
    low: i16,
    frequencies: Box<[u16]>,
    coder: Coder,
}

/// What is derived from the frequencies.
#[derive(Clone, Debug)]
enum Coder {
    Narrow(Box<Narrow>),
    Wide(Box<Wide>),
}

impl Table {
    fn parse(cursor: &mut Cursor<'_>, level: usize, channel: usize) -> Result<Self, Error> {
        let wrong = |field, found, expected| Err(Error::Table { level, channel, field, found, expected });
        let low = cursor.i16("low").map_err(cut)?;
        let count = usize::from(cursor.u16("count").map_err(cut)?);
        if !(1..=REGULAR_MAX).contains(&count) {
            return wrong("count", count, "1 to 4095");
        }
        let room = usize::from(i16::MAX.abs_diff(low)) + 1;
        if count > room {
            return wrong("count", count, "no regular symbol above 32767");
        }
        let bytes = cursor.take(2 * (count + 1), "frequencies").map_err(cut)?;
        let frequencies: Box<[u16]> =
            bytes.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair)).collect();
        if frequencies.contains(&0) {
            return wrong("frequency", 0, "at least 1");
        }
        let sum = frequencies.iter().map(|&frequency| usize::from(frequency)).sum();
        if sum != SCALE {
            return wrong("sum of frequencies", sum, "4096");
        }
        let coder = if frequencies.len() <= 256 {
            Coder::Narrow(Box::new(Narrow::new(&frequencies)))
        } else {
            Coder::Wide(Box::new(Wide::new(&frequencies)))
        };
        Ok(Self { low, frequencies, coder })
    }

    /// The smallest regular symbol.
    #[inline]
    #[must_use]
    pub fn low(&self) -> i16 {
        self.low
    }

    /// The frequencies of the regular symbols from [`low`](Self::low) on, then the escape's; they sum to 4096.
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

    /// [`rans::encode`] for the symbols of one channel.
    pub(crate) fn encode<const N: usize>(
        &self,
        states: &mut [u32; N],
        out: &mut Vec<u8>,
        symbols: &[i16],
    ) -> bool {
        let escape = self.regular() as u16;
        match &self.coder {
            Coder::Narrow(model) => rans::encode(states, out, &**model, self.low, escape, symbols),
            Coder::Wide(model) => rans::encode(states, out, &**model, self.low, escape, symbols),
        }
    }

    /// [`rans::decode`] for the symbols of one channel; escapes come out as the [`marker`](Self::marker).
    pub(crate) fn decode<const N: usize>(
        &self,
        states: &mut [u32; N],
        words: &mut Words<'_>,
        symbols: &mut [i16],
    ) {
        match &self.coder {
            Coder::Narrow(model) => rans::decode(states, words, &**model, self.low, symbols),
            Coder::Wide(model) => rans::decode(states, words, &**model, self.low, symbols),
        }
    }

    /// What stands for the escape where symbols are decoded: one more than the largest regular symbol, or −32768
    /// where that is 32767. A table holds at most 4095 symbols, so it is never one of them.
    pub(crate) fn marker(&self) -> i16 {
        self.low.wrapping_add_unsigned(self.regular() as u16)
    }
}

fn cut(CutOff(field): CutOff) -> Error {
    Error::TablesTruncated { field }
}
