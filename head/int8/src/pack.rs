//! Weights and biases in the order in which the vector kernels read them.

use crate::ConvSpec;

/// Output channels that one register of 256 bits or two of 128 bits hold accumulators for.
pub(crate) const BLOCK: usize = 8;

/// An array of `T`, and nothing else: any elements in a row are a value of it.
pub(crate) trait Array<T>: Copy {
    /// Number of elements.
    const LENGTH: usize;

    /// The whole arrays at the begin of a slice.
    fn chunks(slice: &[T]) -> &[Self];

    /// The whole arrays at the begin of a slice.
    fn chunks_mut(slice: &mut [T]) -> &mut [Self];
}

impl<T: Copy, const N: usize> Array<T> for [T; N] {
    const LENGTH: usize = N;

    fn chunks(slice: &[T]) -> &[Self] {
        slice.as_chunks().0
    }

    fn chunks_mut(slice: &mut [T]) -> &mut [Self] {
        slice.as_chunks_mut().0
    }
}

/// The order of the weights of a dense kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DenseLayout {
    /// Output channels of a block.
    pub(crate) block: usize,
    /// Largest number of blocks of output channels that are computed together, as one strip.
    pub(crate) blocks: usize,
    /// Neighbouring inputs whose products one multiply-add instruction sums.
    pub(crate) group: usize,
    /// Inputs that one iteration reads: the inputs under a kernel row are filled up to a multiple of it.
    pub(crate) step: usize,
}

impl DenseLayout {
    /// Number of blocks in the strip that begins where `left` blocks are left.
    pub(crate) fn strip(self, left: usize) -> usize {
        left.min(self.blocks)
    }

    /// Number of inputs under one kernel row (column, channel), filled up to whole steps.
    pub(crate) fn window_length(self, spec: &ConvSpec) -> usize {
        (spec.kernel[1] * spec.in_channels).next_multiple_of(self.step)
    }

    /// Returns the weights as strip, kernel row, group of inputs, output channel, input of the group. Where a block or
    /// a window is filled up the weight is 0.
    pub(crate) fn pack(self, spec: &ConvSpec) -> Vec<i8> {
        let blocks = spec.out_channels.div_ceil(self.block);
        let length = self.window_length(spec);
        let mut weights = Vec::with_capacity(blocks * self.block * spec.kernel[0] * length);
        let mut first = 0;
        while first < blocks {
            let count = self.strip(blocks - first);
            for row in 0..spec.kernel[0] {
                for start in (0..length).step_by(self.group) {
                    for output in first * self.block..(first + count) * self.block {
                        for element in start..start + self.group {
                            let (column, input) = (element / spec.in_channels, element % spec.in_channels);
                            let exists = output < spec.out_channels && column < spec.kernel[1];
                            weights.push(if exists { spec.weight(output, input, row, column) } else { 0 });
                        }
                    }
                }
            }
            first += count;
        }
        weights
    }
}

/// Returns depthwise weights as group of `lanes` channels, kernel row and column, channel. Where the last group is
/// filled up the weight is 0.
pub(crate) fn depthwise(spec: &ConvSpec, lanes: usize) -> Vec<i16> {
    let channels = spec.in_channels.next_multiple_of(lanes);
    let mut weights = Vec::with_capacity(channels * spec.kernel[0] * spec.kernel[1]);
    for first in (0..channels).step_by(lanes) {
        for row in 0..spec.kernel[0] {
            for column in 0..spec.kernel[1] {
                for channel in first..first + lanes {
                    let exists = channel < spec.in_channels;
                    weights.push(if exists { i16::from(spec.weight(channel, 0, row, column)) } else { 0 });
                }
            }
        }
    }
    weights
}

/// Returns biases in arrays of a block, filled up with 0 to a multiple of `blocks` blocks.
pub(crate) fn bias<B: Array<i32>>(mut bias: Vec<i32>, blocks: usize) -> Vec<B> {
    bias.resize(bias.len().next_multiple_of(blocks * B::LENGTH), 0);
    B::chunks(&bias).to_vec()
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
        let packed = DenseLayout { block: 8, blocks: 1, group: 2, step: 4 }.pack(&spec);
        assert_eq!(packed[..4], [0, 1, 3, 4]);
        assert_eq!(packed[16..20], [2, 0, 5, 0]);
        assert!(packed[4..16].iter().chain(&packed[20..]).all(|&w| w == 0));
    }

    #[test]
    fn depthwise_weights_are_grouped_by_channels() {
        let spec = spec(ConvKind::Depthwise, 3, 3, [1, 2]);
        assert_eq!(depthwise(&spec, 4), [0, 2, 4, 0, 1, 3, 5, 0]);
    }

    #[test]
    fn biases_are_filled_up_to_whole_blocks() {
        assert_eq!(bias::<[i32; 8]>(vec![1; 9], 1), [[1; 8], [1, 0, 0, 0, 0, 0, 0, 0]]);
        assert_eq!(bias::<[i32; 8]>(vec![1; 8], 2), [[1; 8], [0; 8]]);
    }
}
