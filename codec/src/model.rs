//! What coding needs of a table, computed once: no division is left, and almost no search.

/// The largest number of entries that a bucket can name without a search.
const NAMED: usize = 256;

/// Buckets of a table of which any may be next, as a logarithm.
pub(crate) const PLACE_BITS: u32 = 8;

/// As many places as 16 bits can name.
const PLACES: usize = 1 << 16;

/// Buckets of a table that whole runs have, and their logarithm.
const BUCKETS: usize = 1 << BUCKET_BITS;
pub(crate) const BUCKET_BITS: u32 = 9;

/// How an entry moves the state of an encoder, in 16 bytes: from the lowest, `last` (u32), `reciprocal` (u32),
/// `start` (u16), `gap` (u16), `shift` (u32).
///
/// For a frequency of 2 and more and s the least power with `2^s >= frequency`, the reciprocal is
/// `2^(s + 31) / frequency` rounded up and the shift `s + 31`. It is too large by less than 1, so the quotient is too
/// large by less than `state / 2^(s + 31) < 1 / frequency` for states below 2^31, and exact. For a frequency of 1 the
/// quotient comes out as `state − 1`, and `start` is larger by the missing `gap`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step(pub(crate) [u64; 2]);

impl Step {
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
    pub(crate) const NOTHING: Self = Self([0x7fff_ffff, 0]);

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
pub(crate) struct Entry(u64);

impl Entry {
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

/// Whether gathered [`Entry::bits`] hold an escape.
#[inline(always)]
pub(crate) fn any_escape(bits: u64) -> bool {
    bits >> 63 != 0
}

/// Tables as a decoder sees them: eight bytes per entry and for each half a kilobyte, so that those of many bundles stay in
/// the cache.
pub(crate) trait Entries {
    /// The entry at a place and the next.
    fn pair(&self, at: u32) -> [Entry; 2];

    /// The entry of a slot, which is looked for from `at` on. Most buckets lie in one entry or two, between which no
    /// branch is needed.
    #[inline(always)]
    fn entry(&self, mut at: u32, slot: u32) -> Entry {
        let [first, second] = self.pair(at);
        let mut entry = Entry(std::hint::select_unpredictable(slot >= second.start(), second.0, first.0));
        while slot - entry.start() >= entry.frequency() {
            at += 1;
            [_, entry] = self.pair(at);
        }
        entry
    }

    /// The entry of a state's slot, which is looked for from `at` on, and the state before that entry was coded:
    /// `frequency * (state div 2^precision) + state mod 2^precision − start`.
    #[inline(always)]
    fn take(&self, at: u32, state: u32, precision: u32) -> (Entry, u32) {
        let slot = state & ((1 << precision) - 1);
        let entry = self.entry(at, slot);
        (entry, entry.frequency() * (state >> precision) + slot - entry.start())
    }
}

/// Tables that whole runs have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Models {
    finders: Vec<Finder>,
    /// Of all tables, one after the other.
    entries: Vec<Entry>,
}

/// Tables of which any may be next. Any 16 bits name a place and an entry, so that none is out of bounds; the pages behind
/// those in use are never touched.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// For each table, one after the other, and each of 256 equal ranges of its slots the entry of the first one, or the one
    /// before where that is the last of its table.
    index: Box<[u16; PLACES]>,
    /// The bits of the entries of all tables, one after the other.
    entries: Box<[u64; PLACES + 1]>,
}

/// Where the entries of one table are.
#[derive(Clone, Debug)]
pub(crate) struct Finder {
    first: u32,
    rough: u32,
    /// For each range of slots of the same length, the entry of the first one, or the one before where that is the
    /// last, shifted right by `rough`.
    buckets: [u8; BUCKETS],
}

impl Finder {
    /// Where to look for the entry of a state's slot.
    #[inline(always)]
    pub(crate) fn at(&self, state: u32, precision: u32) -> u32 {
        self.of_bucket(state >> (precision - BUCKET_BITS))
    }

    /// Where to look for the entries of a bucket, of whose number the lowest bits count.
    #[inline(always)]
    pub(crate) fn of_bucket(&self, bucket: u32) -> u32 {
        self.first + (u32::from(self.buckets[bucket as usize % BUCKETS]) << self.rough)
    }
}

impl Models {
    /// Adds a table.
    pub(crate) fn push(&mut self, low: i16, frequencies: &[u16], precision: u32) {
        let first = self.extend(low, frequencies);
        let rough = ((frequencies.len() - 1) / NAMED + 1).next_power_of_two().trailing_zeros();
        let mut buckets = [0; BUCKETS];
        fill(&mut buckets, &self.entries[first..], precision - BUCKET_BITS, |at| (at >> rough) as u8);
        self.finders.push(Finder { first: first as u32, rough, buckets });
    }

    /// Adds the entries of a table and returns the place of the first.
    fn extend(&mut self, low: i16, frequencies: &[u16]) -> usize {
        let first = self.entries.len();
        self.entries.extend(entries(low, frequencies));
        first
    }

    /// Where the entries of a table are.
    #[inline(always)]
    pub(crate) fn finder(&self, table: usize) -> &Finder {
        &self.finders[table]
    }
}

impl Entries for Models {
    #[inline(always)]
    fn pair(&self, at: u32) -> [Entry; 2] {
        let firsts = &self.entries[..self.entries.len() - 1];
        let seconds = &self.entries[1..][..firsts.len()];
        [firsts[at as usize], seconds[at as usize]]
    }
}

impl Shared {
    /// Tables with these lowest values and frequencies, at most 256 with at most 65535 entries in all, and after them one
    /// that stands for no value and leaves any state as it is.
    pub(crate) fn new<'a>(tables: impl Iterator<Item = (i16, &'a [u16])>, precision: u32) -> Self {
        let (mut index, mut all) = (vec![0; PLACES], vec![0; PLACES + 1]);
        let (mut places, mut left) = (index.chunks_exact_mut(1 << PLACE_BITS), &mut all[..]);
        let mut first = 0;
        for ((low, frequencies), places) in tables.zip(places.by_ref()) {
            let found: Vec<Entry> = entries(low, frequencies).collect();
            fill(places, &found, precision - PLACE_BITS, |at| (first + at) as u16);
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
    pub(crate) fn at(&self, table: u8, state: u32, precision: u32) -> u32 {
        let bucket = state >> (precision - PLACE_BITS) & ((1 << PLACE_BITS) - 1);
        self.place(u32::from(table) << PLACE_BITS | bucket)
    }

    /// Where to look for the entries of a bucket of a table: its number and then that of the bucket, in 16 bits.
    #[inline(always)]
    pub(crate) fn place(&self, place: u32) -> u32 {
        self.index[usize::from(place as u16)].into()
    }
}

impl Entries for Shared {
    #[inline(always)]
    fn pair(&self, at: u32) -> [Entry; 2] {
        let at = usize::from(at as u16);
        [Entry(self.entries[at]), Entry(self.entries[at + 1])]
    }
}

/// The entries of a table.
fn entries(low: i16, frequencies: &[u16]) -> impl Iterator<Item = Entry> {
    let escape = frequencies.len() - 1;
    starts(frequencies).enumerate().map(move |(at, (frequency, start))| {
        let value = low.wrapping_add_unsigned(at as u16).cast_unsigned();
        let flag = u64::from(at == escape) << 63;
        Entry(u64::from(start) | u64::from(frequency) << 16 | u64::from(value) << 32 | flag)
    })
}

/// Names, for each range of `2^bits` slots, the place of the entry that the first one is in, among those of its table; of
/// the one before where it is the last.
fn fill<T: Copy>(ranges: &mut [T], entries: &[Entry], bits: u32, name: impl Fn(usize) -> T) {
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
                let step = Step::new(frequency, 1, precision);
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
            let mut models = Models::default();
            let tables = [(5, &[1, (1 << precision) - 1][..]), (-3, &frequencies)];
            tables.iter().for_each(|(low, frequencies)| models.push(*low, frequencies, precision));
            let shared = Shared::new(tables.into_iter(), precision);
            let slots = (0..).zip(&frequencies).flat_map(|(at, &f)| (0..f).map(move |back| (at, f, back)));
            let stride = if cfg!(miri) { 211 } else { 1 };
            for (slot, (at, frequency, back)) in slots.enumerate().step_by(stride) {
                let state = (5 << precision) + slot as u32;
                let (entry, before) = models.take(models.finder(1).at(state, precision), state, precision);
                let same = shared.take(shared.at(1, state, precision), state, precision);
                assert_eq!((same.0.bits(), same.1), (entry.bits(), before));
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
