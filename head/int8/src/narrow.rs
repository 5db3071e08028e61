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
    /// Filled up with ones to a multiple of sixteen.
    mults: Vec<f32>,
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
        let (channels, mut mults) = (mults.len(), mults.to_vec());
        mults.resize(channels.next_multiple_of(16), 1.0);
        Ok(Narrowing { mults, channels, zero, low: T::MIN, high: T::MAX })
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

    /// Calls `narrow` for every `N` accumulators and their multipliers; `N` divides sixteen. `acc` holds `lanes`
    /// accumulators per pixel, of which the first [`Narrowing::channels`] count; `output` holds that many values per
    /// pixel.
    ///
    /// It is compiled into its caller, which has the instructions enabled that `narrow` uses.
    #[inline(always)]
    pub(crate) fn by<const N: usize>(
        &self,
        acc: &[i32],
        lanes: usize,
        output: &mut [T],
        narrow: impl Fn(&[i32; N], &[f32; N], &mut [T; N]),
    ) {
        let (mults, _) = self.mults.as_chunks::<N>();
        for pixel in 0..acc.len() / lanes {
            for (group, mults) in mults.iter().take(self.channels.div_ceil(N)).enumerate() {
                let acc = &acc[pixel * lanes + group * N..];
                let output = &mut output[pixel * self.channels + group * N..];
                // The last group of a pixel may write into the next pixel, which is narrowed after it.
                match (acc.first_chunk::<N>(), output.first_chunk_mut::<N>()) {
                    (Some(acc), Some(output)) => narrow(acc, mults, output),
                    _ => {
                        let (mut last, mut narrowed) = ([0; N], [T::MIN; N]);
                        let count = (self.channels - group * N).min(N);
                        last[..count].copy_from_slice(&acc[..count]);
                        narrow(&last, mults, &mut narrowed);
                        output[..count].copy_from_slice(&narrowed[..count]);
                    }
                }
            }
        }
    }
}
