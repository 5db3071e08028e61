//! Interleaved range ANS: 32-bit states, 16-bit words, 12-bit frequencies (FORMAT.md, section 4).
//!
//! Both directions work through blocks of a fixed size. A block gives or takes at most one word per symbol, so
//! positions among its words are masked instead of checked, and refills need no branch: which symbols give a word
//! is as unpredictable as the symbols themselves.

use std::hint::select_unpredictable;

use crate::model::{Model, SCALE};

/// The smallest state, where every lane of an encoder begins and every lane of a decoder ends.
pub(crate) const LOWEST: u32 = 1 << 15;

/// One more than the largest state.
pub(crate) const STATE_END: u32 = 1 << 31;

/// Symbols of one block: a multiple of every lane count, and a power of two.
const BLOCK: usize = 256;

/// Codes one channel from its last symbol to its first, and appends the words to `out` in the order in which they
/// are written. Symbols that are not `low` to `low + escape − 1` become entry `escape`, the last of the model.
/// Returns whether there were any.
#[inline(never)]
pub(crate) fn encode<const N: usize, M: Model>(
    states: &mut [u32; N],
    out: &mut Vec<u8>,
    model: &M,
    low: i16,
    escape: u16,
    symbols: &[i16],
) -> bool {
    let mut escaped = false;
    let mut entries = [M::Entry::default(); BLOCK];
    let mut words = [[0; 2]; BLOCK];
    let whole = symbols.len() - symbols.len() % BLOCK;
    let (blocks, rest) = symbols.split_at(whole);
    for block in std::iter::once(rest).chain(blocks.rchunks_exact(BLOCK)) {
        for (entry, &symbol) in entries.iter_mut().zip(block) {
            let offset = symbol.wrapping_sub(low).cast_unsigned().min(escape);
            escaped |= offset == escape;
            *entry = M::shorten(offset);
        }
        let taken;
        (*states, taken) = encode_block(*states, model, &entries[..block.len()], &mut words);
        out.extend_from_slice(words[..taken].as_flattened());
    }
    escaped
}

#[inline(always)]
fn encode_block<const N: usize, M: Model>(
    mut states: [u32; N],
    model: &M,
    entries: &[M::Entry],
    words: &mut [[u8; 2]; BLOCK],
) -> ([u32; N], usize) {
    let mut taken = 0;
    let mut put = |state: u32, entry: M::Entry| {
        let step = model.step(entry);
        let full = state >= step.limit;
        words[taken % BLOCK] = (state as u16).to_le_bytes();
        taken += usize::from(full);
        step.advance(select_unpredictable(full, state >> 16, state))
    };
    let (groups, rest) = entries.as_chunks::<N>();
    for lane in (0..rest.len()).rev() {
        states[lane] = put(states[lane], rest[lane]);
    }
    for group in groups.iter().rev() {
        for lane in (0..N).rev() {
            states[lane] = put(states[lane], group[lane]);
        }
    }
    (states, taken)
}

/// The words of a payload, taken from the front. Those that are not there read as 0 and are remembered.
pub(crate) struct Words<'a> {
    left: &'a [[u8; 2]],
    missing: bool,
}

impl<'a> Words<'a> {
    pub(crate) fn new(words: &'a [[u8; 2]]) -> Self {
        Self { left: words, missing: false }
    }

    /// The words that were not taken, unless some were taken that were not there.
    pub(crate) fn rest(&self) -> Option<&'a [[u8; 2]]> {
        (!self.missing).then_some(self.left)
    }

    /// Shows the next block of words to `read`, and takes as many as it says.
    #[inline(always)]
    fn block(&mut self, read: impl FnOnce(&[[u8; 2]; BLOCK]) -> usize) {
        let taken = match self.left.first_chunk() {
            Some(block) => read(block),
            None => {
                let mut padded = [[0; 2]; BLOCK];
                padded[..self.left.len()].copy_from_slice(self.left);
                read(&padded)
            }
        };
        match self.left.get(taken..) {
            Some(rest) => self.left = rest,
            None => (self.left, self.missing) = (&[], true),
        }
    }
}

/// Decodes one channel. An escape comes out as `low` plus its entry.
#[inline(never)]
pub(crate) fn decode<const N: usize, M: Model>(
    states: &mut [u32; N],
    words: &mut Words<'_>,
    model: &M,
    low: i16,
    symbols: &mut [i16],
) {
    for block in symbols.chunks_mut(BLOCK) {
        words.block(|words| {
            let taken;
            (*states, taken) = decode_block(*states, model, low, words, block);
            taken
        });
    }
}

#[inline(always)]
fn decode_block<const N: usize, M: Model>(
    mut states: [u32; N],
    model: &M,
    low: i16,
    words: &[[u8; 2]; BLOCK],
    symbols: &mut [i16],
) -> ([u32; N], usize) {
    let mut taken = 0;
    let mut take = |state: u32| {
        let entry = model.entry(state as usize % SCALE);
        let next = model.step(entry).retreat(state);
        let word = u32::from(u16::from_le_bytes(words[taken % BLOCK]));
        let short = next < LOWEST;
        taken += usize::from(short);
        (low.wrapping_add_unsigned(M::lengthen(entry)), select_unpredictable(short, next << 16 | word, next))
    };
    let (groups, rest) = symbols.as_chunks_mut::<N>();
    for group in groups {
        for lane in 0..N {
            (group[lane], states[lane]) = take(states[lane]);
        }
    }
    for (lane, symbol) in rest.iter_mut().enumerate() {
        (*symbol, states[lane]) = take(states[lane]);
    }
    (states, taken)
}
