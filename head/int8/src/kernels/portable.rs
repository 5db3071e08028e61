//! Plain Rust, written from the formulas: what every other implementation is compared with.

use crate::{
    ConvKind, ConvSpec, Output, Term,
    narrow::Narrowing,
    spec::{Shape, Size},
    sum::Sum,
};

/// The weights as kernel row, kernel column, input channel, output channel, and the biases as given.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    weights: Vec<i8>,
    bias: Vec<i32>,
}

impl Weights {
    pub(crate) fn new(spec: &ConvSpec) -> Weights {
        let mut weights = Vec::with_capacity(spec.weights.len());
        for row in 0..spec.kernel[0] {
            for column in 0..spec.kernel[1] {
                for input in 0..spec.inputs_per_output() {
                    weights.extend((0..spec.out_channels).map(|o| spec.weight(o, input, row, column)));
                }
            }
        }
        Weights { weights, bias: spec.bias.clone() }
    }
}

/// Fills `acc` (column, channel) with the accumulators of output row `y`.
///
/// Padding holds the input's zero point, so a tap that falls outside the image adds nothing and is skipped.
pub(crate) fn row(shape: &Shape, weights: &Weights, input: &[u8], size: Size, y: usize, acc: &mut [i32]) {
    let (height, width) = size;
    let zero = i32::from(shape.zero);
    let per_tap = weights.weights.len() / (shape.kernel[0] * shape.kernel[1]);
    for (x, acc) in acc.chunks_exact_mut(shape.outputs).enumerate() {
        acc.copy_from_slice(&weights.bias);
        for (tap, weights) in weights.weights.chunks_exact(per_tap).enumerate() {
            let row = y * shape.stride[0] + tap / shape.kernel[1];
            let column = x * shape.stride[1] + tap % shape.kernel[1];
            let (Some(row), Some(column)) =
                (row.checked_sub(shape.pads.top), column.checked_sub(shape.pads.left))
            else {
                continue;
            };
            if row >= height || column >= width {
                continue;
            }
            let pixel = &input[(row * width + column) * shape.inputs..][..shape.inputs];
            match shape.kind {
                ConvKind::Dense => {
                    for (&x, weights) in pixel.iter().zip(weights.chunks_exact(shape.outputs)) {
                        let x = i32::from(x) - zero;
                        for (acc, &w) in acc.iter_mut().zip(weights) {
                            *acc += x * i32::from(w);
                        }
                    }
                }
                ConvKind::Depthwise => {
                    for ((acc, &x), &w) in acc.iter_mut().zip(pixel).zip(weights) {
                        *acc += (i32::from(x) - zero) * i32::from(w);
                    }
                }
            }
        }
    }
}

/// Narrows pixels of `lanes` accumulators each; see [`Narrowing::by`].
pub(crate) fn narrow<T: Output>(narrowing: &Narrowing<T>, acc: &[i32], lanes: usize, output: &mut [T]) {
    let (low, high, zero) = narrowing.bounds();
    narrowing.by::<8>(acc, lanes, output, |acc, mults, output| {
        for ((&acc, &mult), output) in acc.iter().zip(mults).zip(output) {
            let value = (acc as f32 * mult).clamp(low, high).round_ties_even();
            *output = T::narrow(value as i32 + zero);
        }
    });
}

/// Adds element by element three slices of one length.
pub(crate) fn add(sum: &Sum, a: &[u8], b: &[u8], output: &mut [u8]) {
    let ([first, second], (low, high, zero)) = (sum.terms(), sum.bounds());
    let scaled = |x: u8, term: Term| (i32::from(x) - i32::from(term.zero)) as f32 * term.mult;
    for ((&a, &b), output) in a.iter().zip(b).zip(output) {
        let value = (scaled(a, first) + scaled(b, second)).clamp(low, high).round_ties_even();
        *output = (value as i32 + zero) as u8;
    }
}
