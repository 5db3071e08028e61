//! Interleaved range ANS: 32-bit states, 16-bit words (FORMAT.md, section 4.2 and 4.3).
//!
//! Both directions work through blocks of a fixed size. A block gives or takes at most one word per value, so positions
//! among its words are masked instead of checked, and refills need no branch: which values give a word is as
//! unpredictable as the values themselves.

use std::hint::select_unpredictable;

use crate::{
    Error, Table,
    model::{DecodeTables, EncodeEntry, MixedTables, RunTable},
    simd::Simd,
    table::TableSet,
};

/// The smallest state.
pub(crate) const LOWEST: u32 = 1 << 15;

/// Values that a decoder takes from one block of words: a multiple of every lane count, and a power of two.
pub(crate) const DECODE_BLOCK: usize = 1024;

/// Values that an encoder gives to one.
pub(crate) const ENCODE_BLOCK: usize = 256;

/// The most lanes.
pub(crate) const LANES_MAX: usize = 32;

/// The bytes of a block's words, with room for what a vector writes past them.
pub(crate) type WordBlock = [u8; 2 * ENCODE_BLOCK + 16];

/// The words that a block may take, with room for what a vector reads past them.
pub(crate) type Words = [[u8; 2]; DECODE_BLOCK + 8];

/// The lanes of an encoder, and the words in the order in which they are written.
pub(crate) struct RansEncoder<'a, const N: usize> {
    pub(crate) states: [u32; N],
    pub(crate) words: &'a mut Vec<u8>,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "read by vectors alone"))]
    pub(crate) simd: Simd,
}

impl<const N: usize> RansEncoder<'_, N> {
    /// Codes a run, from its last value to its first. `entries` name the encode_entries.
    #[inline(never)]
    pub(crate) fn run(&mut self, encode_entries: &[EncodeEntry], entries: &[u16]) {
        let mut words = [0; size_of::<WordBlock>()];
        let whole = entries.len() - entries.len() % ENCODE_BLOCK;
        let (blocks, rest) = entries.split_at(whole);
        for block in std::iter::once(rest).chain(blocks.rchunks_exact(ENCODE_BLOCK)) {
            let (groups, rest) = block.as_chunks();
            let mut taken = 0;
            for (state, &entry) in self.states.iter_mut().zip(rest).rev() {
                *state = put(*state, encode_entries[usize::from(entry)], &mut words, &mut taken);
            }
            self.words.extend_from_slice(&words[..2 * taken]);
            let taken = self.groups(encode_entries, groups, &mut words);
            self.words.extend_from_slice(&words[..2 * taken]);
        }
    }

    /// Codes the bytes of escaped values, from the last to the first.
    pub(crate) fn bytes(&mut self, bytes: &[u8], precision: u32) {
        let mut words = [0; size_of::<WordBlock>()];
        for (at, &byte) in bytes.iter().enumerate().rev() {
            let step = EncodeEntry::new(1 << (precision - 8), u32::from(byte) << (precision - 8), precision);
            let mut taken = 0;
            let state = &mut self.states[at % N];
            *state = put(*state, step, &mut words, &mut taken);
            self.words.extend_from_slice(&words[..2 * taken]);
        }
    }

    /// Codes whole groups from the last to the first, in the fastest way that this processor has. Returns the number of
    /// words at the front of `words`.
    #[inline(always)]
    fn groups(
        &mut self,
        encode_entries: &[EncodeEntry],
        groups: &[[u16; N]],
        words: &mut WordBlock,
    ) -> usize {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = self.simd.avx2 {
            if let (states @ [_, ..], []) = self.states.as_chunks_mut() {
                let groups = groups.as_flattened().as_chunks().0;
                return crate::avx2::encode(token, states, groups, encode_entries, words);
            }
            if let Ok(states) = <&mut [u32; 4]>::try_from(&mut self.states[..]) {
                let groups = groups.as_flattened().as_chunks().0;
                return crate::avx2::encode_four(token, states, groups, encode_entries, words);
            }
        }
        encode_groups(&mut self.states, groups, encode_entries, words)
    }
}

#[inline(always)]
fn encode_groups<const N: usize>(
    states: &mut [u32; N],
    groups: &[[u16; N]],
    encode_entries: &[EncodeEntry],
    words: &mut WordBlock,
) -> usize {
    let mut taken = 0;
    let mut local = *states;
    for group in groups.iter().rev() {
        for lane in (0..N).rev() {
            local[lane] = put(local[lane], encode_entries[usize::from(group[lane])], words, &mut taken);
        }
    }
    *states = local;
    taken
}

#[inline(always)]
fn put(state: u32, step: EncodeEntry, words: &mut WordBlock, taken: &mut usize) -> u32 {
    let full = state > step.last();
    let at = *taken % ENCODE_BLOCK * 2;
    words[at..at + 2].copy_from_slice(&(state as u16).to_le_bytes());
    *taken += usize::from(full);
    step.advance(select_unpredictable(full, state >> 16, state))
}

/// The lanes of a decoder, and the words that it takes. Those that are not there read as 0.
pub(crate) struct RansDecoder<'a, const N: usize> {
    pub(crate) states: [u32; N],
    precision: u32,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "read by vectors alone"))]
    simd: Simd,
    /// With zeros at the end, as many as a block looks at.
    words: &'a [[u8; 2]],
    taken: usize,
}

impl<'a, const N: usize> RansDecoder<'a, N> {
    /// Words are copied to `room`, so that a block of them can be looked at wherever it begins.
    pub(crate) fn new(
        states: [u32; N],
        (precision, simd): (u32, Simd),
        words: &[[u8; 2]],
        buffer: &'a mut Vec<[u8; 2]>,
    ) -> Self {
        buffer.clear();
        buffer.extend_from_slice(words);
        buffer.resize(words.len() + size_of::<Words>() / 2, [0; 2]);
        Self { states, precision, simd, words: buffer, taken: 0 }
    }

    /// The words taken, with those that were not there.
    pub(crate) fn words_read(&self) -> usize {
        self.taken
    }

    /// Decodes a run whose values all have one table. Returns whether there are escapes, which come out as the value
    /// after the last regular one.
    #[inline(never)]
    pub(crate) fn run(&mut self, model: &RunTable, values: &mut [i16]) -> bool {
        model.warm();
        values.chunks_mut(DECODE_BLOCK).fold(false, |seen, block| self.run_block(model, block) | seen)
    }

    /// Decodes at most a block, in the fastest way that this processor has.
    #[inline(always)]
    fn run_block(&mut self, model: &RunTable, values: &mut [i16]) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = self.simd.avx2
            && let (states @ [_, ..], []) = self.states.as_chunks_mut()
        {
            let (values, rest) = values.split_at_mut(values.len() - values.len() % N);
            let (words, values) = (window(self.words, self.taken), values.as_chunks_mut().0);
            let (taken, seen) = crate::avx2::decode_run(token, states, model, self.precision, words, values);
            self.taken += taken;
            return seen | crate::model::any_escape(self.block(model, &[(); DECODE_BLOCK], rest));
        }
        crate::model::any_escape(self.block(model, &[(); DECODE_BLOCK], values))
    }

    /// As [`run`](Self::run), where `tables` name the table of each value, and go on to the end of its turn of lanes.
    pub(crate) fn mixed(&mut self, shared: &MixedTables, tables: &[u8], values: &mut [i16]) -> bool {
        if values.len() <= DECODE_BLOCK {
            return self.mixed_block(shared, tables, values);
        }
        let blocks = values.chunks_mut(DECODE_BLOCK).zip(tables.chunks(DECODE_BLOCK));
        blocks.fold(false, |seen, (block, tables)| self.mixed_block(shared, tables, block) | seen)
    }

    /// As [`mixed`](Self::mixed) for at most a block, with eight or sixteen lanes in whole turns of eight: tables and values
    /// go on to the end of a chunk, with the table of no value. `None` with another number of lanes.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn decode_rounds(
        &mut self,
        token: crate::simd::Avx2,
        shared: &MixedTables,
        tables: &[[[u8; 8]; 2]],
        values: &mut [[i16; 16]],
        count: usize,
    ) -> Option<bool> {
        let (words, groups) = (window(self.words, self.taken), count.div_ceil(8));
        let (taken, seen) = match self.states.as_chunks_mut().0 {
            [states] => crate::avx2::decode_pairs(
                token,
                states,
                (shared, self.precision),
                (tables, groups),
                words,
                values,
            ),
            [first, second] => crate::avx2::decode_pairs_of_two(
                token,
                [first, second],
                (shared, self.precision),
                (tables, groups),
                words,
                values,
            ),
            _ => return None,
        };
        self.taken += taken;
        Some(seen)
    }

    /// Decodes at most a block, in the fastest way that this processor has.
    #[inline(never)]
    fn mixed_block(&mut self, shared: &MixedTables, tables: &[u8], values: &mut [i16]) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = self.simd.avx2
            && let Ok(states) = <&mut [u32; 8]>::try_from(&mut self.states[..])
        {
            let (values, rest) = values.split_at_mut(values.len() - values.len() % N);
            let (tables, of_rest) = tables.split_at(values.len());
            let words = window(self.words, self.taken);
            let (tables, values) = (tables.as_chunks().0, values.as_chunks_mut().0);
            let (taken, seen) =
                crate::avx2::decode(token, states, shared, self.precision, tables, words, values);
            self.taken += taken;
            return seen | (!rest.is_empty() && crate::model::any_escape(self.block(shared, of_rest, rest)));
        }
        crate::model::any_escape(self.block(shared, tables, values))
    }

    /// Replaces the escapes of a run, whose values all have one table, by what they stand for.
    #[cold]
    pub(crate) fn escapes_of(
        &mut self,
        set: &TableSet,
        table: usize,
        values: &mut [i16],
    ) -> Result<(), Error> {
        let span = set.spans[table];
        let (escape, mut at) = (span.low.wrapping_add_unsigned(span.escape), 0);
        for chunk in values.chunks_mut(64).filter(|chunk| chunk.contains(&escape)) {
            for value in chunk.iter_mut().filter(|value| **value == escape) {
                *value = self.escape(at, &set.tables[table], table)?;
                at += 2;
            }
        }
        Ok(())
    }

    /// As [`escapes_of`](Self::escapes_of), where `tables` name the tables of the values.
    #[cold]
    pub(crate) fn escapes(
        &mut self,
        set: &TableSet,
        tables: &[u8],
        values: &mut [i16],
        channel: usize,
    ) -> Result<(), Error> {
        let mut at = 0;
        for (value, table) in values.iter_mut().zip(tables.iter().map(|&table| usize::from(table))) {
            let span = set.spans[table];
            if value.wrapping_sub(span.low).cast_unsigned() == span.escape {
                *value = self.escape(at, &set.tables[table], channel)?;
                at += 2;
            }
        }
        Ok(())
    }

    /// Decodes an escaped value of a table, before which there are so many bytes of its run.
    fn escape(&mut self, at: usize, table: &Table, channel: usize) -> Result<i16, Error> {
        let value = i16::from_le_bytes([self.byte(at), self.byte(at + 1)]);
        if table.holds(value) { Err(Error::Escape { found: value, channel }) } else { Ok(value) }
    }

    /// Decodes the bytes of an escaped value, of which `at` are before it in its run.
    fn byte(&mut self, at: usize) -> u8 {
        let state = &mut self.states[at % N];
        let slot = *state & ((1 << self.precision) - 1);
        let shift = self.precision - 8;
        let next = (*state >> self.precision << shift) + (slot & ((1 << shift) - 1));
        *state = next;
        if next < LOWEST {
            *state =
                next << 16 | u32::from(u16::from_le_bytes(*self.words.get(self.taken).unwrap_or(&[0; 2])));
            self.taken += 1;
        }
        (slot >> shift) as u8
    }

    /// Decodes at most a block of values, and returns the bits of their entries.
    #[inline(always)]
    fn block<M: DecodeTables>(&mut self, models: &M, names: &[M::Name], values: &mut [i16]) -> u64 {
        let words = window(self.words, self.taken);
        let (taken, seen) = match self.precision {
            12 => decode::<N, 12, _>(&mut self.states, models, words, names, values),
            _ => decode::<N, 14, _>(&mut self.states, models, words, names, values),
        };
        self.taken += taken;
        seen
    }
}

/// The words after so many.
#[inline(always)]
fn window(words: &[[u8; 2]], taken: usize) -> &Words {
    // Once a block is out of reach, all words that there were are taken.
    words.get(taken..).and_then(|words| words.first_chunk()).unwrap_or(&[[0; 2]; DECODE_BLOCK + 8])
}

/// Decodes values of these tables.
#[inline(always)]
fn decode<const N: usize, const P: u32, M: DecodeTables>(
    states: &mut [u32; N],
    models: &M,
    words: &Words,
    names: &[M::Name],
    values: &mut [i16],
) -> (usize, u64) {
    let mut local = *states;
    let (mut taken, mut seen) = (0, 0);
    let mut take = |state: &mut u32, name: M::Name| {
        let (entry, next) = models.take(name, *state, P);
        let word = u32::from(u16::from_le_bytes(words[taken % DECODE_BLOCK]));
        let short = next < LOWEST;
        taken += usize::from(short);
        seen |= entry.bits();
        *state = select_unpredictable(short, next << 16 | word, next);
        entry.value()
    };
    let (groups, rest) = values.as_chunks_mut::<N>();
    let (of_groups, of_rest) = names.split_at(groups.len() * N);
    for (group, names) in groups.iter_mut().zip(of_groups.as_chunks::<N>().0) {
        for lane in 0..N {
            group[lane] = take(&mut local[lane], names[lane]);
        }
    }
    for ((value, state), &name) in rest.iter_mut().zip(&mut local).zip(of_rest) {
        *value = take(state, name);
    }
    *states = local;
    (taken, seen)
}
