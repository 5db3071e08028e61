//! Inner loops on x86-64 with AVX2: the same states and words as the portable ones.

use std::arch::x86_64::*;

use fearless_simd::{i16x8, i16x16, prelude::*, u8x16, u32x4, u32x8};

use crate::{
    model::{BUCKET_BITS, DecodeTables, EncodeEntry, MixedTables, RANGE_BITS, Range, RunTable},
    rans::{DECODE_BLOCK, ENCODE_BLOCK, LOWEST, WordBlock, Words},
    simd::Avx2,
};

/// For each set of lanes, where the bytes of their words come from: the highest lane's first.
static PACK_ORDER: [[u64; 2]; 256] = order();

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

/// For each set of lanes, where the bytes of the next words come from that the other lanes take; any for those of the set.
static WORD_ORDER: [[u64; 2]; 256] = share();

const fn share() -> [[u64; 2]; 256] {
    let mut table = [[0; 2]; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut word) = (0, 0);
        while lane < 8 {
            let bytes = (2 * word) | ((2 * word + 1) << 8);
            table[set][lane / 4] |= bytes << (16 * (lane % 4));
            word += (!set >> lane & 1) as u64;
            lane += 1;
        }
        set += 1;
    }
    table
}

/// Four fields of eight entries or encode_entries.
type Lanes = [__m256i; 4];

fearless_simd::kernel!(
    /// Codes whole groups of eight entries, one per lane, from the last to the first; the `states` take turns, the last
    /// ones first. Words go to the front of `words`, which has room for one word per entry and eight more; returns their
    /// number.
    pub(crate) fn encode(
        avx2: Avx2,
        states: &mut [[u32; 8]],
        groups: &[[u16; 8]],
        encode_entries: &[EncodeEntry],
        words: &mut WordBlock,
    ) -> usize {
        let mut taken = 0;
        if let [states] = states {
            let mut state = <__m256i>::from(u32x8::from_slice(avx2, states));
            for group in groups.iter().rev() {
                state = put(state, gather(group, encode_entries), words, &mut taken);
            }
            let state: u32x8<_> = state.simd_into(avx2);
            *states = state.into();
            return taken;
        }
        for round in groups.rchunks_exact(states.len()) {
            for (states, group) in states.iter_mut().zip(round).rev() {
                let state = <__m256i>::from(u32x8::from_slice(avx2, states));
                let state: u32x8<_> =
                    put(state, gather(group, encode_entries), words, &mut taken).simd_into(avx2);
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
        encode_entries: &[EncodeEntry],
        words: &mut WordBlock,
    ) -> usize {
        let mut taken = 0;
        let half = _mm_set1_epi32(0xffff);
        let mut state = <__m128i>::from(u32x4::from_slice(avx2, states));
        for group in groups.iter().rev() {
            let [row0, row1, row2, row3] = group.map(|entry| {
                let EncodeEntry([low, high]) = encode_entries[usize::from(entry)];
                _mm_set_epi64x(high.cast_signed(), low.cast_signed())
            });
            let front = (_mm_unpacklo_epi32(row0, row1), _mm_unpacklo_epi32(row2, row3));
            let back = (_mm_unpackhi_epi32(row0, row1), _mm_unpackhi_epi32(row2, row3));
            let last = _mm_unpacklo_epi64(front.0, front.1);
            let reciprocal = _mm_unpackhi_epi64(front.0, front.1);
            let start_gap = _mm_unpacklo_epi64(back.0, back.1);
            let shift = _mm_sub_epi32(_mm_unpackhi_epi64(back.0, back.1), _mm_set1_epi32(32));

            let over = _mm_cmpgt_epi32(state, last);
            let full = _mm_movemask_ps(_mm_castsi128_ps(over)) as usize & 0xf;
            let low = _mm_packus_epi32(_mm_and_si128(state, half), _mm_setzero_si128());
            let given = _mm_shuffle_epi8(low, _mm_set_epi64x(0, PACK_ORDER[full][0].cast_signed()));
            let at = taken % ENCODE_BLOCK * 2;
            words[at..at + 8].copy_from_slice(&_mm_cvtsi128_si64(given).to_le_bytes());
            taken += full.count_ones() as usize;

            let ready = _mm_blendv_epi8(state, _mm_srli_epi32::<16>(state), over);
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
        shared: &MixedTables,
        precision: u32,
        tables: &[[u8; 8]],
        words: &Words,
        values: &mut [[i16; 8]],
    ) -> (usize, bool) {
        let (mut taken, mut seen) = (0, _mm256_setzero_si256());
        let mut state = <__m256i>::from(u32x8::from_slice(avx2, states));
        for (values, tables) in values.iter_mut().zip(tables) {
            let places = |state| named(avx2, state, shared, precision, tables);
            let [span, value] = find(avx2, state, shared, precision, places);
            seen = _mm256_or_si256(seen, value);
            *values = listed(avx2, value);
            state = take(avx2, state, span, precision, words, &mut taken);
        }
        let state: u32x8<_> = state.simd_into(avx2);
        *states = state.into();
        (taken, _mm256_movemask_ps(_mm256_castsi256_ps(seen)) != 0)
    }
);

fearless_simd::kernel!(
    /// As [`decode`], for pairs of groups of which only so many are there. To become a part of what calls it.
    #[inline(always)]
    pub(crate) fn decode_pairs(
        avx2: Avx2,
        states: &mut [u32; 8],
        models: (&MixedTables, u32),
        tables: (&[[[u8; 8]; 2]], usize),
        words: &Words,
        values: &mut [[i16; 16]],
    ) -> (usize, bool) {
        pairs(avx2, [states], models, tables, words, values)
    }
);

fearless_simd::kernel!(
    /// As [`decode_pairs`], where sixteen lanes take turns.
    #[inline(always)]
    pub(crate) fn decode_pairs_of_two(
        avx2: Avx2,
        states: [&mut [u32; 8]; 2],
        models: (&MixedTables, u32),
        tables: (&[[[u8; 8]; 2]], usize),
        words: &Words,
        values: &mut [[i16; 16]],
    ) -> (usize, bool) {
        pairs(avx2, states, models, tables, words, values)
    }
);

#[inline]
#[target_feature(enable = "avx2")]
fn pairs<const S: usize>(
    avx2: Avx2,
    states: [&mut [u32; 8]; S],
    (shared, precision): (&MixedTables, u32),
    (tables, groups): (&[[[u8; 8]; 2]], usize),
    words: &Words,
    values: &mut [[i16; 16]],
) -> (usize, bool) {
    let (mut taken, mut left) = (0, groups);
    let (half, mut seen) = (_mm256_set1_epi32(0xffff), _mm256_setzero_si256());
    let mut local = states.each_ref().map(|states| <__m256i>::from(u32x8::from_slice(avx2, &states[..])));
    for (values, [front, back]) in values.iter_mut().zip(tables) {
        let places = |state| named(avx2, state, shared, precision, front);
        let [span, first] = find(avx2, local[0], shared, precision, places);
        local[0] = take(avx2, local[0], span, precision, words, &mut taken);
        let mut second = _mm256_setzero_si256();
        if left > 1 {
            let places = |state| named(avx2, state, shared, precision, back);
            let [span, found] = find(avx2, local[S - 1], shared, precision, places);
            local[S - 1] = take(avx2, local[S - 1], span, precision, words, &mut taken);
            second = found;
        }
        seen = _mm256_or_si256(seen, _mm256_or_si256(first, second));
        let both = _mm256_packus_epi32(_mm256_and_si256(first, half), _mm256_and_si256(second, half));
        let both: i16x16<_> = _mm256_permute4x64_epi64::<0b11_01_10_00>(both).simd_into(avx2);
        *values = both.into();
        left = left.saturating_sub(2);
    }
    for (to, state) in states.into_iter().zip(local) {
        let state: u32x8<_> = state.simd_into(avx2);
        *to = state.into();
    }
    (taken, _mm256_movemask_ps(_mm256_castsi256_ps(seen)) != 0)
}

fearless_simd::kernel!(
    /// As [`decode`], where all values have one table; the `states` take turns.
    pub(crate) fn decode_run(
        avx2: Avx2,
        states: &mut [[u32; 8]],
        model: &RunTable,
        precision: u32,
        words: &Words,
        values: &mut [[i16; 8]],
    ) -> (usize, bool) {
        let (mut taken, mut seen) = (0, _mm256_setzero_si256());
        if let [states] = states {
            let mut state = <__m256i>::from(u32x8::from_slice(avx2, states));
            for values in values {
                let [next, value, escape] = ranged(avx2, state, model, precision);
                seen = _mm256_or_si256(seen, escape);
                *values = listed(avx2, value);
                state = refill(avx2, next, words, &mut taken);
            }
            let state: u32x8<_> = state.simd_into(avx2);
            *states = state.into();
            return (taken, _mm256_movemask_ps(_mm256_castsi256_ps(seen)) != 0);
        }
        for round in values.chunks_exact_mut(states.len()) {
            for (states, values) in states.iter_mut().zip(round) {
                let state = <__m256i>::from(u32x8::from_slice(avx2, states));
                let [next, value, escape] = ranged(avx2, state, model, precision);
                seen = _mm256_or_si256(seen, escape);
                *values = listed(avx2, value);
                let state: u32x8<_> = refill(avx2, next, words, &mut taken).simd_into(avx2);
                *states = state.into();
            }
        }
        (taken, _mm256_movemask_ps(_mm256_castsi256_ps(seen)) != 0)
    }
);

/// What eight states hold, of one table: the states before it was coded, its values, and escapes in the highest bit.
#[inline]
#[target_feature(enable = "avx2")]
fn ranged(avx2: Avx2, state: __m256i, model: &RunTable, precision: u32) -> [__m256i; 3] {
    let number = _mm256_srl_epi32(state, _mm_cvtsi32_si128((precision - RANGE_BITS).cast_signed()));
    let number = _mm256_and_si256(number, _mm256_set1_epi32((1 << RANGE_BITS) - 1));
    let number: u32x8<_> = number.simd_into(avx2);
    let numbers = <[u32; 8]>::from(number);
    let range = |lane: usize| {
        let Range(bits) = model.range(numbers[lane]);
        bits.cast_signed()
    };
    let front = _mm256_castsi256_ps(_mm256_set_epi64x(range(5), range(4), range(1), range(0)));
    let back = _mm256_castsi256_ps(_mm256_set_epi64x(range(7), range(6), range(3), range(2)));
    let span = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(front, back));
    let rest = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(front, back));
    let slot = _mm256_and_si256(state, _mm256_set1_epi32((1 << precision) - 1));
    let over = _mm256_sub_epi32(slot, _mm256_and_si256(span, _mm256_set1_epi32(0xffff)));
    let (one, two) = (_mm256_srli_epi32::<16>(span), _mm256_srli_epi32::<18>(_mm256_slli_epi32::<2>(rest)));
    let first = _mm256_cmpgt_epi32(one, over);
    let frequency = _mm256_blendv_epi8(two, one, first);
    let over = _mm256_sub_epi32(over, _mm256_andnot_si256(first, one));
    let whole = _mm256_srl_epi32(state, _mm_cvtsi32_si128(precision.cast_signed()));
    let next = _mm256_add_epi32(_mm256_mullo_epi32(frequency, whole), over);
    let value = _mm256_add_epi32(_mm256_add_epi32(rest, _mm256_set1_epi32(1)), first);
    let escape = _mm256_blendv_epi8(rest, _mm256_slli_epi32::<1>(rest), first);
    if _mm256_movemask_epi8(_mm256_cmpgt_epi32(frequency, over)) == -1 {
        return [next, value, escape];
    }
    let states: u32x8<_> = state.simd_into(avx2);
    let [next, value, escape] = searched(model, states.into(), precision);
    [
        u32x8::from_slice(avx2, &next).into(),
        u32x8::from_slice(avx2, &value).into(),
        u32x8::from_slice(avx2, &escape).into(),
    ]
}

/// As [`ranged`], one after the other.
#[cold]
fn searched(model: &RunTable, states: [u32; 8], precision: u32) -> [[u32; 8]; 3] {
    let mut parts = [[0; 8]; 3];
    for (lane, state) in states.into_iter().enumerate() {
        let (entry, next) = model.take((), state, precision);
        (parts[0][lane], parts[1][lane], parts[2][lane]) =
            (next, entry.value() as u32, (entry.bits() >> 32) as u32);
    }
    parts
}

/// Where to look for the entries of eight states' slots in these tables.
#[inline]
#[target_feature(enable = "avx2")]
fn named(avx2: Avx2, state: __m256i, shared: &MixedTables, precision: u32, tables: &[u8; 8]) -> [u32; 8] {
    let first = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*tables)));
    let bucket = _mm256_srl_epi32(state, _mm_cvtsi32_si128((precision - BUCKET_BITS).cast_signed()));
    let bucket = _mm256_and_si256(bucket, _mm256_set1_epi32((1 << BUCKET_BITS) - 1));
    let places = _mm256_or_si256(_mm256_slli_epi32::<{ BUCKET_BITS as i32 }>(first), bucket);
    let places: u32x8<_> = places.simd_into(avx2);
    <[u32; 8]>::from(places).map(|place| shared.place(place))
}

/// The entries of eight states' slots, which are looked for from `places` on, in two halves: start and frequency, value
/// and escape. A closure makes every caller's copy its own, which becomes a part of it.
#[inline]
#[target_feature(enable = "avx2")]
fn find(
    avx2: Avx2,
    state: __m256i,
    shared: &MixedTables,
    precision: u32,
    places: impl Fn(__m256i) -> [u32; 8],
) -> [__m256i; 2] {
    let slot = _mm256_and_si256(state, _mm256_set1_epi32((1 << precision) - 1));
    let found = places(state);
    let pair = |lane: usize| {
        let [first, second] = shared.pair(found[lane]);
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
    let [span, value] = search(shared, places(state), slots.into());
    [u32x8::from_slice(avx2, &span).into(), u32x8::from_slice(avx2, &value).into()]
}

/// As [`find`], one after the other.
#[cold]
fn search(shared: &MixedTables, places: [u32; 8], slots: [u32; 8]) -> [[u32; 8]; 2] {
    let mut halves = [[0; 8]; 2];
    for (lane, (place, slot)) in places.into_iter().zip(slots).enumerate() {
        let entry = shared.entry(place, slot).bits();
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
    refill(avx2, next, words, taken)
}

/// States with a word more where they are short of one.
#[inline]
#[target_feature(enable = "avx2")]
fn refill(avx2: Avx2, next: __m256i, words: &Words, taken: &mut usize) -> __m256i {
    // States are below 2^31, so the signed comparison is right.
    let whole = _mm256_cmpgt_epi32(next, _mm256_set1_epi32(LOWEST.cast_signed() - 1));
    let set = _mm256_movemask_ps(_mm256_castsi256_ps(whole)) as usize & 0xff;
    let at = *taken % DECODE_BLOCK;
    *taken += 8 - set.count_ones() as usize;
    let given: u8x16<_> = u8x16::from_slice(avx2, words[at..at + 8].as_flattened());
    let [first, second] = WORD_ORDER[set].map(u64::cast_signed);
    let given = _mm256_cvtepu16_epi32(_mm_shuffle_epi8(given.into(), _mm_set_epi64x(second, first)));
    _mm256_blendv_epi8(_mm256_or_si256(_mm256_slli_epi32::<16>(next), given), next, whole)
}

/// Four fields of eight encode_entries, transposed into four vectors of eight lanes: last, reciprocal, start and gap, shift.
#[inline]
#[target_feature(enable = "avx2")]
fn gather(group: &[u16; 8], encode_entries: &[EncodeEntry]) -> Lanes {
    let load = |entry: u16| {
        let EncodeEntry([low, high]) = encode_entries[usize::from(entry)];
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
    [last, reciprocal, start_gap, shift]: Lanes,
    words: &mut WordBlock,
    taken: &mut usize,
) -> __m256i {
    let half = _mm256_set1_epi32(0xffff);
    // Both are below 2^31, so the signed comparison is right.
    let over = _mm256_cmpgt_epi32(state, last);
    let full = _mm256_movemask_ps(_mm256_castsi256_ps(over)) as usize & 0xff;
    let low = _mm256_and_si256(state, half);
    let low: __m128i = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
    let [first, second] = PACK_ORDER[full];
    let given = _mm_shuffle_epi8(low, _mm_set_epi64x(second.cast_signed(), first.cast_signed()));
    let at = *taken % ENCODE_BLOCK * 2;
    words[at..at + 8].copy_from_slice(&_mm_cvtsi128_si64(given).to_le_bytes());
    words[at + 8..at + 16].copy_from_slice(&_mm_extract_epi64::<1>(given).to_le_bytes());
    *taken += full.count_ones() as usize;

    let ready = _mm256_blendv_epi8(state, _mm256_srli_epi32::<16>(state), over);
    let even = _mm256_mul_epu32(ready, reciprocal);
    let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(ready), _mm256_srli_epi64::<32>(reciprocal));
    let product = _mm256_blend_epi32::<0b1010_1010>(_mm256_srli_epi64::<32>(even), odd);
    let quotient = _mm256_srlv_epi32(product, _mm256_sub_epi32(shift, _mm256_set1_epi32(32)));
    let moved = _mm256_mullo_epi32(quotient, _mm256_srli_epi32::<16>(start_gap));
    _mm256_add_epi32(_mm256_add_epi32(ready, _mm256_and_si256(start_gap, half)), moved)
}
