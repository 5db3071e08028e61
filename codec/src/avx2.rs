//! Inner loops on x86-64 with AVX2: the same states, words and contexts as the portable ones.

use std::arch::x86_64::*;

use crate::context::TABLES_MAX;
use crate::model::{Models, SLOTS_BITS, Step};
use crate::rans::{BLOCK, LOWEST, WordBlock, Words};
use crate::sight::{Hand, Sight, WIDTH, chunk, used};
use crate::simd::Avx2;
use crate::table::Span;
use fearless_simd::{i16x8, i16x16, i32x8, prelude::*, u8x16, u16x16, u32x4, u32x8};

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

/// For each set of lanes, which of the next words each lane of it takes; any for the others.
static SHARE: [u64; 256] = share();

const fn share() -> [u64; 256] {
    let mut table = [0; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut word) = (0, 0);
        while lane < 8 {
            table[set] |= word << (8 * lane);
            word += (set >> lane & 1) as u64;
            lane += 1;
        }
        set += 1;
    }
    table
}

/// Four fields of eight entries or steps.
type Lanes = [__m256i; 4];

fearless_simd::kernel!(
    /// Codes whole groups of eight entries, one per lane, from the last to the first; the `states` take turns, the last
    /// ones first. Words go to the front of `words`, which has room for one word per entry and eight more; returns their
    /// number.
    pub(crate) fn encode(
        avx2: Avx2,
        states: &mut [[u32; 8]],
        groups: &[[u16; 8]],
        steps: &[Step],
        words: &mut WordBlock,
    ) -> usize {
        let mut taken = 0;
        if let [states] = states {
            let mut state = <__m256i>::from(u32x8::from_slice(avx2, states));
            for group in groups.iter().rev() {
                state = put(state, gather(group, steps), words, &mut taken);
            }
            let state: u32x8<_> = state.simd_into(avx2);
            *states = state.into();
            return taken;
        }
        for turn in groups.rchunks_exact(states.len()) {
            for (states, group) in states.iter_mut().zip(turn).rev() {
                let state = <__m256i>::from(u32x8::from_slice(avx2, states));
                let state: u32x8<_> = put(state, gather(group, steps), words, &mut taken).simd_into(avx2);
                *states = state.into();
            }
        }
        taken
    }
);

fearless_simd::kernel!(
    /// As [`encode`], for four lanes.
    pub(crate) fn encode_four(
        avx2: Avx2,
        states: &mut [u32; 4],
        groups: &[[u16; 4]],
        steps: &[Step],
        words: &mut WordBlock,
    ) -> usize {
        let mut taken = 0;
        let half = _mm_set1_epi32(0xffff);
        let mut state = <__m128i>::from(u32x4::from_slice(avx2, states));
        for group in groups.iter().rev() {
            let [row0, row1, row2, row3] = group.map(|entry| {
                let Step([low, high]) = steps[usize::from(entry)];
                _mm_set_epi64x(high.cast_signed(), low.cast_signed())
            });
            let front = (_mm_unpacklo_epi32(row0, row1), _mm_unpacklo_epi32(row2, row3));
            let back = (_mm_unpackhi_epi32(row0, row1), _mm_unpackhi_epi32(row2, row3));
            let limit = _mm_unpacklo_epi64(front.0, front.1);
            let reciprocal = _mm_unpackhi_epi64(front.0, front.1);
            let start_gap = _mm_unpacklo_epi64(back.0, back.1);
            let shift = _mm_sub_epi32(_mm_unpackhi_epi64(back.0, back.1), _mm_set1_epi32(32));

            let below = _mm_cmpgt_epi32(limit, state);
            let full = !_mm_movemask_ps(_mm_castsi128_ps(below)) as usize & 0xf;
            let low = _mm_packus_epi32(_mm_and_si128(state, half), _mm_setzero_si128());
            let given = _mm_shuffle_epi8(low, _mm_set_epi64x(0, ORDER[full][0].cast_signed()));
            let at = taken % 256 * 2;
            words[at..at + 8].copy_from_slice(&_mm_cvtsi128_si64(given).to_le_bytes());
            taken += full.count_ones() as usize;

            let ready = _mm_blendv_epi8(_mm_srli_epi32::<16>(state), state, below);
            let even = _mm_mul_epu32(ready, reciprocal);
            let odd = _mm_mul_epu32(_mm_srli_epi64::<32>(ready), _mm_srli_epi64::<32>(reciprocal));
            let product = _mm_blend_epi32::<0b1010>(_mm_srli_epi64::<32>(even), odd);
            let moved = _mm_mullo_epi32(_mm_srlv_epi32(product, shift), _mm_srli_epi32::<16>(start_gap));
            state = _mm_add_epi32(_mm_add_epi32(ready, _mm_and_si128(start_gap, half)), moved);
        }
        let state: u32x4<_> = state.simd_into(avx2);
        *states = state.into();
        taken
    }
);

fearless_simd::kernel!(
    /// Decodes whole groups of eight values, one per lane, which have these tables. Returns how many words were taken, and
    /// whether a value is an escape.
    pub(crate) fn decode(
        avx2: Avx2,
        states: &mut [u32; 8],
        models: &Models,
        precision: u32,
        tables: &[[u8; 8]],
        words: &Words,
        values: &mut [[i16; 8]],
    ) -> (usize, bool) {
        let (mut taken, mut seen) = (0, _mm256_setzero_si256());
        let mut state = <__m256i>::from(u32x8::from_slice(avx2, states));
        for (values, tables) in values.iter_mut().zip(tables) {
            let [span, value] = find(avx2, state, models, precision, tables);
            seen = _mm256_or_si256(seen, value);
            *values = listed(avx2, value);
            state = take(avx2, state, span, precision, words, &mut taken);
        }
        let state: u32x8<_> = state.simd_into(avx2);
        *states = state.into();
        (taken, _mm256_movemask_ps(_mm256_castsi256_ps(seen)) != 0)
    }
);

/// The entries of eight states' slots, in two halves: start and frequency, value and escape.
#[inline]
#[target_feature(enable = "avx2")]
fn find(avx2: Avx2, state: __m256i, models: &Models, precision: u32, tables: &[u8; 8]) -> [__m256i; 2] {
    let slot = _mm256_and_si256(state, _mm256_set1_epi32((1 << precision) - 1));
    let first = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*tables)));
    let first = _mm256_sll_epi32(first, _mm_cvtsi32_si128((precision - SLOTS_BITS).cast_signed()));
    let places: u32x8<_> =
        _mm256_add_epi32(first, _mm256_srl_epi32(slot, _mm_cvtsi32_si128(SLOTS_BITS.cast_signed()))).simd_into(avx2);
    let places = <[u32; 8]>::from(places);
    let index = models.index();
    let pair = |lane: usize| {
        let [first, second] = models.pair(index[places[lane] as usize].into());
        _mm_set_epi64x(second.bits().cast_signed(), first.bits().cast_signed())
    };
    let row = |lane: usize| _mm256_set_m128i(pair(lane + 4), pair(lane));
    let [span, value, next_span, next_value] = transpose([row(0), row(1), row(2), row(3)]);
    let half = _mm256_set1_epi32(0xffff);
    let before = _mm256_cmpgt_epi32(_mm256_and_si256(next_span, half), slot);
    let span = _mm256_blendv_epi8(next_span, span, before);
    let value = _mm256_blendv_epi8(next_value, value, before);
    let over = _mm256_sub_epi32(slot, _mm256_and_si256(span, half));
    let found = _mm256_cmpgt_epi32(_mm256_srli_epi32::<16>(span), over);
    if _mm256_movemask_epi8(found) == -1 {
        return [span, value];
    }
    let slots: u32x8<_> = slot.simd_into(avx2);
    let [span, value] = search(models, &places, slots.into());
    [u32x8::from_slice(avx2, &span).into(), u32x8::from_slice(avx2, &value).into()]
}

/// As [`find`], one after the other.
#[cold]
fn search(models: &Models, places: &[u32; 8], slots: [u32; 8]) -> [[u32; 8]; 2] {
    let mut halves = [[0; 8]; 2];
    for (lane, (&place, slot)) in places.iter().zip(slots).enumerate() {
        let entry = models.entry(models.index()[place as usize].into(), slot).bits();
        (halves[0][lane], halves[1][lane]) = (entry as u32, (entry >> 32) as u32);
    }
    halves
}

/// The values of eight entries.
#[inline]
#[target_feature(enable = "avx2")]
fn listed(avx2: Avx2, values: __m256i) -> [i16; 8] {
    let values = _mm256_and_si256(values, _mm256_set1_epi32(0xffff));
    let values = _mm_packus_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values));
    let values: i16x8<_> = values.simd_into(avx2);
    values.into()
}

/// The states after these entries are decoded.
#[inline]
#[target_feature(enable = "avx2")]
fn take(
    avx2: Avx2,
    state: __m256i,
    span: __m256i,
    precision: u32,
    words: &Words,
    taken: &mut usize,
) -> __m256i {
    let slot = _mm256_and_si256(state, _mm256_set1_epi32((1 << precision) - 1));
    let over = _mm256_sub_epi32(slot, _mm256_and_si256(span, _mm256_set1_epi32(0xffff)));
    let whole = _mm256_srl_epi32(state, _mm_cvtsi32_si128(precision.cast_signed()));
    let next = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32::<16>(span), whole), over);
    // States are below 2^31, so the signed comparison is right.
    let short = _mm256_cmpgt_epi32(_mm256_set1_epi32(LOWEST.cast_signed()), next);
    let set = _mm256_movemask_ps(_mm256_castsi256_ps(short)) as usize & 0xff;
    let at = *taken % BLOCK;
    *taken += set.count_ones() as usize;
    let given: u8x16<_> = u8x16::from_slice(avx2, words[at..at + 8].as_flattened());
    let share = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(SHARE[set].cast_signed()));
    let given = _mm256_permutevar8x32_epi32(_mm256_cvtepu16_epi32(given.into()), share);
    _mm256_blendv_epi8(next, _mm256_or_si256(_mm256_slli_epi32::<16>(next), given), short)
}

/// Four fields of eight steps, transposed into four vectors of eight lanes: limit, reciprocal, start and gap, shift.
#[inline]
#[target_feature(enable = "avx2")]
fn gather(group: &[u16; 8], steps: &[Step]) -> Lanes {
    let load = |entry: u16| {
        let Step([low, high]) = steps[usize::from(entry)];
        _mm_set_epi64x(high.cast_signed(), low.cast_signed())
    };
    let row = |lane: usize| _mm256_set_m128i(load(group[lane + 4]), load(group[lane]));
    transpose([row(0), row(1), row(2), row(3)])
}

/// Lanes 0 and 4, 1 and 5, 2 and 6, 3 and 7 to one vector for each of their four fields.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose([row0, row1, row2, row3]: [__m256i; 4]) -> Lanes {
    let front = (_mm256_unpacklo_epi32(row0, row1), _mm256_unpacklo_epi32(row2, row3));
    let back = (_mm256_unpackhi_epi32(row0, row1), _mm256_unpackhi_epi32(row2, row3));
    [
        _mm256_unpacklo_epi64(front.0, front.1),
        _mm256_unpackhi_epi64(front.0, front.1),
        _mm256_unpacklo_epi64(back.0, back.1),
        _mm256_unpackhi_epi64(back.0, back.1),
    ]
}

/// The states after one entry each.
#[inline]
#[target_feature(enable = "avx2")]
fn put(
    state: __m256i,
    [limit, reciprocal, start_gap, shift]: Lanes,
    words: &mut WordBlock,
    taken: &mut usize,
) -> __m256i {
    let half = _mm256_set1_epi32(0xffff);
    // States and limits are below 2^31, so the signed comparison is right.
    let below = _mm256_cmpgt_epi32(limit, state);
    let full = !_mm256_movemask_ps(_mm256_castsi256_ps(below)) as usize & 0xff;
    let low = _mm256_and_si256(state, half);
    let low: __m128i = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
    let [first, second] = ORDER[full];
    let given = _mm_shuffle_epi8(low, _mm_set_epi64x(second.cast_signed(), first.cast_signed()));
    let at = *taken % 256 * 2;
    words[at..at + 8].copy_from_slice(&_mm_cvtsi128_si64(given).to_le_bytes());
    words[at + 8..at + 16].copy_from_slice(&_mm_extract_epi64::<1>(given).to_le_bytes());
    *taken += full.count_ones() as usize;

    let ready = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(state), state, below);
    let even = _mm256_mul_epu32(ready, reciprocal);
    let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(ready), _mm256_srli_epi64::<32>(reciprocal));
    let product = _mm256_blend_epi32::<0b1010_1010>(_mm256_srli_epi64::<32>(even), odd);
    let quotient = _mm256_srlv_epi32(product, _mm256_sub_epi32(shift, _mm256_set1_epi32(32)));
    let moved = _mm256_mullo_epi32(quotient, _mm256_srli_epi32::<16>(start_gap));
    _mm256_add_epi32(_mm256_add_epi32(ready, _mm256_and_si256(start_gap, half)), moved)
}

impl Hand for Avx2 {
    #[inline(always)]
    fn means(self, sight: &Sight<'_>, symbols: &[i16], at: usize) -> [i32; WIDTH] {
        means(self, sight, symbols, at)
    }

    #[inline(always)]
    fn tables(self, sight: &Sight<'_>, magnitudes: &[i16], at: usize, means: &[i32; WIDTH]) -> [u8; WIDTH] {
        tables(self, sight, magnitudes, at, means)
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
        spans: &[Span; TABLES_MAX],
        tables: &[u8; WIDTH],
        values: &[i16; WIDTH],
        count: usize,
    ) -> ([u16; WIDTH], bool) {
        entries(self, spans, tables, values, count)
    }
}

fearless_simd::kernel!(
    #[inline(always)]
    fn means(avx2: Avx2, sight: &Sight<'_>, symbols: &[i16], at: usize) -> [i32; WIDTH] {
        let mut sums = [_mm256_set1_epi32(sight.mean_bias); 2];
        for pair in sight.mean_pairs {
            let terms = pair.offsets.map(|offset| load(avx2, symbols, at.wrapping_add_signed(offset)));
            sums = add(sums, terms, pair.weights);
        }
        let mut means = [0; WIDTH];
        for (half, sum) in means.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
            let sum: i32x8<_> = _mm256_srai_epi32::<8>(sum).simd_into(avx2);
            *half = sum.into();
        }
        means
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn values(avx2: Avx2, symbols: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        let values: i16x16<_> =
            _mm256_sub_epi16(load(avx2, symbols, 0), base(halves(avx2, means))).simd_into(avx2);
        values.into()
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn symbols(avx2: Avx2, values: &[i16; WIDTH], means: &[i32; WIDTH]) -> [i16; WIDTH] {
        let symbols: i16x16<_> =
            _mm256_add_epi16(load(avx2, values, 0), base(halves(avx2, means))).simd_into(avx2);
        symbols.into()
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
        let magnitudes: i16x16<_> = _mm256_packs_epi32(low, high).simd_into(avx2);
        magnitudes.into()
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn tables(
        avx2: Avx2,
        sight: &Sight<'_>,
        magnitudes: &[i16],
        at: usize,
        means: &[i32; WIDTH],
    ) -> [u8; WIDTH] {
        let terms = [load(avx2, sight.far, at), load(avx2, sight.wide, at)];
        let mut sums = add([_mm256_set1_epi32(sight.activity_bias); 2], terms, sight.weights);
        for pair in sight.activity_pairs {
            let terms = pair.offsets.map(|offset| load(avx2, magnitudes, at.wrapping_add_signed(offset)));
            sums = add(sums, terms, pair.weights);
        }
        // Packing undoes the order of unpacking, and what does not fit 16 bits is above every top either way.
        let shift = _mm_cvtsi32_si128(sight.context.shift.into());
        let [low, high] = sums.map(|sum| _mm256_sra_epi32(sum, shift));
        let level = _mm256_max_epi16(_mm256_packs_epi32(low, high), _mm256_setzero_si256());
        let mut shapes = [_mm256_setzero_si256(); 2];
        for tops in sight.context.tops.as_chunks().0 {
            let above = |top: &[i16; WIDTH]| _mm256_cmpgt_epi16(level, load(avx2, top, 0));
            let [first, second] = tops;
            shapes = [_mm256_sub_epi16(shapes[0], above(first)), _mm256_sub_epi16(shapes[1], above(second))];
        }
        let shape = _mm256_add_epi16(shapes[0], shapes[1]);
        let [low, high] = halves(avx2, means).map(|means| _mm256_and_si256(means, _mm256_set1_epi32(3)));
        let fraction = _mm256_packs_epi32(low, high);
        let table = _mm256_or_si256(_mm256_slli_epi16::<2>(shape), fraction);
        let packed = _mm_packus_epi16(_mm256_castsi256_si128(table), _mm256_extracti128_si256::<1>(table));
        let packed: u8x16<_> = packed.simd_into(avx2);
        packed.into()
    }
);

fearless_simd::kernel!(
    #[inline(always)]
    fn entries(
        avx2: Avx2,
        spans: &[Span; TABLES_MAX],
        tables: &[u8; WIDTH],
        values: &[i16; WIDTH],
        count: usize,
    ) -> ([u16; WIDTH], bool) {
        let named = tables.map(|table| spans[usize::from(table) % TABLES_MAX]);
        let span = |lane: usize| named[lane].bits().cast_signed();
        // In each half the 16-bit fields of two spans, sorted by field.
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
        let low = _mm256_unpackhi_epi64(front.0, front.1);
        let escape = _mm256_unpacklo_epi64(back.0, back.1);
        let offset = _mm256_min_epu16(_mm256_sub_epi16(load(avx2, values, 0), low), escape);
        let escapes = _mm256_and_si256(_mm256_cmpeq_epi16(offset, escape), load(avx2, used(count), 0));
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

/// Means in the order of unpacking, which packing undoes.
#[inline]
#[target_feature(enable = "avx2")]
fn halves(avx2: Avx2, means: &[i32; WIDTH]) -> [__m256i; 2] {
    let (front, back) = means.split_at(8);
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
