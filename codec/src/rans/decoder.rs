//! The decoder: words to runs of values.

use crate::{
    Error,
    format::states::LOWEST_STATE,
    rans::{
        lookup::{DecodeTables, MixedTables, RunTable, any_escape},
        portable::decode,
        table_set::{MixedTableSet, RunTableSet, Span},
        words::{DECODE_BLOCK, LookaheadWords, lookahead},
    },
    simd::Simd,
};

/// The states of `N` lanes, and the words of a packet. Words beyond the last one read as 0; whether there were any shows
/// in [`words_read`](Self::words_read).
pub(crate) struct RansDecoder<'a, const N: usize> {
    pub(crate) states: [u32; N],
    precision: u32,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "used by vector code alone"))]
    simd: Simd,
    /// The words, and zeros for a block after them.
    words: &'a [[u8; 2]],
    words_read: usize,
}

impl<'a, const N: usize> RansDecoder<'a, N> {
    /// A decoder of `words`, which it copies to `buffer` so that zeros follow them.
    pub(crate) fn new(
        states: [u32; N],
        (precision, simd): (u32, Simd),
        words: &[[u8; 2]],
        buffer: &'a mut Vec<[u8; 2]>,
    ) -> Self {
        buffer.clear();
        buffer.extend_from_slice(words);
        buffer.resize(words.len() + size_of::<LookaheadWords>() / 2, [0; 2]);
        Self { states, precision, simd, words: buffer, words_read: 0 }
    }

    /// The number of words read, including those beyond the last one.
    pub(crate) fn words_read(&self) -> usize {
        self.words_read
    }

    /// Decodes a run whose values share one table. Returns whether there are escapes, which decode to the value after the
    /// last regular one.
    #[inline(never)]
    pub(crate) fn run(&mut self, table: &RunTable, values: &mut [i16]) -> bool {
        table.prefetch();
        values.chunks_mut(DECODE_BLOCK).fold(false, |escapes, block| self.run_block(table, block) | escapes)
    }

    /// Decodes at most a block of a run, with the fastest code that the processor can run.
    #[inline(always)]
    fn run_block(&mut self, table: &RunTable, values: &mut [i16]) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = self.simd.avx2
            && let (states @ [_, ..], []) = self.states.as_chunks_mut()
        {
            let (values, rest) = values.split_at_mut(values.len() - values.len() % N);
            let (words, values) = (lookahead(self.words, self.words_read), values.as_chunks_mut().0);
            let (read, escapes) =
                crate::rans::avx2::decode_run(token, states, table, self.precision, words, values);
            self.words_read += read;
            return escapes | any_escape(self.block(table, &[(); DECODE_BLOCK], rest));
        }
        any_escape(self.block(table, &[(); DECODE_BLOCK], values))
    }

    /// As [`run`](Self::run), for a run in which each value has a table of its own: `tables` holds their indices, and goes
    /// on to the end of the last round of lanes.
    pub(crate) fn mixed_run(&mut self, lookup: &MixedTables, tables: &[u8], values: &mut [i16]) -> bool {
        if values.len() <= DECODE_BLOCK {
            return self.mixed_block(lookup, tables, values);
        }
        let blocks = values.chunks_mut(DECODE_BLOCK).zip(tables.chunks(DECODE_BLOCK));
        blocks.fold(false, |escapes, (block, tables)| self.mixed_block(lookup, tables, block) | escapes)
    }

    /// As [`mixed_run`](Self::mixed_run) for at most a block of `count` values, with eight or sixteen lanes. `tables` and
    /// `values` go on to a multiple of 16 values, and there have the table of no value. `None` with another number of
    /// lanes.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn mixed_rounds(
        &mut self,
        token: crate::simd::Avx2,
        lookup: &MixedTables,
        tables: &[[[u8; 8]; 2]],
        values: &mut [[i16; 16]],
        count: usize,
    ) -> Option<bool> {
        let (words, octets) = (lookahead(self.words, self.words_read), count.div_ceil(8));
        let lookup = (lookup, self.precision);
        let (read, escapes) = match self.states.as_chunks_mut().0 {
            [states] => {
                crate::rans::avx2::decode_mixed_8(token, states, lookup, (tables, octets), words, values)
            }
            [first, second] => crate::rans::avx2::decode_mixed_16(
                token,
                [first, second],
                lookup,
                (tables, octets),
                words,
                values,
            ),
            _ => return None,
        };
        self.words_read += read;
        Some(escapes)
    }

    /// Decodes at most a block of a mixed run, with the fastest code that the processor can run.
    #[inline(never)]
    fn mixed_block(&mut self, lookup: &MixedTables, tables: &[u8], values: &mut [i16]) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = self.simd.avx2
            && let Ok(states) = <&mut [u32; 8]>::try_from(&mut self.states[..])
        {
            let (values, rest) = values.split_at_mut(values.len() - values.len() % N);
            let (tables, of_rest) = tables.split_at(values.len());
            let words = lookahead(self.words, self.words_read);
            let (tables, values) = (tables.as_chunks().0, values.as_chunks_mut().0);
            let (read, escapes) =
                crate::rans::avx2::decode_mixed(token, states, lookup, self.precision, tables, words, values);
            self.words_read += read;
            return escapes | (!rest.is_empty() && any_escape(self.block(lookup, of_rest, rest)));
        }
        any_escape(self.block(lookup, tables, values))
    }

    /// Replaces the escapes of a run of channel `channel`, which is coded with the table of that index, by the values that
    /// they stand for.
    ///
    /// # Errors
    /// [`Error::Escape`] when an escape stands for a regular value.
    #[cold]
    pub(crate) fn run_escapes(
        &mut self,
        tables: &RunTableSet,
        channel: usize,
        values: &mut [i16],
    ) -> Result<(), Error> {
        let span = tables.set.spans[channel];
        let (escape, mut at) = (span.escape_value(), 0);
        for chunk in values.chunks_mut(64).filter(|chunk| chunk.contains(&escape)) {
            for value in chunk.iter_mut().filter(|value| **value == escape) {
                *value = self.escape(at, span, channel)?;
                at += 2;
            }
        }
        Ok(())
    }

    /// As [`run_escapes`](Self::run_escapes), for a mixed run; `tables` holds the index of each value's table.
    #[cold]
    pub(crate) fn mixed_escapes(
        &mut self,
        set: &MixedTableSet,
        tables: &[u8],
        values: &mut [i16],
        channel: usize,
    ) -> Result<(), Error> {
        let mut at = 0;
        for (value, &table) in values.iter_mut().zip(tables) {
            let span = set.spans[usize::from(table)];
            if *value == span.escape_value() {
                *value = self.escape(at, span, channel)?;
                at += 2;
            }
        }
        Ok(())
    }

    /// Decodes the value of an escape, before which `at` bytes of escapes were decoded in this run.
    fn escape(&mut self, at: usize, span: Span, channel: usize) -> Result<i16, Error> {
        let value = i16::from_le_bytes([self.byte(at), self.byte(at + 1)]);
        let regular = span.offset(value) < span.escape;
        if regular { Err(Error::Escape { found: value, channel }) } else { Ok(value) }
    }

    /// Decodes the byte with index `at` among the escapes of a run. All 256 bytes have the same frequency.
    fn byte(&mut self, at: usize) -> u8 {
        let state = &mut self.states[at % N];
        let slot = *state & ((1 << self.precision) - 1);
        let shift = self.precision - 8;
        let next = (*state >> self.precision << shift) + (slot & ((1 << shift) - 1));
        *state = next;
        if next < LOWEST_STATE {
            let word = self.words.get(self.words_read).unwrap_or(&[0; 2]);
            *state = next << 16 | u32::from(u16::from_le_bytes(*word));
            self.words_read += 1;
        }
        (slot >> shift) as u8
    }

    /// Decodes at most a block of values with the portable code, and returns the combined bits of their entries.
    #[inline(always)]
    fn block<T: DecodeTables>(&mut self, lookup: &T, tables: &[T::Index], values: &mut [i16]) -> u64 {
        let words = lookahead(self.words, self.words_read);
        let (read, bits) = match self.precision {
            12 => decode::<N, 12, _>(&mut self.states, lookup, words, tables, values),
            _ => decode::<N, 14, _>(&mut self.states, lookup, words, tables, values),
        };
        self.words_read += read;
        bits
    }
}
