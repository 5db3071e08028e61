//! Tables as the decoder looks them up: from the slot of a state to its entry, almost without searching.

use std::hint::select_unpredictable;

use crate::format::table::{Table, with_starts};

/// The number of buckets per table of [`MixedTables`], as a power of two. A bucket is a range of slots of equal size.
pub(crate) const BUCKET_BITS: u32 = 8;

/// The number of buckets, and of entries, that an index of 16 bits can name.
const MIXED_SIZE: usize = 1 << 16;

/// The number of ranges per [`RunTable`], as a power of two and as such. A range is one of equal ranges of slots.
pub(crate) const RANGE_BITS: u32 = 9;
const RANGES: usize = 1 << RANGE_BITS;

/// One table entry. From the lowest bit: `start` (u16), `frequency` (u16), `value` (i16); the highest bit is set for the
/// escape, whose value is the one after the last regular value.
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

    /// The entry as a number. The numbers of many entries are combined with `|` and given to [`any_escape`].
    #[inline(always)]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

/// Whether one of the entries whose [`DecodeEntry::bits`] were combined is an escape.
#[inline(always)]
pub(crate) fn any_escape(bits: u64) -> bool {
    bits >> 63 != 0
}

/// One table or several, as the decoder looks them up.
pub(crate) trait DecodeTables {
    /// Chooses the table of a value.
    type Index: Copy;

    /// The entry that `state` decodes to in a table, of which only the value and the escape bit have a meaning, and the
    /// state after it: `frequency * (state div 2^precision) + state mod 2^precision − start`.
    fn decode(&self, table: Self::Index, state: u32, precision: u32) -> (DecodeEntry, u32);
}

/// A table that codes whole runs: eight bytes for each of 512 ranges of its slots, and for each entry.
#[derive(Clone, Debug)]
pub(crate) struct RunTable {
    ranges: Box<[Range; RANGES]>,
    entries: Box<[DecodeEntry]>,
}

/// The two first entries that have slots in a range. From the lowest bit: the first one's `start` (u16), frequency (u16)
/// and value (i16), the second one's frequency (14 bits, 0 when there is none), and whether the first and the second one
/// are the escape. The second one starts where the first one ends, and its value is the next one.
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
    /// The lookup of `table`, whose frequencies sum to 2^precision.
    pub(crate) fn new(table: &Table, precision: u32) -> Self {
        let entries: Box<[DecodeEntry]> = entries(table).collect();
        let mut at = 0;
        let ranges = std::array::from_fn(|range| {
            let slot = (range as u32) << (precision - RANGE_BITS);
            at += entries[at + 1..].iter().take_while(|entry| entry.start() <= slot).count();
            Range::new(entries[at], entries.get(at + 1).copied())
        });
        Self { ranges: Box::new(ranges), entries }
    }

    /// Loads all ranges into the cache at once, which the tables of the channels before may have displaced.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        let lines = self.ranges.iter().step_by(64 / size_of::<Range>());
        std::hint::black_box(lines.fold(0, |sum, range| sum ^ range.0));
    }

    /// The range whose number is in the lowest bits of `number`.
    #[inline(always)]
    pub(crate) fn range(&self, number: u32) -> Range {
        self.ranges[number as usize % RANGES]
    }

    /// The entry of a slot, for slots beyond the first two entries of their range.
    #[cold]
    pub(crate) fn search(&self, slot: u32) -> DecodeEntry {
        self.entries[self.entries.partition_point(|entry| entry.start() <= slot) - 1]
    }
}

impl DecodeTables for RunTable {
    type Index = ();

    #[inline(always)]
    fn decode(&self, (): (), state: u32, precision: u32) -> (DecodeEntry, u32) {
        let (slot, quotient) = (state & ((1 << precision) - 1), state >> precision);
        let Range(bits) = self.range(state >> (precision - RANGE_BITS));
        let (over, first) = (slot - (bits as u32 & 0xffff), bits as u32 >> 16);
        let in_second = over >= first;
        let frequency = select_unpredictable(in_second, (bits >> 48) as u32 & 0x3fff, first);
        let over = over - select_unpredictable(in_second, first, 0);
        if over < frequency {
            let value = bits.wrapping_add(u64::from(in_second) << 32) & 0xffff << 32;
            let escape = bits << u32::from(!in_second) & 1 << 63;
            return (DecodeEntry(value | escape), frequency * quotient + over);
        }
        let entry = self.search(slot);
        (entry, entry.frequency() * quotient + slot - entry.start())
    }
}

/// Tables of which any may code the next value. Both arrays have an element for every 16-bit index, so that no index is
/// out of bounds; memory pages beyond the elements in use are never touched.
#[derive(Clone, Debug)]
pub(crate) struct MixedTables {
    /// For each table and each of its 256 buckets, the index of the entry of the bucket's first slot; of the entry before
    /// it when that one is the last of its table.
    buckets: Box<[u16; MIXED_SIZE]>,
    /// The bits of the [`DecodeEntry`]s of all tables.
    entries: Box<[u64; MIXED_SIZE + 1]>,
}

impl MixedTables {
    /// The lookup of at most 255 tables with at most 65535 entries in all. A table of no value is added after them: it
    /// has one entry, and decoding it leaves every state as it is.
    pub(crate) fn new(tables: &[Table], precision: u32) -> Self {
        let (mut buckets, mut all) = (vec![0; MIXED_SIZE], vec![0; MIXED_SIZE + 1]);
        let (mut of_tables, mut left) = (buckets.chunks_exact_mut(1 << BUCKET_BITS), &mut all[..]);
        let mut first = 0;
        for (table, buckets) in tables.iter().zip(of_tables.by_ref()) {
            let entries: Vec<DecodeEntry> = entries(table).collect();
            fill_buckets(buckets, &entries, precision - BUCKET_BITS, |at| (first + at) as u16);
            for (to, entry) in left.iter_mut().zip(&entries) {
                *to = entry.0;
            }
            left = &mut left[entries.len()..];
            first += entries.len();
        }
        of_tables.next().into_iter().for_each(|buckets| buckets.fill(first as u16));
        // The entry of no value has every slot; the one after it starts beyond every slot.
        left.iter_mut().zip([1 << (16 + precision), u16::MAX.into()]).for_each(|(to, bits)| *to = bits);
        let sized = "a vector made with this length";
        Self { buckets: buckets.try_into().expect(sized), entries: all.try_into().expect(sized) }
    }

    /// The index of the entry at which the search for the slot of `state` begins.
    #[inline(always)]
    fn bucket_of(&self, table: u8, state: u32, precision: u32) -> u32 {
        let bucket = state >> (precision - BUCKET_BITS) & ((1 << BUCKET_BITS) - 1);
        self.bucket(u32::from(table) << BUCKET_BITS | bucket)
    }

    /// The index of the entry at which the search for the slots of a bucket begins. `number` is the table in the upper
    /// and the bucket in the lower eight of its 16 bits.
    #[inline(always)]
    pub(crate) fn bucket(&self, number: u32) -> u32 {
        self.buckets[usize::from(number as u16)].into()
    }

    /// The entry with index `at` and the next one.
    #[inline(always)]
    pub(crate) fn pair(&self, at: u32) -> [DecodeEntry; 2] {
        let at = usize::from(at as u16);
        [DecodeEntry(self.entries[at]), DecodeEntry(self.entries[at + 1])]
    }

    /// The entry of a slot, searched from index `at` up. Most buckets have slots of one or two entries, between which no
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
    type Index = u8;

    #[inline(always)]
    fn decode(&self, table: u8, state: u32, precision: u32) -> (DecodeEntry, u32) {
        let slot = state & ((1 << precision) - 1);
        let entry = self.entry(self.bucket_of(table, state, precision), slot);
        (entry, entry.frequency() * (state >> precision) + slot - entry.start())
    }
}

/// The entries of a table, the escape's last.
fn entries(table: &Table) -> impl Iterator<Item = DecodeEntry> {
    let escape = table.regular();
    with_starts(table.frequencies()).enumerate().map(move |(at, (frequency, start))| {
        let value = table.low().wrapping_add_unsigned(at as u16).cast_unsigned();
        let escape_bit = u64::from(at == escape) << 63;
        DecodeEntry(u64::from(start) | u64::from(frequency) << 16 | u64::from(value) << 32 | escape_bit)
    })
}

/// Sets each bucket of `2^bits` slots to `index` of the entry of its first slot; of the entry before it when that one is
/// the last.
fn fill_buckets(buckets: &mut [u16], entries: &[DecodeEntry], bits: u32, index: impl Fn(usize) -> u16) {
    let mut begin = 0;
    for (at, pair) in entries.windows(2).enumerate() {
        let next = pair[1].start().div_ceil(1 << bits) as usize;
        let end = if at + 2 < entries.len() { next } else { buckets.len() };
        buckets[begin..end].fill(index(at));
        begin = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        TableName,
        format::cursor::{Cursor, push_number},
    };

    fn table(low: i16, frequencies: &[u16], precision: u32) -> Table {
        let mut bytes = low.to_le_bytes().to_vec();
        push_number(frequencies.len() - 1, &mut bytes);
        frequencies.iter().for_each(|&frequency| push_number(frequency.into(), &mut bytes));
        Table::parse(&mut Cursor::new(&bytes), precision, TableName::Context(0)).unwrap()
    }

    #[test]
    fn every_slot_decodes_to_its_entry() {
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
            let tables =
                [table(5, &[1, (1 << precision) - 1], precision), table(-3, &frequencies, precision)];
            let run_table = RunTable::new(&tables[1], precision);
            let mixed_tables = MixedTables::new(&tables, precision);
            let slots = (0..).zip(&frequencies).flat_map(|(at, &f)| (0..f).map(move |back| (at, f, back)));
            let stride = if cfg!(miri) { 211 } else { 1 };
            for (slot, (at, frequency, back)) in slots.enumerate().step_by(stride) {
                let state = (5 << precision) + slot as u32;
                let (entry, before) = run_table.decode((), state, precision);
                let same = mixed_tables.decode(1, state, precision);
                assert_eq!((same.0.value(), same.1), (entry.value(), before));
                assert_eq!(any_escape(same.0.bits()), any_escape(entry.bits()));
                assert_eq!(entry.value(), -3 + at);
                assert_eq!(any_escape(entry.bits()), usize::from(at as u16) + 1 == frequencies.len());
                assert_eq!(before, 5 * u32::from(frequency) + u32::from(back));
            }
        }
    }
}
