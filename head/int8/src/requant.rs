//! Requantisation: accumulators to activations or symbols.

use crate::{
    Error, Isa,
    isa::Cpu,
    kernels,
    narrow::{Narrowing, Output},
    spec::length,
};

/// The requantisation of a layer: `clamp(round_half_even(f32(acc) * mult) + zero)` with one multiplier per channel.
///
/// ```
/// use narrows_int8::{Isa, Requant};
///
/// let requant = Requant::<u8>::new(&[0.5, 2.0], 10)?;
/// let mut output = [0; 4];
/// requant.run(Isa::detect(), &[5, 5, -100, 200], &mut output)?;
/// assert_eq!(output, [12, 20, 0, 255]);
/// # Ok::<(), narrows_int8::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Requant<T>(Narrowing<T>);

impl<T: Output> Requant<T> {
    /// Takes one multiplier per channel and the zero point of the output.
    ///
    /// The clamp is the whole range of `T` until [`Requant::clamp`] changes it.
    ///
    /// # Errors
    /// [`Error::Multiplier`] for a multiplier that is not a positive normal number.
    pub fn new(mults: &[f32], zero: T) -> Result<Requant<T>, Error> {
        Narrowing::new(mults, zero).map(Requant)
    }

    /// Clamps to `low..=high` instead, for example from the zero point up where the layer ends in a ReLU.
    ///
    /// # Errors
    /// [`Error::Clamp`] if `low` is above `high`.
    pub fn clamp(self, low: T, high: T) -> Result<Requant<T>, Error> {
        self.0.clamp(low, high).map(Requant)
    }

    /// Number of channels, that is of multipliers.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.0.channels()
    }

    /// Narrows accumulators in row, column, channel order with the kernels of `isa`.
    ///
    /// # Errors
    /// [`Error::Isa`] if this processor does not run `isa`; [`Error::Length`] unless `output` is as long as `acc` and
    /// both hold whole pixels.
    pub fn run(&self, isa: Isa, acc: &[i32], output: &mut [T]) -> Result<(), Error> {
        let cpu = Cpu::detect(isa).ok_or(Error::Isa(isa))?;
        length("output", output.len(), acc.len())?;
        let channels = self.channels();
        if channels == 0 || !acc.len().is_multiple_of(channels) {
            return Err(Error::Length { what: "accumulators", found: acc.len(), expected: channels });
        }
        self.pixels(cpu, acc, channels, output);
        Ok(())
    }

    /// Narrows pixels of `lanes` accumulators each, of which the first [`Requant::channels`] count.
    pub(crate) fn pixels(&self, cpu: Cpu, acc: &[i32], lanes: usize, output: &mut [T]) {
        match cpu {
            Cpu::Portable => kernels::portable::narrow(&self.0, acc, lanes, output),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2(cpu) => kernels::avx2::narrow(cpu, &self.0, acc, lanes, output),
            #[cfg(target_arch = "x86_64")]
            Cpu::AvxVnni(cpu) => kernels::avx2::narrow(cpu.avx2(), &self.0, acc, lanes, output),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512(cpu) => kernels::avx512::narrow(cpu, &self.0, acc, lanes, output),
            #[cfg(target_arch = "aarch64")]
            Cpu::Neon(cpu) => kernels::neon::narrow(cpu, &self.0, acc, lanes, output),
            #[cfg(target_arch = "aarch64")]
            Cpu::NeonDot(cpu) => kernels::neon::narrow(cpu.neon(), &self.0, acc, lanes, output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_to_even() {
        let requant = Requant::<i8>::new(&[0.5], 0).unwrap();
        let mut output = [0; 7];
        requant.run(Isa::Portable, &[1, 3, 5, -1, -3, -5, 7], &mut output).unwrap();
        assert_eq!(output, [0, 2, 2, 0, -2, -2, 4]);
    }

    #[test]
    fn huge_products_are_clamped() {
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
