//! Table entries for the encoder, and what they cost.

/// How coding one table entry changes a state, without a division.
///
/// Sixteen bytes, from the lowest bit: `max_state` (u32), `reciprocal` (u32), `start` (u16), `gap` (u16) and `shift` (u32).
/// `gap` is 2^precision less the frequency, so that `state + quotient * gap + start` is the next state, where `quotient`
/// is the state divided by the frequency: `state * reciprocal >> shift`.
///
/// For a frequency f of 2 and more and the least s with `2^s >= f`, the reciprocal is `2^(s + 31) / f` rounded up and the
/// shift `s + 31`. The reciprocal is too large by less than 1, so the quotient is too large by less than
/// `state / 2^(s + 31) < 1 / f` for states below 2^31, and comes out exact. For a frequency of 1 the reciprocal is
/// 2^32 − 1 and the quotient `state − 1`; `start` is larger by the `gap` that this lacks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EncodeEntry(pub(crate) [u64; 2]);

impl EncodeEntry {
    /// An entry of `frequency`, which is below 2^precision, and `start`.
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

    /// Leaves every state as it is and writes no word.
    pub(crate) const NO_OP: Self = Self([0x7fff_ffff, 0]);

    /// The largest state that can code this entry without writing a word first.
    #[inline(always)]
    pub(crate) fn max_state(self) -> u32 {
        self.0[0] as u32
    }

    /// The state after this entry is coded by a state of at most [`max_state`](Self::max_state):
    /// `state div frequency * 2^precision + state mod frequency + start`.
    #[inline(always)]
    pub(crate) fn advance(self, state: u32) -> u32 {
        let [front, back] = self.0;
        let quotient = ((u64::from(state) * (front >> 32)) >> (back >> 32 & 63)) as u32;
        state + quotient * (back as u32 >> 16) + (back & 0xffff) as u32
    }
}

/// The cost of an entry of this frequency, in 1/256 bit (FORMAT.md, section 4.3).
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
    fn advancing_is_exact_for_every_frequency_where_the_quotient_changes() {
        for precision in [12, 14] {
            for frequency in (1..1 << precision).step_by(if cfg!(miri) { 997 } else { 1 }) {
                let entry = EncodeEntry::new(frequency, 1, precision);
                let f = u32::from(frequency);
                let last = (entry.max_state() + 1) / f - 1;
                for quotient in [(1 << 15) / f + 1, 4095, 65535, last / 3, last - 1, last] {
                    for state in [quotient * f, quotient * f + f - 1] {
                        if state <= entry.max_state() {
                            let coded = ((state / f) << precision) + state % f + 1;
                            assert_eq!(entry.advance(state), coded, "{frequency} {state}");
                        }
                    }
                }
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
