//! The sum of two tensors, each with a scale and zero point of its own.

use crate::{Error, Isa, portable, spec::length};

/// One side of an [`Add`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// Zero point, as stored.
    pub zero: u8,
    /// Its scale over the output's: a normal number above 0, at most 65536.
    pub mult: f32,
}

/// Largest multiplier of a term; with it no product is near the end of f32.
const MULT_MAX: f32 = 65536.0;

/// A prepared sum:
///
/// ```text
/// y = clamp(round_half_even((a - a_zero) * a_mult + (b - b_zero) * b_mult) + zero)
/// ```
///
/// Differences are exact; each product is rounded to f32, then their sum is: no fused multiply-add.
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
    a: Term,
    b: Term,
    zero: u8,
    isa: Isa,
}

impl Add {
    /// Checks the terms and the output's zero point for `isa`, which this processor must support.
    pub fn new(a: Term, b: Term, zero: u8, isa: Isa) -> Result<Add, Error> {
        for (term, value) in [("a", a.mult), ("b", b.mult)] {
            if !(value.is_normal() && value > 0.0 && value <= MULT_MAX) {
                return Err(Error::Term { term, value });
            }
        }
        if !isa.is_supported() {
            return Err(Error::Isa(isa));
        }
        Ok(Add { a, b, zero, isa })
    }

    /// Adds element by element.
    pub fn run(&self, a: &[u8], b: &[u8], output: &mut [u8]) -> Result<(), Error> {
        length("b", b.len(), a.len())?;
        length("output", output.len(), a.len())?;
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` found AVX2 supported.
            Isa::Avx2 => unsafe { crate::avx2::add(self, a, b, output) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: `new` found NEON supported.
            Isa::Neon | Isa::NeonDot => unsafe { crate::neon::add(self, a, b, output) },
            _ => portable::add(self, a, b, output),
        }
        Ok(())
    }

    /// The two terms, what their sum is clamped to, and the zero point that is then added.
    pub(crate) fn parts(&self) -> ([Term; 2], (f32, f32, i32)) {
        let zero = i32::from(self.zero);
        ([self.a, self.b], (-zero as f32, (255 - zero) as f32, zero))
    }

    /// The loop around `eight`, which adds eight pairs. It is inlined into a function that has the instructions
    /// `eight` needs. The three slices are of one length.
    #[inline(always)]
    pub(crate) fn eights(
        a: &[u8],
        b: &[u8],
        output: &mut [u8],
        eight: impl Fn(&[u8; 8], &[u8; 8], &mut [u8; 8]),
    ) {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
        let (output, rest) = output.as_chunks_mut::<8>();
        for ((a, b), output) in a.iter().zip(b).zip(output) {
            eight(a, b, output);
        }
        if !rest.is_empty() {
            let (mut a, mut b, mut output) = ([0; 8], [0; 8], [0; 8]);
            a[..rest.len()].copy_from_slice(a_rest);
            b[..rest.len()].copy_from_slice(b_rest);
            eight(&a, &b, &mut output);
            rest.copy_from_slice(&output[..rest.len()]);
        }
    }
}
