//! What coding needs of a table, computed once: no division is left, and almost no search.

use std::hint::select_unpredictable;

/// Buckets of a table of which any may be next, as a logarithm.
pub(crate) const BUCKET_BITS: u32 = 8;

/// As many places as 16 bits can name.
const PLACES: usize = 1 << 16;

/// Ranges of a table that whole runs have, and their logarithm.
const RANGES: usize = 1 << RANGE_BITS;
pub(crate) const RANGE_BITS: u32 = 9;

/// How an entry moves the state of an encoder, in 16 bytes: from the lowest, `last` (u32), `reciprocal` (u32),
/// `start` (u16), `gap` (u16), `shift` (u32).
///
/// For a frequency of 2 and more and s the least power with `2^s >= frequency`, the reciprocal is
/// `2^(s + 31) / frequency` rounded up and the shift `s + 31`. It is too large by less than 1, so the quotient is too
/// large by less than `state / 2^(s + 31) < 1 / frequency` for states below 2^31, and exact. For a frequency of 1 the
/// quotient comes out as `state − 1`, and `start` is larger by the missing `gap`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EncodeEntry(pub(crate) [u64; 2]);

impl EncodeEntry {
    /// For an entry of `frequency`, which is below `2^precision`.
    pub(crate) fn new(frequency: u16, start: u32, precision: u32) -> Self {
        let wide = u64::from(frequency);
        let gap = (1 << precision) - wide;
        let (reciprocal, shift, start) = if frequency == 1 {
            (u64::from(u32::MAX), 32, u64::from(start) + gap)
        } else {
            let power = wide.next_power_of_two().trailing_zeros();
            ((1_u64 << (power + 31)).div_ceil(wide), u64::from(power) + 31, u64::from(start))
        };
        Self([((wide << (31 - precision)) - 1) | reciprocal << 32, start | gap << 16 | shift << 32])
    }

    /// Leaves any state as it is.
    pub(crate) const NO_OP: Self = Self([0x7fff_ffff, 0]);

    /// The largest state that gives off no word first.
    #[inline(always)]
    pub(crate) fn last(self) -> u32 {
        self.0[0] as u32
    }

    /// The state after this entry was coded, for a state that gives off no word:
    /// `state div frequency * 2^precision + state mod frequency + start`.
    #[inline(always)]
    pub(crate) fn advance(self, state: u32) -> u32 {
        let [front, back] = self.0;
        let quotient = ((u64::from(state) * (front >> 32)) >> (back >> 32 & 63)) as u32;
        state + quotient * (back as u32 >> 16) + (back & 0xffff) as u32
    }
}

/// One entry as a decoder sees it: from the lowest bit, `start` (u16), `frequency` (u16), `value` (i16), and the
/// highest bit for the escape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodeEntry(u64);

impl DecodeEntry {
    #[inline(always)]
    fn start(self) -> u32 {
        self.0 as u32 & 0xffff
    }

    #[inline(always)]
    fn frequency(self) -> u32 {
        self.0 as u32 >> 16
    }

    #[inline(always)]
    pub(crate) fn value(self) -> i16 {
        (self.0 >> 32) as i16
    }

    /// The bits of which the highest tells the escape, to be gathered with `|`.
    #[inline(always)]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

/// Whether gathered [`DecodeEntry::bits`] hold an escape.
#[inline(always)]
pub(crate) fn any_escape(bits: u64) -> bool {
    bits >> 63 != 0
}

/// Tables as a decoder sees them.
pub(crate) trait DecodeTables {
    /// What names a table.
    type Name: Copy;

    /// The entry of a state's slot, of which only the value and the escape count, and the state before that entry was coded:
    /// `frequency * (state div 2^precision) + state mod 2^precision − start`.
    fn take(&self, name: Self::Name, state: u32, precision: u32) -> (DecodeEntry, u32);
}

/// A table that whole runs have: eight bytes for each of 512 ranges of its slots, and for each entry.
#[derive(Clone, Debug)]
pub(crate) struct RunTable {
    ranges: Box<[Range; RANGES]>,
    entries: Box<[DecodeEntry]>,
}

/// Two entries as a decoder sees them, the one that the first slot of a range is in and the next: from the lowest bit, the
/// `start` of the first (u16), its frequency (u16) and value (i16), the frequency of the second (14 bits, 0 where there is
/// none), and whether the first and the second are the escape. The second stands for the next value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Range(pub(crate) u64);

impl Range {
    fn new(first: DecodeEntry, second: Option<DecodeEntry>) -> Self {
        let escape = |entry: DecodeEntry| entry.bits() >> 63;
        let second = second.map_or(0, |second| u64::from(second.frequency()) << 48 | escape(second) << 63);
        Self(first.bits() & 0xffff_ffff_ffff | escape(first) << 62 | second)
    }
}

impl RunTable {
    /// The table with this lowest value and these frequencies.
    pub(crate) fn new(low: i16, frequencies: &[u16], precision: u32) -> Self {
        let entries: Box<[DecodeEntry]> = entries(low, frequencies).collect();
        let mut at = 0;
        let ranges = std::array::from_fn(|range| {
            let slot = (range as u32) << (precision - RANGE_BITS);
            at += entries[at + 1..].iter().take_while(|entry| entry.start() <= slot).count();
            Range::new(entries[at], entries.get(at + 1).copied())
        });
        Self { ranges: Box::new(ranges), entries }
    }

    /// Brings the ranges near, all at once: tables of other bundles may have been between.
    #[inline(always)]
    pub(crate) fn warm(&self) {
        let lines = self.ranges.iter().step_by(64 / size_of::<Range>());
        std::hint::black_box(lines.fold(0, |sum, range| sum ^ range.0));
    }

    /// The range of which the lowest bits of a number tell.
    #[inline(always)]
    pub(crate) fn range(&self, number: u32) -> Range {
        self.ranges[number as usize % RANGES]
    }

    /// The entry of a slot that is in a range's third entry or one after it.
    #[cold]
    pub(crate) fn search(&self, slot: u32) -> DecodeEntry {
        self.entries[self.entries.partition_point(|entry| entry.start() <= slot) - 1]
    }
}

impl DecodeTables for RunTable {
    type Name = ();

    #[inline(always)]
    fn take(&self, (): (), state: u32, precision: u32) -> (DecodeEntry, u32) {
        let (slot, whole) = (state & ((1 << precision) - 1), state >> precision);
        let Range(bits) = self.range(state >> (precision - RANGE_BITS));
        let (over, first) = (slot - (bits as u32 & 0xffff), bits as u32 >> 16);
        let later = over >= first;
        let frequency = select_unpredictable(later, (bits >> 48) as u32 & 0x3fff, first);
        let over = over - select_unpredictable(later, first, 0);
        if over < frequency {
            let value = bits.wrapping_add(u64::from(later) << 32) & 0xffff << 32;
            let escape = bits << u32::from(!later) & 1 << 63;
            return (DecodeEntry(value | escape), frequency * whole + over);
        }
        let entry = self.search(slot);
        (entry, entry.frequency() * whole + slot - entry.start())
    }
}

/// Tables of which any may be next. Any 16 bits name a place and an entry, so that none is out of bounds; the pages behind
/// those in use are never touched.
#[derive(Clone, Debug)]
pub(crate) struct MixedTables {
    /// For each table, one after the other, and each of 256 equal ranges of its slots the entry of the first one, or the one
    /// before where that is the last of its table.
    index: Box<[u16; PLACES]>,
    /// The bits of the entries of all tables, one after the other.
    entries: Box<[u64; PLACES + 1]>,
}

impl MixedTables {
    /// Tables with these lowest values and frequencies, at most 256 with at most 65535 entries in all, and after them one
    /// that stands for no value and leaves any state as it is.
    pub(crate) fn new<'a>(tables: impl Iterator<Item = (i16, &'a [u16])>, precision: u32) -> Self {
        let (mut index, mut all) = (vec![0; PLACES], vec![0; PLACES + 1]);
        let (mut places, mut left) = (index.chunks_exact_mut(1 << BUCKET_BITS), &mut all[..]);
        let mut first = 0;
        for ((low, frequencies), places) in tables.zip(places.by_ref()) {
            let found: Vec<DecodeEntry> = entries(low, frequencies).collect();
            fill(places, &found, precision - BUCKET_BITS, |at| (first + at) as u16);
            for (to, entry) in left.iter_mut().zip(&found) {
                *to = entry.0;
            }
            left = &mut left[found.len()..];
            first += found.len();
        }
        places.next().into_iter().for_each(|places| places.fill(first as u16));
        // The second one begins after every slot.
        left.iter_mut().zip([1 << (16 + precision), u16::MAX.into()]).for_each(|(to, bits)| *to = bits);
        let sized = "as many as were asked for";
        Self { index: index.try_into().expect(sized), entries: all.try_into().expect(sized) }
    }

    /// Where to look for the entry of a state's slot in a table.
    #[inline(always)]
    fn at(&self, table: u8, state: u32, precision: u32) -> u32 {
        let bucket = state >> (precision - BUCKET_BITS) & ((1 << BUCKET_BITS) - 1);
        self.place(u32::from(table) << BUCKET_BITS | bucket)
    }

    /// Where to look for the entries of a bucket of a table: its number and then that of the bucket, in 16 bits.
    #[inline(always)]
    pub(crate) fn place(&self, place: u32) -> u32 {
        self.index[usize::from(place as u16)].into()
    }

    /// The entry at a place and the next.
    #[inline(always)]
    pub(crate) fn pair(&self, at: u32) -> [DecodeEntry; 2] {
        let at = usize::from(at as u16);
        [DecodeEntry(self.entries[at]), DecodeEntry(self.entries[at + 1])]
    }

    /// The entry of a slot, which is looked for from `at` on. Most buckets lie in one entry or two, between which no
    /// branch is needed.
    #[inline(always)]
    pub(crate) fn entry(&self, mut at: u32, slot: u32) -> DecodeEntry {
        let [first, second] = self.pair(at);
        let mut entry = DecodeEntry(select_unpredictable(slot >= second.start(), second.0, first.0));
        while slot - entry.start() >= entry.frequency() {
            at += 1;
            [_, entry] = self.pair(at);
        }
        entry
    }
}

impl DecodeTables for MixedTables {
    type Name = u8;

    #[inline(always)]
    fn take(&self, table: u8, state: u32, precision: u32) -> (DecodeEntry, u32) {
        let slot = state & ((1 << precision) - 1);
        let entry = self.entry(self.at(table, state, precision), slot);
        (entry, entry.frequency() * (state >> precision) + slot - entry.start())
    }
}

/// The entries of a table.
fn entries(low: i16, frequencies: &[u16]) -> impl Iterator<Item = DecodeEntry> {
    let escape = frequencies.len() - 1;
    starts(frequencies).enumerate().map(move |(at, (frequency, start))| {
        let value = low.wrapping_add_unsigned(at as u16).cast_unsigned();
        let flag = u64::from(at == escape) << 63;
        DecodeEntry(u64::from(start) | u64::from(frequency) << 16 | u64::from(value) << 32 | flag)
    })
}

/// Names, for each range of `2^bits` slots, the place of the entry that the first one is in, among those of its table; of
/// the one before where it is the last.
fn fill<T: Copy>(ranges: &mut [T], entries: &[DecodeEntry], bits: u32, name: impl Fn(usize) -> T) {
    let mut begin = 0;
    for (at, pair) in entries.windows(2).enumerate() {
        let next = pair[1].start().div_ceil(1 << bits) as usize;
        let end = if at + 2 < entries.len() { next } else { ranges.len() };
        ranges[begin..end].fill(name(at));
        begin = end;
    }
}

/// Each frequency and the sum of those before it.
pub(crate) fn starts(frequencies: &[u16]) -> impl Iterator<Item = (u16, u32)> {
    frequencies.iter().scan(0, |end, &frequency| {
        let start = *end;
        *end += u32::from(frequency);
        Some((frequency, start))
    })
}

/// Bits that an entry of this frequency costs, in 1/256 (FORMAT.md, section 4.3).
pub(crate) fn cost(frequency: u16, precision: u32) -> u16 {
    let top = u32::from(frequency).ilog2();
    let mut x = u64::from(frequency) << (31 - top);
    let mut log = top;
    for _ in 0..8 {
        x = (x * x) >> 31;
        let carry = (x >> 32) as u32;
        x >>= carry;
        log = 2 * log + carry;
    }
    (256 * precision - log) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_exact_for_every_frequency_at_the_borders_of_the_quotients() {
        for precision in [12, 14] {
            for frequency in (1..1 << precision).step_by(if cfg!(miri) { 997 } else { 1 }) {
                let step = EncodeEntry::new(frequency, 1, precision);
                let f = u32::from(frequency);
                let last = (step.last() + 1) / f - 1;
                for quotient in [(1 << 15) / f + 1, 4095, 65535, last / 3, last - 1, last] {
                    for state in [quotient * f, quotient * f + f - 1] {
                        if state <= step.last() {
                            let coded = ((state / f) << precision) + state % f + 1;
                            assert_eq!(step.advance(state), coded, "{frequency} {state}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn slots_lead_to_their_entries() {
        let many = |count: u16, precision: u32| {
            let mut frequencies = vec![1; usize::from(count)];
            frequencies[usize::from(count / 2)] += (1 << precision) - count;
            frequencies
        };
        let cases = [
            (vec![1, 4000, 95], 12),
            (vec![8; 512], 12),
            (many(4096, 12), 12),
            (many(256, 12), 12),
            (many(257, 14), 14),
            (many(16384, 14), 14),
            (vec![1, 16383], 14),
        ];
        // Miri takes minutes for the large ones.
        for (frequencies, precision) in cases.into_iter().filter(|(f, _)| !cfg!(miri) || f.len() < 1000) {
            let tables = [(5, &[1, (1 << precision) - 1][..]), (-3, &frequencies)];
            let model = RunTable::new(-3, &frequencies, precision);
            let shared = MixedTables::new(tables.into_iter(), precision);
            let slots = (0..).zip(&frequencies).flat_map(|(at, &f)| (0..f).map(move |back| (at, f, back)));
            let stride = if cfg!(miri) { 211 } else { 1 };
            for (slot, (at, frequency, back)) in slots.enumerate().step_by(stride) {
                let state = (5 << precision) + slot as u32;
                let (entry, before) = model.take((), state, precision);
                let same = shared.take(1, state, precision);
                assert_eq!((same.0.value(), same.1), (entry.value(), before));
                assert_eq!(any_escape(same.0.bits()), any_escape(entry.bits()));
                assert_eq!(entry.value(), -3 + at);
                assert_eq!(any_escape(entry.bits()), usize::from(at as u16) + 1 == frequencies.len());
                assert_eq!(before, 5 * u32::from(frequency) + u32::from(back));
            }
        }
    }

    #[test]
    fn costs_are_logarithms() {
        for (frequency, bits) in [(1, 3072), (2, 2816), (3, 2667), (2048, 256), (4095, 1), (1448, 385)] {
            assert_eq!(cost(frequency, 12), bits, "{frequency}");
            assert_eq!(cost(frequency, 14), bits + 512, "{frequency}");
        }
    }
}
