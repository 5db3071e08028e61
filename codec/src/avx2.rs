//! Inner loops on x86-64 with AVX2: the same states, words and contexts as the portable ones.

use std::arch::x86_64::{
    __m128i, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_packus_epi32, _mm_set_epi64x, _mm_shuffle_epi8,
    _mm256_add_epi32, _mm256_and_si256, _mm256_blend_epi32, _mm256_blendv_epi8, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_cmpgt_epi32, _mm256_extract_epi32, _mm256_extracti128_si256,
    _mm256_movemask_ps, _mm256_mul_epu32, _mm256_mullo_epi32, _mm256_set_m128i, _mm256_set1_epi32,
    _mm256_setr_epi32, _mm256_srli_epi32, _mm256_srli_epi64, _mm256_srlv_epi32, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use crate::model::Step;
use crate::rans::WordBlock;
use crate::simd::Avx2;
use crate::window::{Sight, WIDTH};

/// For each set of lanes, where the bytes of their words come from: the highest lane's first.
static ORDER: [[u64; 2]; 256] = order();

const fn order() -> [[u64; 2]; 256] {
    let mut table = [[0; 2]; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut at) = (8, 0);
        while lane > 0 {
            lane -= 1;
            if set >> lane & 1 == 1 {
                let bytes = (2 * lane as u64) | ((2 * lane as u64 + 1) << 8);
                table[set][at / 4] |= bytes << (16 * (at % 4));
                at += 1;
            }
        }
        set += 1;
    }
    table
}

fearless_simd::kernel!(
    /// Codes whole groups of eight entries, one per lane, from the last to the first. Words go to the front of
    /// `words`, which has room for one word per entry and eight more; returns the states and the number of words.
    pub(crate) fn encode(
        _avx2: Avx2,
        states: [u32; 8],
        groups: &[[u16; 8]],
        steps: &[Step],
        words: &mut WordBlock,
    ) -> ([u32; 8], usize) {
        let [a, b, c, d, e, f, g, h] = states.map(u32::cast_signed);
        let mut state = _mm256_setr_epi32(a, b, c, d, e, f, g, h);
        let half = _mm256_set1_epi32(0xffff);
        let load = |entry: u16| {
            let Step([low, high]) = steps[usize::from(entry)];
            _mm_set_epi64x(high.cast_signed(), low.cast_signed())
        };
        let mut taken = 0;
        for group in groups.iter().rev() {
            // Four fields of eight entries, transposed into four vectors of eight lanes.
            let row = |lane: usize| _mm256_set_m128i(load(group[lane + 4]), load(group[lane]));
            let (row0, row1, row2, row3) = (row(0), row(1), row(2), row(3));
            let front = (_mm256_unpacklo_epi32(row0, row1), _mm256_unpacklo_epi32(row2, row3));
            let back = (_mm256_unpackhi_epi32(row0, row1), _mm256_unpackhi_epi32(row2, row3));
            let limit = _mm256_unpacklo_epi64(front.0, front.1);
            let reciprocal = _mm256_unpackhi_epi64(front.0, front.1);
            let start_gap = _mm256_unpacklo_epi64(back.0, back.1);
            let shift = _mm256_unpackhi_epi64(back.0, back.1);

            // States and limits are below 2^31, so the signed comparison is right.
            let below = _mm256_cmpgt_epi32(limit, state);
            let full = !_mm256_movemask_ps(_mm256_castsi256_ps(below)) as usize & 0xff;
            let low = _mm256_and_si256(state, half);
            let low: __m128i =
                _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
            let [first, second] = ORDER[full];
            let given = _mm_shuffle_epi8(low, _mm_set_epi64x(second.cast_signed(), first.cast_signed()));
            let at = taken % 256 * 2;
            words[at..at + 8].copy_from_slice(&_mm_cvtsi128_si64(given).to_le_bytes());
            words[at + 8..at + 16].copy_from_slice(&_mm_extract_epi64::<1>(given).to_le_bytes());
            taken += full.count_ones() as usize;

            let ready = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(state), state, below);
            let even = _mm256_mul_epu32(ready, reciprocal);
            let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(ready), _mm256_srli_epi64::<32>(reciprocal));
            let product = _mm256_blend_epi32::<0b1010_1010>(_mm256_srli_epi64::<32>(even), odd);
            let quotient = _mm256_srlv_epi32(product, shift);
            let moved = _mm256_mullo_epi32(quotient, _mm256_srli_epi32::<16>(start_gap));
            state = _mm256_add_epi32(_mm256_add_epi32(ready, _mm256_and_si256(start_gap, half)), moved);
        }
        let states = [
            _mm256_extract_epi32::<0>(state),
            _mm256_extract_epi32::<1>(state),
            _mm256_extract_epi32::<2>(state),
            _mm256_extract_epi32::<3>(state),
            _mm256_extract_epi32::<4>(state),
            _mm256_extract_epi32::<5>(state),
            _mm256_extract_epi32::<6>(state),
            _mm256_extract_epi32::<7>(state),
        ];
        (states.map(i32::cast_unsigned), taken)
    }
);

fearless_simd::kernel!(
    /// [`Sight::look`], compiled for these instructions.
    pub(crate) fn look(_avx2: Avx2, sight: &Sight<'_>, means: &mut [[i32; WIDTH]], tables: &mut [[u8; WIDTH]]) {
        sight.look(means, tables);
    }
);
