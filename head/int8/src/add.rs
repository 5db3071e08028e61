//! The sum of two tensors, each with a scale and a zero point of its own.

use crate::{Error, Isa, Term, isa::Cpu, kernels, spec::length, sum::Sum};

/// A sum of two tensors, ready to run:
///
/// ```text
/// y = clamp(round_half_even((a - a_zero) * a_mult + (b - b_zero) * b_mult) + zero)
/// ```
///
/// The differences are exact. Each product is rounded to f32 and then their sum is: no fused multiply-add.
///
/// ```
/// use narrows_int8::{Add, Isa, Term};
///
/// let add = Add::new(Term { zero: 128, mult: 1.0 }, Term { zero: 0, mult: 0.25 }, 100, Isa::detect())?;
/// let mut output = [0; 3];
/// add.run(&[138, 128, 255], &[4, 2, 255], &mut output)?;
/// assert_eq!(output, [111, 100, 255]);
/// # Ok::<(), narrows_int8::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Add {
    sum: Sum,
    cpu: Cpu,
}

impl Add {
    /// Checks the operands' quantisation; `zero` is the zero point of the output.
    ///
    /// # Errors
    /// [`Error::Term`] for a multiplier out of range, [`Error::Isa`] if this processor does not run `isa`.
    pub fn new(a: Term, b: Term, zero: u8, isa: Isa) -> Result<Add, Error> {
        let sum = Sum::new(a, b, zero)?;
        let cpu = Cpu::detect(isa).ok_or(Error::Isa(isa))?;
        Ok(Add { sum, cpu })
    }

    /// Adds element by element.
    ///
    /// # Errors
    /// [`Error::Length`] unless all three are of one length.
    pub fn run(&self, a: &[u8], b: &[u8], output: &mut [u8]) -> Result<(), Error> {
        length("b", b.len(), a.len())?;
        length("output", output.len(), a.len())?;
        match self.cpu {
            Cpu::Portable => kernels::portable::add(&self.sum, a, b, output),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2(cpu) => kernels::avx2::add(cpu, &self.sum, a, b, output),
            #[cfg(target_arch = "x86_64")]
            Cpu::AvxVnni(cpu) => kernels::avx2::add(cpu.avx2(), &self.sum, a, b, output),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512(cpu) => kernels::avx512::add(cpu, &self.sum, a, b, output),
            #[cfg(target_arch = "aarch64")]
            Cpu::Neon(cpu) => kernels::neon::add(cpu, &self.sum, a, b, output),
            #[cfg(target_arch = "aarch64")]
            Cpu::NeonDot(cpu) => kernels::neon::add(cpu.neon(), &self.sum, a, b, output),
        }
        Ok(())
    }
}
