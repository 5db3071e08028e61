//! Accumulators to activations or symbols.

use crate::{Error, Isa, portable, spec::length};

mod sealed {
    /// Keeps [`super::Output`] to types of which every bit pattern is a value.
    pub trait Sealed {
        /// A value that is known to fit.
        fn narrow(value: i32) -> Self;
    }
}

pub(crate) use sealed::Sealed;

/// A type that accumulators are narrowed to: u8, i8 or i16.
pub trait Output: Copy + Into<i32> + Sealed + 'static {
    /// Its smallest value.
    const MIN: Self;
    /// Its largest value.
    const MAX: Self;
}

macro_rules! output {
    ($($type:ty)*) => {$(
        impl Sealed for $type {
            fn narrow(value: i32) -> Self {
                value as $type
            }
        }
        impl Output for $type {
            const MIN: Self = <$type>::MIN;
            const MAX: Self = <$type>::MAX;
        }
    )*};
}
output!(u8 i8 i16);

/// `clamp(round_half_even(f32(acc) * mult) + zero)` with one multiplier per channel.
#[derive(Debug, Clone)]
pub struct Requant<T> {
    /// In groups of eight; the last group is filled with ones.
    mults: Vec<[f32; 8]>,
    channels: usize,
    zero: T,
    low: T,
    high: T,
}

impl<T: Output> Requant<T> {
    /// One multiplier per channel, each a positive normal number, and the zero point of the output.
    ///
    /// The clamp is the whole range of `T` until [`Requant::clamp`] narrows it.
    pub fn new(mults: &[f32], zero: T) -> Result<Requant<T>, Error> {
        for (channel, &value) in mults.iter().enumerate() {
            if !(value.is_normal() && value > 0.0) {
                return Err(Error::Multiplier { channel, value });
            }
        }
        let group = |chunk: &[f32]| std::array::from_fn(|i| chunk.get(i).copied().unwrap_or(1.0));
        let groups = mults.chunks(8).map(group).collect();
        Ok(Requant { mults: groups, channels: mults.len(), zero, low: T::MIN, high: T::MAX })
    }

    /// Clamps to `low..=high` instead, for example from the zero point up where the layer ends in a ReLU.
    pub fn clamp(self, low: T, high: T) -> Result<Requant<T>, Error> {
        if low.into() > high.into() {
            return Err(Error::Clamp { low: low.into(), high: high.into() });
        }
        Ok(Requant { low, high, ..self })
    }

    /// Channels, that is multipliers.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Narrows accumulators in row, column, channel order.
    pub fn run(&self, isa: Isa, acc: &[i32], output: &mut [T]) -> Result<(), Error> {
        if !isa.is_supported() {
            return Err(Error::Isa(isa));
        }
        length("output", output.len(), acc.len())?;
        if self.channels == 0 || !acc.len().is_multiple_of(self.channels) {
            return Err(Error::Length { what: "accumulators", found: acc.len(), expected: self.channels });
        }
        self.rows(isa, acc, self.channels, output);
        Ok(())
    }

    /// Narrows pixels of `lanes` accumulators each, of which the first `channels` count.
    ///
    /// `isa` is supported by this processor, `lanes` at least `channels`, and `channels` not zero.
    pub(crate) fn rows(&self, isa: Isa, acc: &[i32], lanes: usize, output: &mut [T]) {
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller found AVX2 supported.
            Isa::Avx2 => unsafe { crate::avx2::requant(self, acc, lanes, output) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the caller found NEON supported.
            Isa::Neon | Isa::NeonDot => unsafe { crate::neon::requant(self, acc, lanes, output) },
            _ => portable::requant(self, acc, lanes, output),
        }
    }

    /// What a product is clamped to, and the zero point that is then added.
    pub(crate) fn bounds(&self) -> (f32, f32, i32) {
        let zero: i32 = self.zero.into();
        ((self.low.into() - zero) as f32, (self.high.into() - zero) as f32, zero)
    }

    /// The loop around `eight`, which narrows eight accumulators with their multipliers. It is inlined into a
    /// function that has the instructions `eight` needs.
    #[inline(always)]
    pub(crate) fn pixels(
        &self,
        acc: &[i32],
        lanes: usize,
        output: &mut [T],
        eight: impl Fn(&[i32; 8], &[f32; 8], &mut [T; 8]),
    ) {
        for (acc, output) in acc.chunks_exact(lanes).zip(output.chunks_exact_mut(self.channels)) {
            let (whole, rest) = output.as_chunks_mut::<8>();
            let (groups, last) = acc[..self.channels].as_chunks::<8>();
            for ((acc, mults), output) in groups.iter().zip(&self.mults).zip(whole) {
                eight(acc, mults, output);
            }
            if !rest.is_empty() {
                let (mut acc, mut output) = ([0; 8], [T::MIN; 8]);
                acc[..last.len()].copy_from_slice(last);
                eight(&acc, &self.mults[groups.len()], &mut output);
                rest.copy_from_slice(&output[..rest.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_to_even() {
        let requant = Requant::<i8>::new(&[0.5], 0).unwrap();
        let mut output = [0; 7];
        requant.run(Isa::Portable, &[1, 3, 5, -1, -3, -5, 7], &mut output).unwrap();
        assert_eq!(output, [0, 2, 2, 0, -2, -2, 4]);
    }

    #[test]
    fn huge_values_meet_the_clamp() {
        let requant = Requant::<i16>::new(&[f32::MAX], -3).unwrap();
        let mut output = [0; 3];
        requant.run(Isa::detect(), &[i32::MAX, i32::MIN, 0], &mut output).unwrap();
        assert_eq!(output, [i16::MAX, i16::MIN, -3]);
        let requant = Requant::<u8>::new(&[1.0], 7).unwrap().clamp(7, 9).unwrap();
        requant.run(Isa::detect(), &[i32::MIN, 1, i32::MAX], &mut [0; 3]).unwrap();
    }

    #[test]
    fn multipliers_are_positive_and_normal() {
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0] {
            assert!(matches!(Requant::<u8>::new(&[1.0, bad], 0), Err(Error::Multiplier { channel: 1, .. })));
        }
    }

    #[test]
    fn empty_clamp_and_wrong_lengths_are_refused() {
        let requant = Requant::<u8>::new(&[1.0, 1.0], 0).unwrap();
        assert!(matches!(requant.clone().clamp(2, 1), Err(Error::Clamp { low: 2, high: 1 })));
        assert!(requant.run(Isa::Portable, &[1, 2, 3], &mut [0; 3]).is_err());
        assert!(requant.run(Isa::Portable, &[1, 2], &mut [0; 3]).is_err());
    }
}
