//! Interleaved range ANS: 32-bit states, 16-bit words (FORMAT.md, section 4.2 and 4.3).
//!
//! Both directions work through blocks of a fixed size. A block gives or takes at most one word per value, so positions
//! among its words are masked instead of checked, and refills need no branch: which values give a word is as
//! unpredictable as the values themselves.

use std::hint::select_unpredictable;

use crate::model::{Entry, Model, Step};
use crate::simd::Simd;

/// The smallest state.
pub(crate) const LOWEST: u32 = 1 << 15;

/// Values of one block: a multiple of every lane count, and a power of two.
const BLOCK: usize = 256;

/// The bytes of a block's words, with room for what a vector writes past them.
pub(crate) type WordBlock = [u8; 2 * BLOCK + 16];

/// The lanes of an encoder, and the words in the order in which they are written.
pub(crate) struct Writer<'a, const N: usize> {
    pub(crate) states: [u32; N],
    pub(crate) words: &'a mut Vec<u8>,
    pub(crate) simd: Simd,
}

impl<const N: usize> Writer<'_, N> {
    /// Codes a run, from its last value to its first. `entries` name the steps.
    #[inline(never)]
    pub(crate) fn run(&mut self, steps: &[Step], entries: &[u16]) {
        let mut words = [0; size_of::<WordBlock>()];
        let whole = entries.len() - entries.len() % BLOCK;
        let (blocks, rest) = entries.split_at(whole);
        for block in std::iter::once(rest).chain(blocks.rchunks_exact(BLOCK)) {
            let (groups, rest) = block.as_chunks();
            let mut taken = 0;
            for (state, &entry) in self.states.iter_mut().zip(rest).rev() {
                *state = put(*state, steps[usize::from(entry)], &mut words, &mut taken);
            }
            self.words.extend_from_slice(&words[..2 * taken]);
            let taken = self.groups(steps, groups, &mut words);
            self.words.extend_from_slice(&words[..2 * taken]);
        }
    }

    /// Codes the bytes of escaped values, from the last to the first.
    pub(crate) fn bytes(&mut self, bytes: &[u8], precision: u32) {
        let mut words = [0; size_of::<WordBlock>()];
        for (at, &byte) in bytes.iter().enumerate().rev() {
            let step = Step::new(1 << (precision - 8), u32::from(byte) << (precision - 8), precision);
            let mut taken = 0;
            let state = &mut self.states[at % N];
            *state = put(*state, step, &mut words, &mut taken);
            self.words.extend_from_slice(&words[..2 * taken]);
        }
    }

    /// Codes whole groups from the last to the first, in the fastest way that this processor has. Returns the number of
    /// words at the front of `words`.
    #[inline(always)]
    fn groups(&mut self, steps: &[Step], groups: &[[u16; N]], words: &mut WordBlock) -> usize {
        #[cfg(target_arch = "x86_64")]
        if let (Some(token), Ok(states)) = (self.simd.avx2, <&mut [u32; 8]>::try_from(&mut self.states[..])) {
            let taken;
            (*states, taken) =
                crate::avx2::encode(token, *states, groups.as_flattened().as_chunks().0, steps, words);
            return taken;
        }
        encode_groups(&mut self.states, groups, steps, words)
    }
}

#[inline(always)]
fn encode_groups<const N: usize>(
    states: &mut [u32; N],
    groups: &[[u16; N]],
    steps: &[Step],
    words: &mut WordBlock,
) -> usize {
    let mut taken = 0;
    let mut local = *states;
    for group in groups.iter().rev() {
        for lane in (0..N).rev() {
            local[lane] = put(local[lane], steps[usize::from(group[lane])], words, &mut taken);
        }
    }
    *states = local;
    taken
}

#[inline(always)]
fn put(state: u32, step: Step, words: &mut WordBlock, taken: &mut usize) -> u32 {
    let full = state >= step.limit();
    let at = *taken % BLOCK * 2;
    words[at..at + 2].copy_from_slice(&(state as u16).to_le_bytes());
    *taken += usize::from(full);
    step.advance(select_unpredictable(full, state >> 16, state))
}

/// The lanes of a decoder, and the words not yet taken. Those that are not there read as 0 and are remembered.
pub(crate) struct Reader<'a, const N: usize> {
    pub(crate) states: [u32; N],
    pub(crate) left: &'a [[u8; 2]],
    pub(crate) missing: bool,
    pub(crate) precision: u32,
}

impl<const N: usize> Reader<'_, N> {
    /// Decodes a run whose values all have one table. Returns whether there are escapes, which come out as the value
    /// after the last regular one.
    #[inline(never)]
    pub(crate) fn run(&mut self, model: &Model, values: &mut [i16]) -> bool {
        let mut seen = 0;
        for block in values.chunks_mut(BLOCK) {
            seen |= self.block(block, |_| model);
        }
        crate::model::any_escape(seen)
    }

    /// As [`run`](Self::run), where `tables` name the model of each value.
    #[inline(never)]
    pub(crate) fn mixed(&mut self, models: &[Model], tables: &[u8], values: &mut [i16]) -> bool {
        let mut seen = 0;
        for (block, tables) in values.chunks_mut(BLOCK).zip(tables.chunks(BLOCK)) {
            seen |= self.block(block, |at| &models[usize::from(tables[at])]);
        }
        crate::model::any_escape(seen)
    }

    /// Decodes the bytes of an escaped value, of which `at` are before it in its run.
    pub(crate) fn byte(&mut self, at: usize) -> u8 {
        let state = &mut self.states[at % N];
        let slot = *state & ((1 << self.precision) - 1);
        let shift = self.precision - 8;
        let next = (*state >> self.precision << shift) + (slot & ((1 << shift) - 1));
        *state = next;
        if next < LOWEST {
            let (word, rest) = match self.left.split_first() {
                Some((&word, rest)) => (u16::from_le_bytes(word), rest),
                None => {
                    self.missing = true;
                    (0, self.left)
                }
            };
            self.left = rest;
            *state = next << 16 | u32::from(word);
        }
        (slot >> shift) as u8
    }

    /// Decodes at most a block of values, and returns the bits of their entries.
    #[inline(always)]
    fn block<'m>(&mut self, values: &mut [i16], model: impl Fn(usize) -> &'m Model) -> u64 {
        let (taken, seen);
        (self.states, taken, seen) = match self.left.first_chunk() {
            Some(words) => decode(self.states, self.precision, model, words, values),
            None => {
                let mut words = [[0; 2]; BLOCK];
                words[..self.left.len()].copy_from_slice(self.left);
                decode(self.states, self.precision, model, &words, values)
            }
        };
        match self.left.get(taken..) {
            Some(rest) => self.left = rest,
            None => (self.left, self.missing) = (&[], true),
        }
        seen
    }
}

#[inline(always)]
fn decode<'m, const N: usize>(
    mut states: [u32; N],
    precision: u32,
    model: impl Fn(usize) -> &'m Model,
    words: &[[u8; 2]; BLOCK],
    values: &mut [i16],
) -> ([u32; N], usize, u64) {
    let (mut taken, mut seen) = (0, 0);
    let mut take = |state: &mut u32, model: &Model| {
        let (entry, next): (Entry, u32) = model.take(*state, precision);
        let word = u32::from(u16::from_le_bytes(words[taken % BLOCK]));
        let short = next < LOWEST;
        taken += usize::from(short);
        seen |= entry.bits();
        *state = select_unpredictable(short, next << 16 | word, next);
        entry.value()
    };
    let (groups, rest) = values.as_chunks_mut::<N>();
    let whole = groups.len() * N;
    for (at, group) in groups.iter_mut().enumerate() {
        for lane in 0..N {
            group[lane] = take(&mut states[lane], model(at * N + lane));
        }
    }
    for (lane, value) in rest.iter_mut().enumerate() {
        *value = take(&mut states[lane], model(whole + lane));
    }
    (states, taken, seen)
}
