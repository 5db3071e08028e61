//! The coder's inner loops for every processor. They define what the vector code must write and read.

use std::hint::select_unpredictable;

use crate::{
    format::states::LOWEST_STATE,
    rans::{
        entry::EncodeEntry,
        lookup::DecodeTables,
        words::{BlockWords, DECODE_BLOCK, ENCODE_BLOCK, LookaheadWords},
    },
};

/// Encodes rounds from the last to the first. A round has, per lane, the index of a value's entry in `table`. Returns the
/// number of words written to the front of `words`.
#[inline(always)]
pub(crate) fn encode_rounds<const N: usize>(
    states: &mut [u32; N],
    rounds: &[[u16; N]],
    table: &[EncodeEntry],
    words: &mut BlockWords,
) -> usize {
    let mut written = 0;
    let mut local = *states;
    for round in rounds.iter().rev() {
        for lane in (0..N).rev() {
            local[lane] = encode(local[lane], table[usize::from(round[lane])], words, &mut written);
        }
    }
    *states = local;
    written
}

/// Encodes one entry and returns the next state. The word, if there is one, is written after the `written` ones that are
/// there.
#[inline(always)]
pub(crate) fn encode(state: u32, entry: EncodeEntry, words: &mut BlockWords, written: &mut usize) -> u32 {
    let full = state > entry.max_state();
    let at = *written % ENCODE_BLOCK * 2;
    words[at..at + 2].copy_from_slice(&(state as u16).to_le_bytes());
    *written += usize::from(full);
    entry.advance(select_unpredictable(full, state >> 16, state))
}

/// Decodes at most a block of values; `tables` holds the index of each value's table. Returns the number of words read,
/// and the combined bits of the entries.
#[inline(always)]
pub(crate) fn decode<const N: usize, const PRECISION: u32, T: DecodeTables>(
    states: &mut [u32; N],
    lookup: &T,
    words: &LookaheadWords,
    tables: &[T::Index],
    values: &mut [i16],
) -> (usize, u64) {
    let mut local = *states;
    let (mut read, mut bits) = (0, 0);
    let mut decode = |state: &mut u32, table: T::Index| {
        let (entry, next) = lookup.decode(table, *state, PRECISION);
        let word = u32::from(u16::from_le_bytes(words[read % DECODE_BLOCK]));
        let short = next < LOWEST_STATE;
        read += usize::from(short);
        bits |= entry.bits();
        *state = select_unpredictable(short, next << 16 | word, next);
        entry.value()
    };
    let (rounds, rest) = values.as_chunks_mut::<N>();
    let (of_rounds, of_rest) = tables.split_at(rounds.len() * N);
    for (round, tables) in rounds.iter_mut().zip(of_rounds.as_chunks::<N>().0) {
        for lane in 0..N {
            round[lane] = decode(&mut local[lane], tables[lane]);
        }
    }
    for ((value, state), &table) in rest.iter_mut().zip(&mut local).zip(of_rest) {
        *value = decode(state, table);
    }
    *states = local;
    (read, bits)
}
