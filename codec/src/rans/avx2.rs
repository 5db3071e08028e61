//! The coder's inner loops for x86-64 with AVX2. They write and read the same words as the portable ones.
//!
//! A vector holds the states of eight lanes. Values of eight lanes are an octet.

use std::arch::x86_64::*;

use fearless_simd::{i16x8, i16x16, prelude::*, u8x16, u32x4, u32x8};

use crate::{
    format::states::LOWEST_STATE,
    rans::{
        entry::EncodeEntry,
        lookup::{BUCKET_BITS, DecodeTables, MixedTables, RANGE_BITS, Range, RunTable},
        words::{BlockWords, DECODE_BLOCK, ENCODE_BLOCK, LookaheadWords},
    },
    simd::Avx2,
};

/// For each set of lanes that write a word, the shuffle that packs the words to the front, the highest lane's first.
static PACK_WORDS: [[u64; 2]; 256] = pack_words();

const fn pack_words() -> [[u64; 2]; 256] {
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

/// For each set of lanes that need no word, the shuffle that gives the next words to the other lanes, the lowest first. What
/// lanes of the set get has no meaning.
static SPREAD_WORDS: [[u64; 2]; 256] = spread_words();

const fn spread_words() -> [[u64; 2]; 256] {
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

/// Eight lanes of each of four fields of 32 bits.
type Fields = [__m256i; 4];

fearless_simd::kernel!(
    /// Encodes octets from the last to the first, each with the next vector of `states` from the last one down. An octet has,
    /// per lane, the index of a value's entry in `table`. Returns the number of words written to the front of `words`.
    pub(crate) fn encode(
        avx2: Avx2,
        states: &mut [[u32; 8]],
        octets: &[[u16; 8]],
        table: &[EncodeEntry],
        words: &mut BlockWords,
    ) -> usize {
        let mut written = 0;
        if let [states] = states {
            let mut state = <__m256i>::from(u32x8::from_slice(avx2, states));
            for octet in octets.iter().rev() {
                state = encode_octet(state, load_entries(octet, table), words, &mut written);
            }
            let state: u32x8<_> = state.simd_into(avx2);
            *states = state.into();
            return written;
        }
        for round in octets.rchunks_exact(states.len()) {
            for (states, octet) in states.iter_mut().zip(round).rev() {
                let state = <__m256i>::from(u32x8::from_slice(avx2, states));
                let state: u32x8<_> =
                    encode_octet(state, load_entries(octet, table), words, &mut written).simd_into(avx2);
                *states = state.into();
            }
        }
        written
    }
);

fearless_simd::kernel!(
    /// As [`encode`], with four lanes.
    pub(crate) fn encode_four(
        avx2: Avx2,
        states: &mut [u32; 4],
        rounds: &[[u16; 4]],
        table: &[EncodeEntry],
        words: &mut BlockWords,
    ) -> usize {
        let mut written = 0;
        let half = _mm_set1_epi32(0xffff);
        let mut state = <__m128i>::from(u32x4::from_slice(avx2, states));
        for round in rounds.iter().rev() {
            let [row0, row1, row2, row3] = round.map(|entry| {
                let EncodeEntry([low, high]) = table[usize::from(entry)];
                _mm_set_epi64x(high.cast_signed(), low.cast_signed())
            });
            let front = (_mm_unpacklo_epi32(row0, row1), _mm_unpacklo_epi32(row2, row3));
            let back = (_mm_unpackhi_epi32(row0, row1), _mm_unpackhi_epi32(row2, row3));
            let max_state = _mm_unpacklo_epi64(front.0, front.1);
            let reciprocal = _mm_unpackhi_epi64(front.0, front.1);
            let start_gap = _mm_unpacklo_epi64(back.0, back.1);
            let shift = _mm_sub_epi32(_mm_unpackhi_epi64(back.0, back.1), _mm_set1_epi32(32));

            let over = _mm_cmpgt_epi32(state, max_state);
            let full = _mm_movemask_ps(_mm_castsi128_ps(over)) as usize & 0xf;
            let low = _mm_packus_epi32(_mm_and_si128(state, half), _mm_setzero_si128());
            let packed = _mm_shuffle_epi8(low, _mm_set_epi64x(0, PACK_WORDS[full][0].cast_signed()));
            let at = written % ENCODE_BLOCK * 2;
            words[at..at + 8].copy_from_slice(&_mm_cvtsi128_si64(packed).to_le_bytes());
            written += full.count_ones() as usize;

            let ready = _mm_blendv_epi8(state, _mm_srli_epi32::<16>(state), over);
            let even = _mm_mul_epu32(ready, reciprocal);
            let odd = _mm_mul_epu32(_mm_srli_epi64::<32>(ready), _mm_srli_epi64::<32>(reciprocal));
            let product = _mm_blend_epi32::<0b1010>(_mm_srli_epi64::<32>(even), odd);
            let moved = _mm_mullo_epi32(_mm_srlv_epi32(product, shift), _mm_srli_epi32::<16>(start_gap));
            state = _mm_add_epi32(_mm_add_epi32(ready, _mm_and_si128(start_gap, half)), moved);
        }
        let state: u32x4<_> = state.simd_into(avx2);
        *states = state.into();
        written
    }
);

fearless_simd::kernel!(
    /// Decodes octets whose values have the tables with these indices. Returns the number of words read, and whether a value
    /// is an escape.
    pub(crate) fn decode_mixed(
        avx2: Avx2,
        states: &mut [u32; 8],
        lookup: &MixedTables,
        precision: u32,
        tables: &[[u8; 8]],
        words: &LookaheadWords,
        values: &mut [[i16; 8]],
    ) -> (usize, bool) {
        let (mut read, mut escapes) = (0, _mm256_setzero_si256());
        let mut state = <__m256i>::from(u32x8::from_slice(avx2, states));
        for (values, tables) in values.iter_mut().zip(tables) {
            let starts = |state| buckets(avx2, state, lookup, precision, tables);
            let [span, value] = find_mixed(avx2, state, lookup, precision, starts);
            escapes = _mm256_or_si256(escapes, value);
            *values = narrow(avx2, value);
            state = advance(avx2, state, span, precision, words, &mut read);
        }
        let state: u32x8<_> = state.simd_into(avx2);
        *states = state.into();
        (read, _mm256_movemask_ps(_mm256_castsi256_ps(escapes)) != 0)
    }
);

fearless_simd::kernel!(
    /// As [`decode_mixed`], for the first octets of `tables`, as many as its second part says. Inlined into the context
    /// decoder, whose runs are short.
    #[inline(always)]
    pub(crate) fn decode_mixed_8(
        avx2: Avx2,
        states: &mut [u32; 8],
        lookup: (&MixedTables, u32),
        tables: (&[[[u8; 8]; 2]], usize),
        words: &LookaheadWords,
        values: &mut [[i16; 16]],
    ) -> (usize, bool) {
        octet_pairs(avx2, [states], lookup, tables, words, values)
    }
);

fearless_simd::kernel!(
    /// As [`decode_mixed_8`], with sixteen lanes: octets alternate between the two vectors of states.
    #[inline(always)]
    pub(crate) fn decode_mixed_16(
        avx2: Avx2,
        states: [&mut [u32; 8]; 2],
        lookup: (&MixedTables, u32),
        tables: (&[[[u8; 8]; 2]], usize),
        words: &LookaheadWords,
        values: &mut [[i16; 16]],
    ) -> (usize, bool) {
        octet_pairs(avx2, states, lookup, tables, words, values)
    }
);

#[inline]
#[target_feature(enable = "avx2")]
fn octet_pairs<const S: usize>(
    avx2: Avx2,
    states: [&mut [u32; 8]; S],
    (lookup, precision): (&MixedTables, u32),
    (tables, octets): (&[[[u8; 8]; 2]], usize),
    words: &LookaheadWords,
    values: &mut [[i16; 16]],
) -> (usize, bool) {
    let (mut read, mut left) = (0, octets);
    let (half, mut escapes) = (_mm256_set1_epi32(0xffff), _mm256_setzero_si256());
    let mut local = states.each_ref().map(|states| <__m256i>::from(u32x8::from_slice(avx2, &states[..])));
    for (values, [front, back]) in values.iter_mut().zip(tables) {
        let starts = |state| buckets(avx2, state, lookup, precision, front);
        let [span, first] = find_mixed(avx2, local[0], lookup, precision, starts);
        local[0] = advance(avx2, local[0], span, precision, words, &mut read);
        let mut second = _mm256_setzero_si256();
        if left > 1 {
            let starts = |state| buckets(avx2, state, lookup, precision, back);
            let [span, found] = find_mixed(avx2, local[S - 1], lookup, precision, starts);
            local[S - 1] = advance(avx2, local[S - 1], span, precision, words, &mut read);
            second = found;
        }
        escapes = _mm256_or_si256(escapes, _mm256_or_si256(first, second));
        let both = _mm256_packus_epi32(_mm256_and_si256(first, half), _mm256_and_si256(second, half));
        let both: i16x16<_> = _mm256_permute4x64_epi64::<0b11_01_10_00>(both).simd_into(avx2);
        *values = both.into();
        left = left.saturating_sub(2);
    }
    for (to, state) in states.into_iter().zip(local) {
        let state: u32x8<_> = state.simd_into(avx2);
        *to = state.into();
    }
    (read, _mm256_movemask_ps(_mm256_castsi256_ps(escapes)) != 0)
}

fearless_simd::kernel!(
    /// Decodes octets whose values share a table, each with the next vector of `states`. Returns the number of words read, and
    /// whether a value is an escape.
    pub(crate) fn decode_run(
        avx2: Avx2,
        states: &mut [[u32; 8]],
        table: &RunTable,
        precision: u32,
        words: &LookaheadWords,
        values: &mut [[i16; 8]],
    ) -> (usize, bool) {
        let (mut read, mut escapes) = (0, _mm256_setzero_si256());
        if let [states] = states {
            let mut state = <__m256i>::from(u32x8::from_slice(avx2, states));
            for values in values {
                let [next, value, escape] = find_in_run(avx2, state, table, precision);
                escapes = _mm256_or_si256(escapes, escape);
                *values = narrow(avx2, value);
                state = refill(avx2, next, words, &mut read);
            }
            let state: u32x8<_> = state.simd_into(avx2);
            *states = state.into();
            return (read, _mm256_movemask_ps(_mm256_castsi256_ps(escapes)) != 0);
        }
        for round in values.chunks_exact_mut(states.len()) {
            for (states, values) in states.iter_mut().zip(round) {
                let state = <__m256i>::from(u32x8::from_slice(avx2, states));
                let [next, value, escape] = find_in_run(avx2, state, table, precision);
                escapes = _mm256_or_si256(escapes, escape);
                *values = narrow(avx2, value);
                let state: u32x8<_> = refill(avx2, next, words, &mut read).simd_into(avx2);
                *states = state.into();
            }
        }
        (read, _mm256_movemask_ps(_mm256_castsi256_ps(escapes)) != 0)
    }
);

/// Decodes one octet of a run without reading words: the next states, the values, and the escape bits in the highest bit.
#[inline]
#[target_feature(enable = "avx2")]
fn find_in_run(avx2: Avx2, state: __m256i, table: &RunTable, precision: u32) -> [__m256i; 3] {
    let number = _mm256_srl_epi32(state, _mm_cvtsi32_si128((precision - RANGE_BITS).cast_signed()));
    let number = _mm256_and_si256(number, _mm256_set1_epi32((1 << RANGE_BITS) - 1));
    let number: u32x8<_> = number.simd_into(avx2);
    let numbers = <[u32; 8]>::from(number);
    let range = |lane: usize| {
        let Range(bits) = table.range(numbers[lane]);
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
    let quotient = _mm256_srl_epi32(state, _mm_cvtsi32_si128(precision.cast_signed()));
    let next = _mm256_add_epi32(_mm256_mullo_epi32(frequency, quotient), over);
    let value = _mm256_add_epi32(_mm256_add_epi32(rest, _mm256_set1_epi32(1)), first);
    let escape = _mm256_blendv_epi8(rest, _mm256_slli_epi32::<1>(rest), first);
    if _mm256_movemask_epi8(_mm256_cmpgt_epi32(frequency, over)) == -1 {
        return [next, value, escape];
    }
    let states: u32x8<_> = state.simd_into(avx2);
    let [next, value, escape] = search_run(table, states.into(), precision);
    [
        u32x8::from_slice(avx2, &next).into(),
        u32x8::from_slice(avx2, &value).into(),
        u32x8::from_slice(avx2, &escape).into(),
    ]
}

/// As [`find_in_run`], lane by lane, for when a slot is beyond the first two entries of its range.
#[cold]
fn search_run(table: &RunTable, states: [u32; 8], precision: u32) -> [[u32; 8]; 3] {
    let mut parts = [[0; 8]; 3];
    for (lane, state) in states.into_iter().enumerate() {
        let (entry, next) = table.decode((), state, precision);
        (parts[0][lane], parts[1][lane], parts[2][lane]) =
            (next, entry.value() as u32, (entry.bits() >> 32) as u32);
    }
    parts
}

/// The indices of the entries at which the searches for the slots of eight states begin.
#[inline]
#[target_feature(enable = "avx2")]
fn buckets(avx2: Avx2, state: __m256i, lookup: &MixedTables, precision: u32, tables: &[u8; 8]) -> [u32; 8] {
    let first = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*tables)));
    let bucket = _mm256_srl_epi32(state, _mm_cvtsi32_si128((precision - BUCKET_BITS).cast_signed()));
    let bucket = _mm256_and_si256(bucket, _mm256_set1_epi32((1 << BUCKET_BITS) - 1));
    let numbers = _mm256_or_si256(_mm256_slli_epi32::<{ BUCKET_BITS as i32 }>(first), bucket);
    let numbers: u32x8<_> = numbers.simd_into(avx2);
    <[u32; 8]>::from(numbers).map(|number| lookup.bucket(number))
}

/// The entries of the slots of eight states, searched from `starts` up: the halves with start and frequency, and those with
/// value and escape. `starts` is a closure so that every caller has an instance of its own, which is inlined.
#[inline]
#[target_feature(enable = "avx2")]
fn find_mixed(
    avx2: Avx2,
    state: __m256i,
    lookup: &MixedTables,
    precision: u32,
    starts: impl Fn(__m256i) -> [u32; 8],
) -> [__m256i; 2] {
    let slot = _mm256_and_si256(state, _mm256_set1_epi32((1 << precision) - 1));
    let found = starts(state);
    let pair = |lane: usize| {
        let [first, second] = lookup.pair(found[lane]);
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
    let [span, value] = search_mixed(lookup, starts(state), slots.into());
    [u32x8::from_slice(avx2, &span).into(), u32x8::from_slice(avx2, &value).into()]
}

/// As [`find_mixed`], lane by lane, for when a slot is beyond the first two entries of its bucket.
#[cold]
fn search_mixed(lookup: &MixedTables, starts: [u32; 8], slots: [u32; 8]) -> [[u32; 8]; 2] {
    let mut halves = [[0; 8]; 2];
    for (lane, (place, slot)) in starts.into_iter().zip(slots).enumerate() {
        let entry = lookup.entry(place, slot).bits();
        (halves[0][lane], halves[1][lane]) = (entry as u32, (entry >> 32) as u32);
    }
    halves
}

/// The low 16 bits of eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow(avx2: Avx2, values: __m256i) -> [i16; 8] {
    let values = _mm256_and_si256(values, _mm256_set1_epi32(0xffff));
    let values = _mm_packus_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values));
    let values: i16x8<_> = values.simd_into(avx2);
    values.into()
}

/// The states after decoding entries with these starts and frequencies.
#[inline]
#[target_feature(enable = "avx2")]
fn advance(
    avx2: Avx2,
    state: __m256i,
    span: __m256i,
    precision: u32,
    words: &LookaheadWords,
    read: &mut usize,
) -> __m256i {
    let slot = _mm256_and_si256(state, _mm256_set1_epi32((1 << precision) - 1));
    let over = _mm256_sub_epi32(slot, _mm256_and_si256(span, _mm256_set1_epi32(0xffff)));
    let quotient = _mm256_srl_epi32(state, _mm_cvtsi32_si128(precision.cast_signed()));
    let next = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32::<16>(span), quotient), over);
    refill(avx2, next, words, read)
}

/// Reads a word for each state below 2^15.
#[inline]
#[target_feature(enable = "avx2")]
fn refill(avx2: Avx2, next: __m256i, words: &LookaheadWords, read: &mut usize) -> __m256i {
    // A signed comparison, since states are below 2^31.
    let whole = _mm256_cmpgt_epi32(next, _mm256_set1_epi32(LOWEST_STATE.cast_signed() - 1));
    let set = _mm256_movemask_ps(_mm256_castsi256_ps(whole)) as usize & 0xff;
    let at = *read % DECODE_BLOCK;
    *read += 8 - set.count_ones() as usize;
    let packed: u8x16<_> = u8x16::from_slice(avx2, words[at..at + 8].as_flattened());
    let [first, second] = SPREAD_WORDS[set].map(u64::cast_signed);
    let packed = _mm256_cvtepu16_epi32(_mm_shuffle_epi8(packed.into(), _mm_set_epi64x(second, first)));
    _mm256_blendv_epi8(_mm256_or_si256(_mm256_slli_epi32::<16>(next), packed), next, whole)
}

/// The entries of an octet, field by field: `max_state`, `reciprocal`, `start` and `gap`, `shift`.
#[inline]
#[target_feature(enable = "avx2")]
fn load_entries(octet: &[u16; 8], table: &[EncodeEntry]) -> Fields {
    let load = |entry: u16| {
        let EncodeEntry([low, high]) = table[usize::from(entry)];
        _mm_set_epi64x(high.cast_signed(), low.cast_signed())
    };
    let row = |lane: usize| _mm256_set_m128i(load(octet[lane + 4]), load(octet[lane]));
    transpose([row(0), row(1), row(2), row(3)])
}

/// Transposes rows that hold the four fields of lanes 0 and 4, 1 and 5, 2 and 6, 3 and 7 into a vector per field.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose([row0, row1, row2, row3]: [__m256i; 4]) -> Fields {
    let front = (_mm256_unpacklo_epi32(row0, row1), _mm256_unpacklo_epi32(row2, row3));
    let back = (_mm256_unpackhi_epi32(row0, row1), _mm256_unpackhi_epi32(row2, row3));
    [
        _mm256_unpacklo_epi64(front.0, front.1),
        _mm256_unpackhi_epi64(front.0, front.1),
        _mm256_unpacklo_epi64(back.0, back.1),
        _mm256_unpackhi_epi64(back.0, back.1),
    ]
}

/// Encodes one entry per lane and returns the next states.
#[inline]
#[target_feature(enable = "avx2")]
fn encode_octet(
    state: __m256i,
    [max_state, reciprocal, start_gap, shift]: Fields,
    words: &mut BlockWords,
    written: &mut usize,
) -> __m256i {
    let half = _mm256_set1_epi32(0xffff);
    // A signed comparison, since both are below 2^31.
    let over = _mm256_cmpgt_epi32(state, max_state);
    let full = _mm256_movemask_ps(_mm256_castsi256_ps(over)) as usize & 0xff;
    let low = _mm256_and_si256(state, half);
    let low: __m128i = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
    let [first, second] = PACK_WORDS[full];
    let packed = _mm_shuffle_epi8(low, _mm_set_epi64x(second.cast_signed(), first.cast_signed()));
    let at = *written % ENCODE_BLOCK * 2;
    words[at..at + 8].copy_from_slice(&_mm_cvtsi128_si64(packed).to_le_bytes());
    words[at + 8..at + 16].copy_from_slice(&_mm_extract_epi64::<1>(packed).to_le_bytes());
    *written += full.count_ones() as usize;

    let ready = _mm256_blendv_epi8(state, _mm256_srli_epi32::<16>(state), over);
    let even = _mm256_mul_epu32(ready, reciprocal);
    let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(ready), _mm256_srli_epi64::<32>(reciprocal));
    let product = _mm256_blend_epi32::<0b1010_1010>(_mm256_srli_epi64::<32>(even), odd);
    let quotient = _mm256_srlv_epi32(product, _mm256_sub_epi32(shift, _mm256_set1_epi32(32)));
    let moved = _mm256_mullo_epi32(quotient, _mm256_srli_epi32::<16>(start_gap));
    _mm256_add_epi32(_mm256_add_epi32(ready, _mm256_and_si256(start_gap, half)), moved)
}
