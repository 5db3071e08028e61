//! Inner loops on x86-64 with AVX2: the same states, words and contexts as the portable ones.

use std::arch::x86_64::*;

use crate::model::Step;
use crate::rans::WordBlock;
use crate::window::{Sight, WIDTH, chunk};
use fearless_simd::{i16x16, i32x8, prelude::*, u8x16};

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
    /// [`Sight::means`].
    pub(crate) fn means(avx2: Avx2, sight: &Sight<'_>, means: &mut [[i32; WIDTH]]) {
        for (at, means) in means.iter_mut().enumerate() {
            let bias = _mm256_set1_epi32(sight.mean_bias());
            let (mut low, mut high) = (bias, bias);
            for pair in sight.mean_pairs {
                let at = sight.first + at * WIDTH;
                let [first, second] = pair.offsets.map(|offset| {
                    let values: i16x16<_> =
                        (*chunk(sight.symbols, at.wrapping_add_signed(offset))).simd_into(avx2);
                    <__m256i>::from(values)
                });
                let weights = both(pair.weights);
                low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(first, second), weights));
                high =
                    _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(first, second), weights));
            }
            let (low, high) = (_mm256_srai_epi32::<8>(low), _mm256_srai_epi32::<8>(high));
            let front: i32x8<_> = _mm256_permute2x128_si256::<0x20>(low, high).simd_into(avx2);
            let back: i32x8<_> = _mm256_permute2x128_si256::<0x31>(low, high).simd_into(avx2);
            means[..8].copy_from_slice(&<[i32; 8]>::from(front));
            means[8..].copy_from_slice(&<[i32; 8]>::from(back));
        }
    }
);

fearless_simd::kernel!(
    /// [`Sight::tables`].
    pub(crate) fn tables(avx2: Avx2, sight: &Sight<'_>, means: &[[i32; WIDTH]], tables: &mut [[u8; WIDTH]]) {
        let activity = sight.rules.activities[sight.phase];
        let shift = _mm_cvtsi32_si128(sight.context.shift.into());
        let load = |plane, place| {
            let values: i16x16<_> = (*chunk(plane, place)).simd_into(avx2);
            <__m256i>::from(values)
        };
        for (at, (means, tables)) in means.iter().zip(tables).enumerate() {
            let at = sight.at + at * WIDTH;
            let bias = _mm256_set1_epi32(sight.activity_bias());
            let (far, wide) = (load(sight.far, at), load(sight.wide, at));
            let weights = both([activity.far, activity.wide]);
            let mut low =
                _mm256_add_epi32(bias, _mm256_madd_epi16(_mm256_unpacklo_epi16(far, wide), weights));
            let mut high =
                _mm256_add_epi32(bias, _mm256_madd_epi16(_mm256_unpackhi_epi16(far, wide), weights));
            for pair in sight.activity_pairs {
                let [first, second] =
                    pair.offsets.map(|offset| load(sight.magnitudes, at.wrapping_add_signed(offset)));
                let weights = both(pair.weights);
                low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(first, second), weights));
                high =
                    _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(first, second), weights));
            }
            // Packing undoes the order of unpacking, and what does not fit 16 bits is above every top either way.
            let level = _mm256_packs_epi32(_mm256_sra_epi32(low, shift), _mm256_sra_epi32(high, shift));
            let level = _mm256_max_epi16(level, _mm256_setzero_si256());
            let mut shape = _mm256_setzero_si256();
            for &top in &sight.context.tops {
                shape = _mm256_sub_epi16(shape, _mm256_cmpgt_epi16(level, _mm256_set1_epi16(top)));
            }
            let half = |from: &[i32]| {
                let half: i32x8<_> = <[i32; 8]>::try_from(from).expect("half of a chunk").simd_into(avx2);
                _mm256_and_si256(half.into(), _mm256_set1_epi32(3))
            };
            let (front, back) = means.split_at(8);
            let fraction = _mm256_packs_epi32(half(front), half(back));
            let fraction = _mm256_permute4x64_epi64::<0b11_01_10_00>(fraction);
            let table = _mm256_or_si256(_mm256_slli_epi16::<2>(shape), fraction);
            let packed =
                _mm_packus_epi16(_mm256_castsi256_si128(table), _mm256_extracti128_si256::<1>(table));
            let packed: u8x16<_> = packed.simd_into(avx2);
            *tables = packed.into();
        }
    }
);

fearless_simd::kernel!(
    /// [`settle`](crate::window::settle), compiled for these instructions.
    pub(crate) fn settle(
        _avx2: Avx2,
        magnitudes: &mut [i16],
        symbols: &[i16],
        means: &[i32],
        limits: (u8, u8),
    ) {
        crate::window::settle(magnitudes, symbols, means, limits);
    }
);

/// Two weights in each lane of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn both([first, second]: [i16; 2]) -> __m256i {
    _mm256_set1_epi32(i32::from(second) << 16 | i32::from(first.cast_unsigned()))
}
