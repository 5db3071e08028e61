//! Interleaved range ANS: 32-bit states, 16-bit words, 12-bit frequencies (FORMAT.md, section 4).
//!
//! Both directions work through blocks of a fixed size. A block gives or takes at most one word per symbol, so
//! positions among its words are masked instead of checked, and refills need no branch: which symbols give a word
//! is as unpredictable as the symbols themselves.

use std::hint::select_unpredictable;

use crate::model::{BLOCK, Model, SCALE, Step, WordBlock};

/// The smallest state, where every lane of an encoder begins and every lane of a decoder ends.
pub(crate) const LOWEST: u32 = 1 << 15;

/// One more than the largest state.
pub(crate) const STATE_END: u32 = 1 << 31;

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
    let mut words = [0; size_of::<WordBlock>()];
    let whole = symbols.len() - symbols.len() % BLOCK;
    let (blocks, rest) = symbols.split_at(whole);
    for block in std::iter::once(rest).chain(blocks.rchunks_exact(BLOCK)) {
        for (entry, &symbol) in entries.iter_mut().zip(block) {
            let offset = symbol.wrapping_sub(low).cast_unsigned().min(escape);
            escaped |= offset == escape;
            *entry = M::shorten(offset);
        }
        let (groups, rest) = entries[..block.len()].as_chunks();
        let mut taken = 0;
        for (state, &entry) in states.iter_mut().zip(rest).rev() {
            *state = put(*state, model.step(entry), &mut words, &mut taken);
        }
        out.extend_from_slice(&words[..2 * taken]);
        let taken = model
            .encode_fast(states, groups, &mut words)
            .unwrap_or_else(|| encode_groups(states, groups, model, &mut words));
        out.extend_from_slice(&words[..2 * taken]);
    }
    escaped
}

/// Codes whole groups from the last to the first, and returns the number of words at the front of `words`.
#[inline(always)]
fn encode_groups<const N: usize, M: Model>(
    states: &mut [u32; N],
    groups: &[[M::Entry; N]],
    model: &M,
    words: &mut WordBlock,
) -> usize {
    let mut taken = 0;
    let mut local = *states;
    for group in groups.iter().rev() {
        for lane in (0..N).rev() {
            local[lane] = put(local[lane], model.step(group[lane]), words, &mut taken);
        }
    }
    *states = local;
    taken
}

#[inline(always)]
fn put(state: u32, step: &Step, words: &mut WordBlock, taken: &mut usize) -> u32 {
    let full = state >= step.limit;
    let at = *taken % BLOCK * 2;
    words[at..at + 2].copy_from_slice(&(state as u16).to_le_bytes());
    *taken += usize::from(full);
    step.advance(select_unpredictable(full, state >> 16, state))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Narrow;

    fn both_ways(model: &Narrow, states: [u32; 8], groups: &[[u8; 8]]) {
        let (mut plain, mut fast) = (states, states);
        let mut expected = [0; size_of::<WordBlock>()];
        let mut found = [0; size_of::<WordBlock>()];
        let taken = encode_groups(&mut plain, groups, model, &mut expected);
        if let Some(fast_taken) = model.encode_fast(&mut fast, groups, &mut found) {
            assert_eq!((fast, fast_taken), (plain, taken), "{states:?}");
            assert_eq!(found[..2 * taken], expected[..2 * taken]);
        }
    }

    #[test]
    fn the_fast_way_is_the_portable_one_for_every_frequency() {
        for frequency in 1..SCALE as u16 {
            let model = Narrow::new(&[frequency, SCALE as u16 - frequency]);
            let f = u32::from(frequency);
            let limit = f << 19;
            let middle = (limit / 3 / f * f).max(LOWEST);
            let states = [
                LOWEST,
                LOWEST + 1,
                middle,
                middle + f - 1,
                limit - f.min(limit - LOWEST),
                limit - 1,
                limit,
                STATE_END - 1,
            ];
            both_ways(&model, states, &[[0; 8]]);
            both_ways(&model, states, &[[0, 1, 0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0, 1, 0]]);
        }
    }

    #[test]
    fn the_fast_way_is_the_portable_one_for_full_blocks() {
        let frequencies: Vec<u16> = (0..256).map(|entry| if entry == 90 { 4096 - 255 } else { 1 }).collect();
        let model = Narrow::new(&frequencies);
        let mut random = 7_u32;
        for mask in [0, 90, 255] {
            let groups: Vec<[u8; 8]> = (0..BLOCK / 8)
                .map(|_| {
                    std::array::from_fn(|_| {
                        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        if mask == 90 && random >> 29 != 0 { 90 } else { (random >> 24) as u8 & mask }
                    })
                })
                .collect();
            both_ways(&model, [LOWEST; 8], &groups);
            both_ways(&model, [STATE_END - 1; 8], &groups);
        }
    }
}
