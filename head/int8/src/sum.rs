//! The sum of two quantised tensors: the numbers it takes, and the loop over elements.

use crate::Error;

/// The quantisation of one operand of an [`Add`](crate::Add).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// Zero point, as stored.
    pub zero: u8,
    /// Scale of the operand over scale of the output: a normal number above 0, at most 65536.
    pub mult: f32,
}

/// Largest multiplier of a term. With it a product is at most 255 * 65536, far from the end of f32.
const MULT_MAX: f32 = 65536.0;

/// Two operands and the zero point of their sum, checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sum {
    terms: [Term; 2],
    zero: u8,
}

impl Sum {
    pub(crate) fn new(a: Term, b: Term, zero: u8) -> Result<Sum, Error> {
        for (term, value) in [("a", a.mult), ("b", b.mult)] {
            if !(value.is_normal() && value > 0.0 && value <= MULT_MAX) {
                return Err(Error::Term { term, value });
            }
        }
        Ok(Sum { terms: [a, b], zero })
    }

    /// The two operands.
    pub(crate) fn terms(&self) -> [Term; 2] {
        self.terms
    }

    /// The bounds that the sum is clamped to, and the zero point that is then added.
    pub(crate) fn bounds(&self) -> (f32, f32, i32) {
        let zero = i32::from(self.zero);
        (-zero as f32, (255 - zero) as f32, zero)
    }

    /// Calls `add` for every `N` elements of three slices of one length.
    ///
    /// It is compiled into its caller, which has the instructions enabled that `add` uses.
    #[inline(always)]
    pub(crate) fn by<const N: usize>(
        a: &[u8],
        b: &[u8],
        output: &mut [u8],
        add: impl Fn(&[u8; N], &[u8; N], &mut [u8; N]),
    ) {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<N>(), b.as_chunks::<N>());
        let (output, rest) = output.as_chunks_mut::<N>();
        for ((a, b), output) in a.iter().zip(b).zip(output) {
            add(a, b, output);
        }
        if !rest.is_empty() {
            let (mut a, mut b, mut output) = ([0; N], [0; N], [0; N]);
            a[..rest.len()].copy_from_slice(a_rest);
            b[..rest.len()].copy_from_slice(b_rest);
            add(&a, &b, &mut output);
            rest.copy_from_slice(&output[..rest.len()]);
        }
    }
}
