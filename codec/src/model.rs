//! What coding needs of a table, computed once: no division and no search is left.

#[cfg(target_arch = "x86_64")]
use crate::avx2::{self, Avx2};

/// The sum of a table's frequencies.
pub(crate) const SCALE: usize = 1 << 12;

/// One table as encoder and decoder see it.
pub(crate) trait Model {
    /// An entry of the table in as few bytes as it needs.
    type Entry: Copy + Default;

    fn shorten(entry: u16) -> Self::Entry;
    fn lengthen(entry: Self::Entry) -> u16;

    /// How an entry moves a state.
    fn step(&self, entry: Self::Entry) -> &Step;

    /// The entry that a slot below [`SCALE`] belongs to.
    fn entry(&self, slot: usize) -> Self::Entry;

    /// Codes whole groups as [`rans::encode`](crate::rans::encode) would, from the last to the first, where this
    /// processor has a faster way for this number of lanes. Returns the number of words at the front of `words`.
    #[inline(always)]
    fn encode_fast<const N: usize>(
        &self,
        _states: &mut [u32; N],
        _groups: &[[Self::Entry; N]],
        _words: &mut WordBlock,
    ) -> Option<usize> {
        None
    }
}

/// Symbols of one block: a multiple of every lane count, and a power of two.
pub(crate) const BLOCK: usize = 256;

/// The bytes of a block's words, with room for what a vector writes past them.
pub(crate) type WordBlock = [u8; 2 * BLOCK + 16];

/// How one entry moves a state. Fields of 32 bits, so that each is one operand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step {
    /// 2^44 / frequency, rounded up.
    reciprocal: u64,
    /// The smallest state that gives off a word first: frequency · 2^19.
    pub(crate) limit: u32,
    start: u32,
    /// 4096 − frequency.
    gap: u32,
}

impl Step {
    fn new(frequency: u16, start: u32) -> Self {
        let frequency = u32::from(frequency);
        let reciprocal = (1_u64 << 44).div_ceil(frequency.into());
        Self { reciprocal, limit: frequency << 19, start, gap: SCALE as u32 - frequency }
    }

    /// The state after this entry was coded, for a state below `limit`:
    /// `state div frequency * 4096 + state mod frequency + start`.
    ///
    /// `quotient` is exactly `state div frequency`. The reciprocal is too large by less than 1, so the quotient is
    /// too large by less than `state / 2^44 < frequency / 2^25`, which is less than `1 / frequency` and carries none
    /// to the next integer. The product is below `2^63 + 2^31`.
    #[inline(always)]
    pub(crate) fn advance(&self, state: u32) -> u32 {
        let quotient = ((u64::from(state) * self.reciprocal) >> 44) as u32;
        state + quotient * self.gap + self.start
    }

    /// The state before this entry was coded, for a state whose slot is this entry's:
    /// `frequency * (state div 4096) + state mod 4096 − start`.
    #[inline(always)]
    pub(crate) fn retreat(&self, state: u32) -> u32 {
        state - (state >> 12) * self.gap - self.start
    }
}

/// A table of at most 256 entries.
#[derive(Clone, Debug)]
pub(crate) struct Narrow {
    steps: [Step; 256],
    slots: [u8; SCALE],
    #[cfg(target_arch = "x86_64")]
    vectors: Option<(Avx2, Box<[avx2::Packed; 256]>)>,
}

impl Narrow {
    /// The model of a table with these frequencies, at most 256 that sum to 4096.
    pub(crate) fn new(frequencies: &[u16]) -> Self {
        let mut model = Self {
            steps: [Step::default(); 256],
            slots: [0; SCALE],
            #[cfg(target_arch = "x86_64")]
            vectors: fearless_simd::Level::new().as_avx2().map(|token| (token, packed(frequencies))),
        };
        model.steps.iter_mut().zip(steps(frequencies)).for_each(|(to, step)| *to = step);
        model.slots.iter_mut().zip(slots(frequencies)).for_each(|(to, entry)| *to = entry as u8);
        model
    }
}

impl Model for Narrow {
    type Entry = u8;

    #[inline(always)]
    fn shorten(entry: u16) -> u8 {
        entry as u8
    }

    #[inline(always)]
    fn lengthen(entry: u8) -> u16 {
        entry.into()
    }

    #[inline(always)]
    fn step(&self, entry: u8) -> &Step {
        &self.steps[usize::from(entry)]
    }

    #[inline(always)]
    fn entry(&self, slot: usize) -> u8 {
        self.slots[slot]
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn encode_fast<const N: usize>(
        &self,
        states: &mut [u32; N],
        groups: &[[u8; N]],
        words: &mut WordBlock,
    ) -> Option<usize> {
        let (token, table) = self.vectors.as_ref()?;
        let states = <&mut [u32; 8]>::try_from(&mut states[..]).ok()?;
        let (groups, _) = groups.as_flattened().as_chunks();
        let taken;
        (*states, taken) = avx2::encode(*token, *states, groups, table, words);
        Some(taken)
    }
}

/// A table of more entries.
#[derive(Clone, Debug)]
pub(crate) struct Wide {
    steps: Box<[Step]>,
    slots: [u16; SCALE],
}

impl Wide {
    /// The model of a table with these frequencies, which sum to 4096.
    pub(crate) fn new(frequencies: &[u16]) -> Self {
        let mut model = Self { steps: steps(frequencies).collect(), slots: [0; SCALE] };
        model.slots.iter_mut().zip(slots(frequencies)).for_each(|(to, entry)| *to = entry);
        model
    }
}

impl Model for Wide {
    type Entry = u16;

    #[inline(always)]
    fn shorten(entry: u16) -> u16 {
        entry
    }

    #[inline(always)]
    fn lengthen(entry: u16) -> u16 {
        entry
    }

    #[inline(always)]
    fn step(&self, entry: u16) -> &Step {
        &self.steps[usize::from(entry)]
    }

    #[inline(always)]
    fn entry(&self, slot: usize) -> u16 {
        self.slots[slot]
    }
}

#[cfg(target_arch = "x86_64")]
fn packed(frequencies: &[u16]) -> Box<[avx2::Packed; 256]> {
    let mut table = Box::new([[0; 2]; 256]);
    let packed = starts(frequencies).map(|(frequency, start)| avx2::pack(frequency, start));
    table.iter_mut().zip(packed).for_each(|(to, entry)| *to = entry);
    table
}

fn steps(frequencies: &[u16]) -> impl Iterator<Item = Step> {
    starts(frequencies).map(|(frequency, start)| Step::new(frequency, start))
}

/// Each frequency and the sum of those before it.
fn starts(frequencies: &[u16]) -> impl Iterator<Item = (u16, u32)> {
    frequencies.iter().scan(0, |end, &frequency| {
        let start = *end;
        *end += u32::from(frequency);
        Some((frequency, start))
    })
}

fn slots(frequencies: &[u16]) -> impl Iterator<Item = u16> {
    (0..).zip(frequencies).flat_map(|(entry, &frequency)| std::iter::repeat_n(entry, frequency.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_exact_for_every_frequency_at_the_borders_of_the_quotients() {
        for frequency in 1..SCALE as u16 {
            let step = Step::new(frequency, 1);
            let f = u32::from(frequency);
            let last = step.limit / f - 1;
            for quotient in [8, 9, 4095, 65535, last / 3, last - 1, last] {
                for state in [quotient * f, quotient * f + f - 1] {
                    let coded = state / f * 4096 + state % f + 1;
                    assert_eq!(step.advance(state), coded, "{frequency} {state}");
                    assert_eq!(step.retreat(coded), state, "{frequency} {state}");
                }
            }
        }
    }

    #[test]
    fn slots_lead_to_their_entries() {
        let model = Narrow::new(&[1, 4000, 95]);
        let found: Vec<_> = [0, 1, 4000, 4001, 4095].map(|slot| model.entry(slot)).into();
        assert_eq!(found, [0, 1, 1, 2, 2]);
        let frequencies: Vec<u16> = std::iter::repeat_n(8, 512).collect();
        let model = Wide::new(&frequencies);
        assert!((0..SCALE).all(|slot| usize::from(model.entry(slot)) == slot / 8));
    }
}
