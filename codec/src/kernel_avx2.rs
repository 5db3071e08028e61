//! Contexts on x86-64 with AVX2: the same means, tables and entries as the portable ones.

use std::arch::x86_64::*;

use fearless_simd::{i16x16, i32x8, prelude::*, u8x16, u16x16};

use crate::{
    context::Spans,
    kernel::{ContextKernel, PhaseModel, Sums, WIDTH, chunk, lane_mask},
    model::MixedTables,
    rans::{DECODE_BLOCK, RansDecoder},
    simd::Avx2,
};

impl ContextKernel for Avx2 {
    #[inline(always)]
    fn sums(
        self,
        phase_model: &PhaseModel<'_>,
        symbols: (&[i16], usize),
        magnitudes: (&[i16], usize),
    ) -> Sums {
        sums(self, phase_model, symbols, magnitudes)
    }

    #[inline(always)]
    fn means(self, phase_model: &PhaseModel<'_>, sums: &Sums, neighbors: &[[i16; WIDTH]; 2]) -> [i32; WIDTH] {
        means(self, phase_model, sums, neighbors)
    }

    #[inline(always)]
    fn tables(
        self,
        phase_model: &PhaseModel<'_>,
        of: (&Sums, &[i32; WIDTH]),
        neighbors: &[[i16; WIDTH]; 2],
        count: usize,
    ) -> [u8; WIDTH] {
        tables(self, phase_model, of, neighbors, count)
    }

    #[inline(always)]
    fn shift_neighbors(self, own: &[i16; WIDTH], phase: usize) -> [[i16; WIDTH]; 2] {
        shift_neighbors(self, own, phase)
    }

    #[inline(always)]
    fn decode<const N: usize>(
        self,
        reader: &mut RansDecoder<'_, N>,
        shared: &MixedTables,
        tables: &[u8],
        values: &mut [i16],
        count: usize,
    ) -> bool {
        if (N == 8 || N == 16) && count <= DECODE_BLOCK {
            let whole = count.div_ceil(WIDTH);
            let tables = &tables.as_chunks::<8>().0.as_chunks().0[..whole];
            let values = &mut values.as_chunks_mut().0[..whole];
            if let Some(seen) = reader.decode_rounds(self, shared, tables, values, count) {
                return seen;
            }
        }
        reader.mixed(shared, tables, &mut values[..count])
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
    fn entries(self, spans: &Spans, tables: &[u8; WIDTH], values: &[i16; WIDTH]) -> ([u16; WIDTH], bool) {
        entries(self, spans, tables, values)
    }
}

fearless_simd::kernel!(
    #[inline(always)]
    fn sums(
        avx2: Avx2,
        phase_model: &PhaseModel<'_>,
        symbols: (&[i16], usize),
        magnitudes: (&[i16], usize),
    ) -> Sums {
        let (plane, from) = symbols;
        let [above, second, third] =
            phase_model.level.map(|offset| load(avx2, plane, from.wrapping_add_signed(offset)));
        let differences = _mm256_or_si256(_mm256_xor_si256(second, above), _mm256_xor_si256(third, above));
        let mut means = [_mm256_set1_epi32(phase_model.mean_bias); 2];
        for pair in phase_model.mean_pairs {
            let terms = pair.offsets.map(|offset| load(avx2, plane, from.wrapping_add_signed(offset)));
            means = add(means, terms, pair.weights);
        }
        let (magnitudes, at) = magnitudes;
        let terms = [load(avx2, phase_model.far, at), load(avx2, phase_model.wide, at)];
        let mut activities =
            add([_mm256_set1_epi32(phase_model.activity_bias); 2], terms, phase_model.weights);
        for pair in phase_model.activity_pairs {
            let terms = pair.offsets.map(|offset| load(avx2, magnitudes, at.wrapping_add_signed(offset)));
            activities = add(activities, terms, pair.weights);
        }
        Sums {
            means: whole(avx2, means),
            activities: whole(avx2, activities),
            above: narrow(avx2, above),
            differences: narrow(avx2, differences),
        }
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn means(
        avx2: Avx2,
        phase_model: &PhaseModel<'_>,
        sums: &Sums,
        neighbors: &[[i16; WIDTH]; 2],
    ) -> [i32; WIDTH] {
        let neighbors = neighbors.map(|neighbors| load(avx2, &neighbors, 0));
        let (above, zero) = (load(avx2, &sums.above, 0), _mm256_setzero_si256());
        let [left, right] = neighbors.map(|neighbors| _mm256_xor_si256(neighbors, above));
        let differences = _mm256_or_si256(_mm256_or_si256(left, right), load(avx2, &sums.differences, 0));
        let level = _mm256_cmpeq_epi16(differences, zero);
        let [low, high] = add(halves(avx2, &sums.means), neighbors, phase_model.mean_neighbors);
        let choose = |sum, level, above| {
            // Four times the symbol, which is in the upper half.
            _mm256_blendv_epi8(_mm256_srai_epi32::<8>(sum), _mm256_srai_epi32::<14>(above), level)
        };
        let low = choose(low, _mm256_unpacklo_epi16(level, level), _mm256_unpacklo_epi16(zero, above));
        let high = choose(high, _mm256_unpackhi_epi16(level, level), _mm256_unpackhi_epi16(zero, above));
        whole(avx2, [low, high])
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn shift_neighbors(avx2: Avx2, own: &[i16; WIDTH], phase: usize) -> [[i16; WIDTH]; 2] {
        let values = load(avx2, own, 0);
        if phase == 0 {
            let moved = _mm256_alignr_epi8::<2>(_mm256_permute2x128_si256::<0x81>(values, values), values);
            [*own, narrow(avx2, moved)]
        } else {
            let moved = _mm256_alignr_epi8::<14>(values, _mm256_permute2x128_si256::<0x08>(values, values));
            [narrow(avx2, moved), *own]
        }
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn values(avx2: Avx2, symbols: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        narrow(avx2, _mm256_sub_epi16(load(avx2, symbols, 0), base(halves(avx2, means))))
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn symbols(avx2: Avx2, values: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        narrow(avx2, _mm256_add_epi16(load(avx2, values, 0), base(halves(avx2, means))))
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
        let away = |wide: __m256i, mean: __m256i| {
            // Four times the symbol, which is in the upper half.
            let away = _mm256_abs_epi32(_mm256_sub_epi32(_mm256_srai_epi32::<14>(wide), mean));
            let away = _mm256_srl_epi32(away, _mm_cvtsi32_si128(coarse.into()));
            _mm256_min_epu32(away, _mm256_set1_epi32(cap.into()))
        };
        let low = away(_mm256_unpacklo_epi16(zero, symbols), low);
        let high = away(_mm256_unpackhi_epi16(zero, symbols), high);
        narrow(avx2, _mm256_packs_epi32(low, high))
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn tables(
        avx2: Avx2,
        phase_model: &PhaseModel<'_>,
        of: (&Sums, &[i32; WIDTH]),
        neighbors: &[[i16; WIDTH]; 2],
        count: usize,
    ) -> [u8; WIDTH] {
        let (sums, means) = of;
        let neighbors = neighbors.map(|neighbors| load(avx2, &neighbors, 0));
        let sums = add(halves(avx2, &sums.activities), neighbors, phase_model.activity_neighbors);
        // Packing undoes the order of unpacking, and what does not fit 16 bits is above every top either way.
        let shift = _mm_cvtsi32_si128(phase_model.context.shift.into());
        let [low, high] = sums.map(|sum| _mm256_sra_epi32(sum, shift));
        let level = _mm256_max_epi16(_mm256_packs_epi32(low, high), _mm256_setzero_si256());
        let mut shapes = [_mm256_setzero_si256(); 2];
        for tops in phase_model.context.tops.as_chunks().0 {
            let above = |top: &[i16; WIDTH]| _mm256_cmpgt_epi16(level, load(avx2, top, 0));
            let [first, second] = tops;
            shapes = [_mm256_sub_epi16(shapes[0], above(first)), _mm256_sub_epi16(shapes[1], above(second))];
        }
        let shape = _mm256_add_epi16(shapes[0], shapes[1]);
        let [low, high] = halves(avx2, means).map(|means| _mm256_and_si256(means, _mm256_set1_epi32(3)));
        let fraction = _mm256_packs_epi32(low, high);
        let table = _mm256_or_si256(_mm256_slli_epi16::<2>(shape), fraction);
        let nothing = _mm256_set1_epi16(phase_model.context.nothing.into());
        let table = _mm256_blendv_epi8(nothing, table, load(avx2, lane_mask(count), 0));
        let packed = _mm_packus_epi16(_mm256_castsi256_si128(table), _mm256_extracti128_si256::<1>(table));
        let packed: u8x16<_> = packed.simd_into(avx2);
        packed.into()
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn entries(
        avx2: Avx2,
        spans: &Spans,
        tables: &[u8; WIDTH],
        values: &[i16; WIDTH],
    ) -> ([u16; WIDTH], bool) {
        let span = |lane: usize| spans[usize::from(tables[lane])].bits().cast_signed();
        // In each half the 16-bit fields of two spans, sorted by field: the first of four holds all that counts of `first`.
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

#[inline]
#[target_feature(enable = "avx2")]
fn load(avx2: Avx2, plane: &[i16], place: usize) -> __m256i {
    let values: i16x16<_> = (*chunk(plane, place)).simd_into(avx2);
    values.into()
}

#[inline]
#[target_feature(enable = "avx2")]
fn narrow(avx2: Avx2, values: __m256i) -> [i16; WIDTH] {
    let values: i16x16<_> = values.simd_into(avx2);
    values.into()
}

/// Both halves, in the order of unpacking.
#[inline]
#[target_feature(enable = "avx2")]
fn whole(avx2: Avx2, halves: [__m256i; 2]) -> [i32; WIDTH] {
    let mut whole = [0; WIDTH];
    for (to, half) in whole.as_chunks_mut::<8>().0.iter_mut().zip(halves) {
        let half: i32x8<_> = half.simd_into(avx2);
        *to = half.into();
    }
    whole
}

/// Sums or means in the order of unpacking, which packing undoes.
#[inline]
#[target_feature(enable = "avx2")]
fn halves(avx2: Avx2, whole: &[i32; WIDTH]) -> [__m256i; 2] {
    let (front, back) = whole.split_at(8);
    [i32x8::from_slice(avx2, front).into(), i32x8::from_slice(avx2, back).into()]
}

/// The whole symbols in means, cut to 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn base(means: [__m256i; 2]) -> __m256i {
    let cut = |means| _mm256_blend_epi16::<0xaa>(_mm256_srli_epi32::<2>(means), _mm256_setzero_si256());
    let [low, high] = means.map(cut);
    _mm256_packus_epi32(low, high)
}

/// Adds both terms times their weights, in the order of unpacking.
#[inline]
#[target_feature(enable = "avx2")]
fn add([low, high]: [__m256i; 2], [first, second]: [__m256i; 2], weights: [i16; 2]) -> [__m256i; 2] {
    let weights = both(weights);
    [
        _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(first, second), weights)),
        _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(first, second), weights)),
    ]
}

/// Two weights in each lane of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn both([first, second]: [i16; 2]) -> __m256i {
    _mm256_set1_epi32(i32::from(second) << 16 | i32::from(first.cast_unsigned()))
}
