//! The encoder: runs of entries to words, from the last to the first.

use crate::{
    rans::{
        entry::EncodeEntry,
        portable::{encode, encode_rounds},
        words::{BlockWords, ENCODE_BLOCK},
    },
    simd::Simd,
};

/// The states of `N` lanes, and the words in the order in which they are written, the reverse of that in the packet.
pub(crate) struct RansEncoder<'a, const N: usize> {
    pub(crate) states: [u32; N],
    pub(crate) words: &'a mut Vec<u8>,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "used by vector code alone"))]
    pub(crate) simd: Simd,
}

impl<const N: usize> RansEncoder<'_, N> {
    /// Encodes a run, from its last value to its first. `run` holds the index of each value's entry in `table`.
    #[inline(never)]
    pub(crate) fn run(&mut self, table: &[EncodeEntry], run: &[u16]) {
        let mut words = [0; size_of::<BlockWords>()];
        let whole = run.len() - run.len() % ENCODE_BLOCK;
        let (blocks, rest) = run.split_at(whole);
        for block in std::iter::once(rest).chain(blocks.rchunks_exact(ENCODE_BLOCK)) {
            let (rounds, rest) = block.as_chunks();
            let mut written = 0;
            for (state, &entry) in self.states.iter_mut().zip(rest).rev() {
                *state = encode(*state, table[usize::from(entry)], &mut words, &mut written);
            }
            self.words.extend_from_slice(&words[..2 * written]);
            let written = self.rounds(table, rounds, &mut words);
            self.words.extend_from_slice(&words[..2 * written]);
        }
    }

    /// Encodes the bytes of a run's escaped values, from the last to the first.
    pub(crate) fn bytes(&mut self, bytes: &[u8], precision: u32) {
        let mut words = [0; size_of::<BlockWords>()];
        for (at, &byte) in bytes.iter().enumerate().rev() {
            let entry = EncodeEntry::new(1 << (precision - 8), u32::from(byte) << (precision - 8), precision);
            let mut written = 0;
            let state = &mut self.states[at % N];
            *state = encode(*state, entry, &mut words, &mut written);
            self.words.extend_from_slice(&words[..2 * written]);
        }
    }

    /// Encodes rounds, which have one value per lane, with the fastest code that the processor can run. Returns the number
    /// of words written to the front of `words`.
    #[inline(always)]
    fn rounds(&mut self, table: &[EncodeEntry], rounds: &[[u16; N]], words: &mut BlockWords) -> usize {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = self.simd.avx2 {
            if let (states @ [_, ..], []) = self.states.as_chunks_mut() {
                let rounds = rounds.as_flattened().as_chunks().0;
                return crate::rans::avx2::encode(token, states, rounds, table, words);
            }
            if let Ok(states) = <&mut [u32; 4]>::try_from(&mut self.states[..]) {
                let rounds = rounds.as_flattened().as_chunks().0;
                return crate::rans::avx2::encode_four(token, states, rounds, table, words);
            }
        }
        encode_rounds(&mut self.states, rounds, table, words)
    }
}
