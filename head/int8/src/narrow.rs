//! Narrowing of accumulators to activations or symbols: the numbers it takes, and the loop over pixels.

use crate::Error;

mod sealed {
    /// Keeps [`super::Output`] to types of one or two bytes of which every bit pattern is a value.
    pub trait Sealed {
        /// Converts a value that is known to fit.
        fn narrow(value: i32) -> Self;
    }
}

pub(crate) use sealed::Sealed;

/// A type that accumulators are narrowed to: u8, i8 or i16.
pub trait Output: Copy + Into<i32> + Sealed + 'static {
    /// Smallest value of the type.
    const MIN: Self;
    /// Largest value of the type.
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

/// The multipliers of a layer's channels, the zero point and the clamp of its output.
#[derive(Debug, Clone)]
pub(crate) struct Narrowing<T> {
    /// In groups of eight; the last group is filled up with ones.
    mults: Vec<[f32; 8]>,
    channels: usize,
    zero: T,
    low: T,
    high: T,
}

impl<T: Output> Narrowing<T> {
    /// Checks one multiplier per channel, each a positive normal number. The clamp is the whole range of `T`.
    pub(crate) fn new(mults: &[f32], zero: T) -> Result<Narrowing<T>, Error> {
        for (channel, &value) in mults.iter().enumerate() {
            if !(value.is_normal() && value > 0.0) {
                return Err(Error::Multiplier { channel, value });
            }
        }
        let group = |chunk: &[f32]| std::array::from_fn(|i| chunk.get(i).copied().unwrap_or(1.0));
        let groups = mults.chunks(8).map(group).collect();
        Ok(Narrowing { mults: groups, channels: mults.len(), zero, low: T::MIN, high: T::MAX })
    }

    /// Clamps to `low..=high` instead.
    pub(crate) fn clamp(self, low: T, high: T) -> Result<Narrowing<T>, Error> {
        if low.into() > high.into() {
            return Err(Error::Clamp { low: low.into(), high: high.into() });
        }
        Ok(Narrowing { low, high, ..self })
    }

    /// Number of channels, that is of multipliers.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// The bounds that a product is clamped to, and the zero point that is then added.
    pub(crate) fn bounds(&self) -> (f32, f32, i32) {
        let zero: i32 = self.zero.into();
        ((self.low.into() - zero) as f32, (self.high.into() - zero) as f32, zero)
    }

    /// Calls `narrow` for every eight accumulators and their multipliers. `acc` holds `lanes` accumulators per pixel, of
    /// which the first [`Narrowing::channels`] count; `output` holds that many values per pixel.
    ///
    /// It is compiled into its caller, which has the instructions enabled that `narrow` uses.
    #[inline(always)]
    pub(crate) fn by_eight(
        &self,
        acc: &[i32],
        lanes: usize,
        output: &mut [T],
        narrow: impl Fn(&[i32; 8], &[f32; 8], &mut [T; 8]),
    ) {
        for (acc, output) in acc.chunks_exact(lanes).zip(output.chunks_exact_mut(self.channels)) {
            let (whole, rest) = output.as_chunks_mut::<8>();
            let (groups, last) = acc[..self.channels].as_chunks::<8>();
            for ((acc, mults), output) in groups.iter().zip(&self.mults).zip(whole) {
                narrow(acc, mults, output);
            }
            if !rest.is_empty() {
                let (mut acc, mut output) = ([0; 8], [T::MIN; 8]);
                acc[..last.len()].copy_from_slice(last);
                narrow(&acc, &self.mults[groups.len()], &mut output);
                rest.copy_from_slice(&output[..rest.len()]);
            }
        }
    }
}
