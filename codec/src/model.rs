//! What coding needs of a table, computed once: no division is left, and almost no search.

/// The largest number of entries that a bucket can name without a search.
const NAMED: usize = 256;

/// Buckets of a table and their logarithm.
const BUCKETS: usize = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 9;

/// How an entry moves the state of an encoder, in 16 bytes: from the lowest, `limit` (u32), `reciprocal` (u32),
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
        Self([wide << (31 - precision) | reciprocal << 32, start | gap << 16 | shift << 32])
    }

    /// The smallest state that gives off a word first.
    #[inline(always)]
    pub(crate) fn limit(self) -> u32 {
        self.0[0] as u32
    }

    /// The state after this entry was coded, for a state below the limit:
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

/// The tables of a family as a decoder sees them: half a kilobyte for each and eight bytes per entry, so that those of
/// many bundles stay in the cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Models {
    finders: Vec<Finder>,
    /// Of all tables, one after the other, and after each table one whose start is no slot.
    entries: Vec<Entry>,
}

/// Where the entries of one table are.
#[derive(Clone, Debug)]
struct Finder {
    first: u32,
    rough: u32,
    /// For each range of slots of the same length, the entry of the first one, shifted right by `rough`.
    buckets: [u8; BUCKETS],
}

impl Models {
    /// Adds a table.
    pub(crate) fn push(&mut self, low: i16, frequencies: &[u16], precision: u32) {
        let escape = frequencies.len() - 1;
        let entry = |(at, (frequency, start)): (usize, (u16, u32))| {
            let value = low.wrapping_add_unsigned(at as u16).cast_unsigned();
            let flag = u64::from(at == escape) << 63;
            Entry(u64::from(start) | u64::from(frequency) << 16 | u64::from(value) << 32 | flag)
        };
        let first = self.entries.len();
        self.entries.extend(starts(frequencies).enumerate().map(entry));
        self.entries.push(Entry(1 << precision));
        let entries = &self.entries[first..];
        let rough = (escape / NAMED + 1).next_power_of_two().trailing_zeros();
        let mut at = 0;
        let buckets = std::array::from_fn(|bucket| {
            let slot = (bucket as u32) << (precision - BUCKET_BITS);
            while entries[at + 1].start() <= slot {
                at += 1;
            }
            (at >> rough) as u8
        });
        self.finders.push(Finder { first: first as u32, rough, buckets });
    }

    /// The entry of a state's slot in one of the tables, and the state before that entry was coded:
    /// `frequency * (state div 2^precision) + state mod 2^precision − start`.
    ///
    /// Most buckets lie in one entry or two, between which no branch is needed.
    #[inline(always)]
    pub(crate) fn take(&self, table: usize, state: u32, precision: u32) -> (Entry, u32) {
        let finder = &self.finders[table];
        let slot = state & ((1 << precision) - 1);
        let bucket = (state >> (precision - BUCKET_BITS)) as usize % BUCKETS;
        let at = finder.first + (u32::from(finder.buckets[bucket]) << finder.rough);
        let mut at = at as usize;
        let (second, first) = (self.entries[at + 1], self.entries[at]);
        let mut entry = Entry(std::hint::select_unpredictable(slot >= second.start(), second.0, first.0));
        while slot - entry.start() >= entry.frequency() {
            at += 1;
            entry = self.entries[at];
        }
        (entry, entry.frequency() * (state >> precision) + slot - entry.start())
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
                let last = step.limit() / f - 1;
                for quotient in [(1 << 15) / f + 1, 4095, 65535, last / 3, last - 1, last] {
                    for state in [quotient * f, quotient * f + f - 1] {
                        if state < step.limit() {
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
        for (frequencies, precision) in [
            (vec![1, 4000, 95], 12),
            (vec![8; 512], 12),
            (many(4096, 12), 12),
            (many(256, 12), 12),
            (many(257, 14), 14),
            (many(16384, 14), 14),
            (vec![1, 16383], 14),
        ] {
            let mut models = Models::default();
            models.push(5, &[1, (1 << precision) - 1], precision);
            models.push(-3, &frequencies, precision);
            let slots = (0..).zip(&frequencies).flat_map(|(at, &f)| (0..f).map(move |back| (at, f, back)));
            let stride = if cfg!(miri) { 61 } else { 1 };
            for (slot, (at, frequency, back)) in slots.enumerate().step_by(stride) {
                let state = (5 << precision) + slot as u32;
                let (entry, before) = models.take(1, state, precision);
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
