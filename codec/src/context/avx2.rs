//! The context model's operations for x86-64 with AVX2. They compute the same as the portable ones.
//!
//! Sums and means of a chunk are two vectors of 32-bit lanes in the order in which unpacking leaves them: in each half of
//! 128 bits the lower four symbols in the first, the upper four in the second. Packing restores the order of symbols.

use std::arch::x86_64::*;

use fearless_simd::{i16x16, i32x8, prelude::*, u8x16, u16x16};

use crate::{
    context::{
        kernel::{ContextKernel, Sums},
        lanes::{WIDTH, chunk, lane_mask},
        phase::PhaseModel,
    },
    rans::{
        decoder::RansDecoder,
        table_set::{MixedTableSet, Span},
        words::DECODE_BLOCK,
    },
    simd::Avx2,
};

impl ContextKernel for Avx2 {
    fn prepare_thresholds(self, thresholds: &[u16], prepared: &mut Vec<[i16; WIDTH]>) {
        // One less than each threshold, for comparisons by "greater than", in every lane. They are compared two by two, so
        // one that is never exceeded makes their number even.
        prepared.clear();
        prepared.extend(thresholds.iter().map(|threshold| [threshold.cast_signed() - 1; WIDTH]));
        if prepared.len() % 2 == 1 {
            prepared.push([i16::MAX; WIDTH]);
        }
    }

    #[inline(always)]
    fn sums(self, phase: &PhaseModel<'_>, symbols: (&[i16], usize), magnitudes: (&[i16], usize)) -> Sums {
        sums(self, phase, symbols, magnitudes)
    }

    #[inline(always)]
    fn means(self, phase: &PhaseModel<'_>, sums: &Sums, neighbors: &[[i16; WIDTH]; 2]) -> [i32; WIDTH] {
        means(self, phase, sums, neighbors)
    }

    #[inline(always)]
    fn tables(
        self,
        phase: &PhaseModel<'_>,
        predicted: (&Sums, &[i32; WIDTH]),
        neighbors: &[[i16; WIDTH]; 2],
        count: usize,
    ) -> [u8; WIDTH] {
        tables(self, phase, predicted, neighbors, count)
    }

    #[inline(always)]
    fn shift_neighbors(self, own: &[i16; WIDTH], phase: usize) -> [[i16; WIDTH]; 2] {
        shift_neighbors(self, own, phase)
    }

    #[inline(always)]
    fn decode<const N: usize>(
        self,
        decoder: &mut RansDecoder<'_, N>,
        set: &MixedTableSet,
        tables: &[u8],
        values: &mut [i16],
        count: usize,
    ) -> bool {
        if (N == 8 || N == 16) && count <= DECODE_BLOCK {
            let chunks = count.div_ceil(WIDTH);
            let tables = &tables.as_chunks::<8>().0.as_chunks().0[..chunks];
            let values = &mut values.as_chunks_mut().0[..chunks];
            if let Some(escapes) = decoder.mixed_rounds(self, &set.lookup, tables, values, count) {
                return escapes;
            }
        }
        decoder.mixed_run(&set.lookup, tables, &mut values[..count])
    }

    #[inline(always)]
    fn values(self, symbols: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        values(self, symbols, means)
    }

    #[inline(always)]
    fn symbols(self, values: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        symbols(self, values, means)
    }

    #[inline(always)]
    fn magnitudes(self, symbols: &[i16; WIDTH], means: &[i32; WIDTH], limits: (u8, u8)) -> [i16; WIDTH] {
        magnitudes(self, symbols, means, limits)
    }

    #[inline(always)]
    fn entries(
        self,
        spans: &[Span; 256],
        tables: &[u8; WIDTH],
        values: &[i16; WIDTH],
    ) -> ([u16; WIDTH], bool) {
        entries(self, spans, tables, values)
    }
}

fearless_simd::kernel!(
    #[inline(always)]
    fn sums(
        avx2: Avx2,
        phase: &PhaseModel<'_>,
        symbols: (&[i16], usize),
        magnitudes: (&[i16], usize),
    ) -> Sums {
        let (plane, from) = symbols;
        let [above, second, third] =
            phase.earlier.map(|offset| load(avx2, plane, from.wrapping_add_signed(offset)));
        let differences = _mm256_or_si256(_mm256_xor_si256(second, above), _mm256_xor_si256(third, above));
        let mut means = [_mm256_set1_epi32(phase.mean_bias); 2];
        for pair in phase.mean_terms {
            let terms = pair.offsets.map(|offset| load(avx2, plane, from.wrapping_add_signed(offset)));
            means = add(means, terms, pair.weights);
        }
        let (magnitudes, at) = magnitudes;
        let terms = [load(avx2, phase.far, at), load(avx2, phase.wide, at)];
        let mut activities = add([_mm256_set1_epi32(phase.activity_bias); 2], terms, phase.far_weights);
        for pair in phase.activity_terms {
            let terms = pair.offsets.map(|offset| load(avx2, magnitudes, at.wrapping_add_signed(offset)));
            activities = add(activities, terms, pair.weights);
        }
        Sums {
            means: to_array(avx2, means),
            activities: to_array(avx2, activities),
            above: narrow(avx2, above),
            differences: narrow(avx2, differences),
        }
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn means(avx2: Avx2, phase: &PhaseModel<'_>, sums: &Sums, neighbors: &[[i16; WIDTH]; 2]) -> [i32; WIDTH] {
        let neighbors = neighbors.map(|neighbors| load(avx2, &neighbors, 0));
        let (above, zero) = (load(avx2, &sums.above, 0), _mm256_setzero_si256());
        let [left, right] = neighbors.map(|neighbors| _mm256_xor_si256(neighbors, above));
        let differences = _mm256_or_si256(_mm256_or_si256(left, right), load(avx2, &sums.differences, 0));
        let all_equal = _mm256_cmpeq_epi16(differences, zero);
        let [low, high] = add(halves(avx2, &sums.means), neighbors, phase.mean_weights);
        let choose = |sum, all_equal, above| {
            // The symbol is in the upper half of its lane; shifted by 14 it is four times its value.
            _mm256_blendv_epi8(_mm256_srai_epi32::<8>(sum), _mm256_srai_epi32::<14>(above), all_equal)
        };
        let low =
            choose(low, _mm256_unpacklo_epi16(all_equal, all_equal), _mm256_unpacklo_epi16(zero, above));
        let high =
            choose(high, _mm256_unpackhi_epi16(all_equal, all_equal), _mm256_unpackhi_epi16(zero, above));
        to_array(avx2, [low, high])
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn shift_neighbors(avx2: Avx2, own: &[i16; WIDTH], phase: usize) -> [[i16; WIDTH]; 2] {
        let values = load(avx2, own, 0);
        if phase == 0 {
            let shifted = _mm256_alignr_epi8::<2>(_mm256_permute2x128_si256::<0x81>(values, values), values);
            [*own, narrow(avx2, shifted)]
        } else {
            let shifted = _mm256_alignr_epi8::<14>(values, _mm256_permute2x128_si256::<0x08>(values, values));
            [narrow(avx2, shifted), *own]
        }
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn values(avx2: Avx2, symbols: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        narrow(avx2, _mm256_sub_epi16(load(avx2, symbols, 0), whole_symbols(halves(avx2, means))))
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn symbols(avx2: Avx2, values: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        narrow(avx2, _mm256_add_epi16(load(avx2, values, 0), whole_symbols(halves(avx2, means))))
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn magnitudes(
        avx2: Avx2,
        symbols: &[i16; WIDTH],
        means: &[i32; WIDTH],
        limits: (u8, u8),
    ) -> [i16; WIDTH] {
        let (cap, coarse) = limits;
        let (symbols, zero) = (load(avx2, symbols, 0), _mm256_setzero_si256());
        let [low, high] = halves(avx2, means);
        let distance = |symbol: __m256i, mean: __m256i| {
            // The symbol is in the upper half of its lane; shifted by 14 it is four times its value.
            let distance = _mm256_abs_epi32(_mm256_sub_epi32(_mm256_srai_epi32::<14>(symbol), mean));
            let distance = _mm256_srl_epi32(distance, _mm_cvtsi32_si128(coarse.into()));
            _mm256_min_epu32(distance, _mm256_set1_epi32(cap.into()))
        };
        let low = distance(_mm256_unpacklo_epi16(zero, symbols), low);
        let high = distance(_mm256_unpackhi_epi16(zero, symbols), high);
        narrow(avx2, _mm256_packs_epi32(low, high))
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn tables(
        avx2: Avx2,
        phase: &PhaseModel<'_>,
        predicted: (&Sums, &[i32; WIDTH]),
        neighbors: &[[i16; WIDTH]; 2],
        count: usize,
    ) -> [u8; WIDTH] {
        let (sums, means) = predicted;
        let neighbors = neighbors.map(|neighbors| load(avx2, &neighbors, 0));
        let sums = add(halves(avx2, &sums.activities), neighbors, phase.activity_weights);
        // Packing saturates: an activity that does not fit 16 bits is above every threshold either way.
        let shift = _mm_cvtsi32_si128(phase.shift.into());
        let [low, high] = sums.map(|sum| _mm256_sra_epi32(sum, shift));
        let activity = _mm256_max_epi16(_mm256_packs_epi32(low, high), _mm256_setzero_si256());
        let mut shapes = [_mm256_setzero_si256(); 2];
        for pair in phase.thresholds.as_chunks().0 {
            let exceeds = |threshold: &[i16; WIDTH]| _mm256_cmpgt_epi16(activity, load(avx2, threshold, 0));
            let [first, second] = pair;
            shapes =
                [_mm256_sub_epi16(shapes[0], exceeds(first)), _mm256_sub_epi16(shapes[1], exceeds(second))];
        }
        let shape = _mm256_add_epi16(shapes[0], shapes[1]);
        let [low, high] = halves(avx2, means).map(|means| _mm256_and_si256(means, _mm256_set1_epi32(3)));
        let fraction = _mm256_packs_epi32(low, high);
        let table = _mm256_or_si256(_mm256_slli_epi16::<2>(shape), fraction);
        let no_value = _mm256_set1_epi16(phase.no_value.into());
        let table = _mm256_blendv_epi8(no_value, table, load(avx2, lane_mask(count), 0));
        let packed = _mm_packus_epi16(_mm256_castsi256_si128(table), _mm256_extracti128_si256::<1>(table));
        let packed: u8x16<_> = packed.simd_into(avx2);
        packed.into()
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn entries(
        avx2: Avx2,
        spans: &[Span; 256],
        tables: &[u8; WIDTH],
        values: &[i16; WIDTH],
    ) -> ([u16; WIDTH], bool) {
        let span = |lane: usize| spans[usize::from(tables[lane])].bits().cast_signed();
        // Each row holds two spans per half. This sorts their fields of 16 bits, of which the first two make up `Span::first`;
        // its lower part is all that an entry of 16 bits needs.
        let sorted = _mm256_set_epi64x(
            0x0f0e_0706_0d0c_0504,
            0x0b0a_0302_0908_0100,
            0x0f0e_0706_0d0c_0504,
            0x0b0a_0302_0908_0100,
        );
        let rows = [
            _mm256_set_epi64x(span(9), span(8), span(1), span(0)),
            _mm256_set_epi64x(span(11), span(10), span(3), span(2)),
            _mm256_set_epi64x(span(13), span(12), span(5), span(4)),
            _mm256_set_epi64x(span(15), span(14), span(7), span(6)),
        ];
        let rows = rows.map(|spans| _mm256_shuffle_epi8(spans, sorted));
        let front = (_mm256_unpacklo_epi32(rows[0], rows[1]), _mm256_unpacklo_epi32(rows[2], rows[3]));
        let back = (_mm256_unpackhi_epi32(rows[0], rows[1]), _mm256_unpackhi_epi32(rows[2], rows[3]));
        let first = _mm256_unpacklo_epi64(front.0, front.1);
        let low = _mm256_unpacklo_epi64(back.0, back.1);
        let escape = _mm256_unpackhi_epi64(back.0, back.1);
        let offset = _mm256_min_epu16(_mm256_sub_epi16(load(avx2, values, 0), low), escape);
        let escapes = _mm256_cmpeq_epi16(offset, escape);
        let entries: u16x16<_> = _mm256_add_epi16(first, offset).simd_into(avx2);
        (entries.into(), _mm256_movemask_epi8(escapes) != 0)
    }
);

/// The chunk that begins at index `at`.
#[inline]
#[target_feature(enable = "avx2")]
fn load(avx2: Avx2, plane: &[i16], at: usize) -> __m256i {
    let values: i16x16<_> = (*chunk(plane, at)).simd_into(avx2);
    values.into()
}

/// A vector of 16-bit lanes as an array.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow(avx2: Avx2, values: __m256i) -> [i16; WIDTH] {
    let values: i16x16<_> = values.simd_into(avx2);
    values.into()
}

/// Two vectors of 32-bit lanes as an array, in the order of unpacking.
#[inline]
#[target_feature(enable = "avx2")]
fn to_array(avx2: Avx2, halves: [__m256i; 2]) -> [i32; WIDTH] {
    let mut array = [0; WIDTH];
    for (to, half) in array.as_chunks_mut::<8>().0.iter_mut().zip(halves) {
        let half: i32x8<_> = half.simd_into(avx2);
        *to = half.into();
    }
    array
}

/// An array in the order of unpacking as two vectors of 32-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn halves(avx2: Avx2, array: &[i32; WIDTH]) -> [__m256i; 2] {
    let (front, back) = array.split_at(8);
    [i32x8::from_slice(avx2, front).into(), i32x8::from_slice(avx2, back).into()]
}

/// Means in whole symbols, rounded down, modulo 2^16.
#[inline]
#[target_feature(enable = "avx2")]
fn whole_symbols(means: [__m256i; 2]) -> __m256i {
    let low_half = |mean| _mm256_blend_epi16::<0xaa>(_mm256_srli_epi32::<2>(mean), _mm256_setzero_si256());
    let [low, high] = means.map(low_half);
    _mm256_packus_epi32(low, high)
}

/// Adds two terms times their weights.
#[inline]
#[target_feature(enable = "avx2")]
fn add([low, high]: [__m256i; 2], [first, second]: [__m256i; 2], weights: [i16; 2]) -> [__m256i; 2] {
    let weights = both(weights);
    [
        _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(first, second), weights)),
        _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(first, second), weights)),
    ]
}

/// Two weights, in every lane of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn both([first, second]: [i16; 2]) -> __m256i {
    _mm256_set1_epi32(i32::from(second) << 16 | i32::from(first.cast_unsigned()))
}
