//! Weights in the order the kernels read them. Safe code, the same on every processor.

#![allow(dead_code, reason = "each architecture uses some of the layouts")]

use crate::ConvSpec;

/// Output channels per block: one 256-bit or two 128-bit registers of accumulators.
pub(crate) const BLOCK: usize = 8;

/// Sixteen i16 on a boundary that no load of them crosses.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(32))]
pub(crate) struct Words(pub(crate) [i16; 16]);

/// How a dense kernel walks its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    /// Most blocks of output channels computed together.
    pub(crate) widest: usize,
    /// Neighbouring inputs that one multiply instruction adds up.
    pub(crate) group: usize,
    /// Inputs that one iteration reads: the run under a kernel row is filled up to a multiple of it.
    pub(crate) unroll: usize,
}

impl Walk {
    /// How many of the `left` blocks the next strip takes.
    pub(crate) fn strip(self, left: usize) -> usize {
        left.min(self.widest)
    }

    /// Inputs under one kernel row (column, channel), filled up.
    pub(crate) fn run(self, spec: &ConvSpec) -> usize {
        (spec.kernel[1] * spec.in_channels).next_multiple_of(self.unroll)
    }

    /// The weights as strip, kernel row, group of inputs, output channel, input of the group. Where a strip or a
    /// run is filled up the weight is 0.
    pub(crate) fn dense<T: From<i8>>(self, spec: &ConvSpec) -> Vec<T> {
        let blocks = spec.out_channels.div_ceil(BLOCK);
        let run = self.run(spec);
        let mut weights = Vec::with_capacity(blocks * BLOCK * spec.kernel[0] * run);
        let mut first = 0;
        while first < blocks {
            let count = self.strip(blocks - first);
            for row in 0..spec.kernel[0] {
                for start in (0..run).step_by(self.group) {
                    for output in first * BLOCK..(first + count) * BLOCK {
                        for element in start..start + self.group {
                            let (column, input) = (element / spec.in_channels, element % spec.in_channels);
                            let real = output < spec.out_channels && column < spec.kernel[1];
                            let weight = if real { spec.weight(output, input, row, column) } else { 0 };
                            weights.push(T::from(weight));
                        }
                    }
                }
            }
            first += count;
        }
        weights
    }
}

/// Depthwise weights as group of `lanes` channels, kernel row and column, channel; filled up with 0.
pub(crate) fn depthwise(spec: &ConvSpec, lanes: usize) -> Vec<i16> {
    let channels = spec.in_channels.next_multiple_of(lanes);
    let mut weights = Vec::with_capacity(channels * spec.kernel[0] * spec.kernel[1]);
    for first in (0..channels).step_by(lanes) {
        for row in 0..spec.kernel[0] {
            for column in 0..spec.kernel[1] {
                for channel in first..first + lanes {
                    let real = channel < spec.in_channels;
                    weights.push(if real { i16::from(spec.weight(channel, 0, row, column)) } else { 0 });
                }
            }
        }
    }
    weights
}

/// Biases filled up with 0 to a multiple of `lanes`.
pub(crate) fn fill(mut bias: Vec<i32>, lanes: usize) -> Vec<i32> {
    bias.resize(bias.len().next_multiple_of(lanes), 0);
    bias
}

/// Whole [`Words`]; the length is a multiple of sixteen.
pub(crate) fn words(values: &[i16]) -> Vec<Words> {
    let (words, rest) = values.as_chunks::<16>();
    assert!(rest.is_empty(), "blocks of eight channels by pairs of inputs");
    words.iter().map(|&words| Words(words)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConvKind, Pads};

    fn spec(kind: ConvKind, inputs: usize, outputs: usize, kernel: [usize; 2]) -> ConvSpec {
        let per = if kind == ConvKind::Dense { inputs } else { 1 };
        ConvSpec {
            kind,
            in_channels: inputs,
            out_channels: outputs,
            kernel,
            stride: [1, 1],
            pads: Pads::default(),
            input_zero: 0,
            weights: (0..outputs * per * kernel[0] * kernel[1]).map(|i| i as i8).collect(),
            bias: vec![0; outputs],
        }
    }

    #[test]
    fn dense_weights_are_grouped_by_inputs() {
        let spec = spec(ConvKind::Dense, 3, 2, [1, 1]);
        let packed: Vec<i16> = Walk { widest: 1, group: 2, unroll: 4 }.dense(&spec);
        assert_eq!(packed[..4], [0, 1, 3, 4]);
        assert_eq!(packed[16..20], [2, 0, 5, 0]);
        assert!(packed[4..16].iter().chain(&packed[20..]).all(|&w| w == 0));
    }

    #[test]
    fn depthwise_weights_are_grouped_by_channels() {
        let spec = spec(ConvKind::Depthwise, 3, 3, [1, 2]);
        assert_eq!(depthwise(&spec, 4), [0, 2, 4, 0, 1, 3, 5, 0]);
    }
}
