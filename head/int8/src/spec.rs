//! The description of a convolution layer, and the checks that every kernel relies on.

use crate::Error;

/// Which input channels an output channel reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvKind {
    /// Every output channel reads every input channel.
    Dense,
    /// Output channel c reads input channel c alone.
    Depthwise,
}

/// Rows and columns around the image that hold the input's zero point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pads {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

/// A convolution layer: shapes, weights and biases. Of a pair the first is vertical, the second horizontal.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvSpec {
    /// Dense or depthwise.
    pub kind: ConvKind,
    /// Channels of the input, 1 to 16384.
    pub in_channels: usize,
    /// Channels of the output, 1 to 16384; equal to those of the input where depthwise.
    pub out_channels: usize,
    /// Height and width of the kernel, 1 to 64 each.
    pub kernel: [usize; 2],
    /// Rows and columns between neighbouring outputs, 1 to 64 each.
    pub stride: [usize; 2],
    /// Padding, less than the kernel on every side.
    pub pads: Pads,
    /// Zero point of the input, as stored.
    pub input_zero: u8,
    /// Weights as output channel, input channel (one where depthwise), kernel row, kernel column: the order of ONNX.
    pub weights: Vec<i8>,
    /// One bias per output channel, in units of input scale times weight scale.
    pub bias: Vec<i32>,
}

/// Height and width.
pub(crate) type Size = (usize, usize);

/// Most pixels in a row that [`Shape::joined`] makes: their inputs stay in the second-level cache.
const JOINED: usize = 64;

const MAX_CHANNELS: usize = 16384;
const MAX_KERNEL: usize = 64;
const MAX_SIDE: usize = 32768;

/// The shapes of a layer that [`ConvSpec::check`] accepted.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) kind: ConvKind,
    /// Channels of the input.
    pub(crate) inputs: usize,
    /// Channels of the output.
    pub(crate) outputs: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) pads: Pads,
    /// Zero point of the input.
    pub(crate) zero: u8,
}

impl ConvSpec {
    /// Checks every dimension, every length and the bound of every accumulator.
    pub(crate) fn check(&self) -> Result<Shape, Error> {
        within("input channels", self.in_channels, 1, MAX_CHANNELS)?;
        within("output channels", self.out_channels, 1, MAX_CHANNELS)?;
        within("kernel height", self.kernel[0], 1, MAX_KERNEL)?;
        within("kernel width", self.kernel[1], 1, MAX_KERNEL)?;
        within("vertical stride", self.stride[0], 1, MAX_KERNEL)?;
        within("horizontal stride", self.stride[1], 1, MAX_KERNEL)?;
        within("top padding", self.pads.top, 0, self.kernel[0] - 1)?;
        within("bottom padding", self.pads.bottom, 0, self.kernel[0] - 1)?;
        within("left padding", self.pads.left, 0, self.kernel[1] - 1)?;
        within("right padding", self.pads.right, 0, self.kernel[1] - 1)?;
        if self.kind == ConvKind::Depthwise && self.in_channels != self.out_channels {
            return Err(Error::Depthwise { inputs: self.in_channels, outputs: self.out_channels });
        }
        // At most 2^14 * 2^6 * 2^6 per output channel and 2^40 in all, which 64 bits hold.
        let per_output = self.inputs_per_output() * self.kernel[0] * self.kernel[1];
        length("weights", self.weights.len(), self.out_channels * per_output)?;
        length("bias", self.bias.len(), self.out_channels)?;
        for (channel, (weights, &bias)) in self.weights.chunks_exact(per_output).zip(&self.bias).enumerate() {
            let sum: u64 = weights.iter().map(|w| u64::from(w.unsigned_abs())).sum();
            let bound = u64::from(bias.unsigned_abs()) + 255 * sum;
            if bound > u64::from(i32::MAX.unsigned_abs()) {
                return Err(Error::Overflow { channel, bound });
            }
        }
        Ok(Shape {
            kind: self.kind,
            inputs: self.in_channels,
            outputs: self.out_channels,
            kernel: self.kernel,
            stride: self.stride,
            pads: self.pads,
            zero: self.input_zero,
        })
    }

    /// Number of input channels that one output channel reads.
    pub(crate) fn inputs_per_output(&self) -> usize {
        match self.kind {
            ConvKind::Dense => self.in_channels,
            ConvKind::Depthwise => 1,
        }
    }

    /// The weight of (output, input, row, column); `input` is 0 where depthwise.
    pub(crate) fn weight(&self, output: usize, input: usize, row: usize, column: usize) -> i8 {
        let [height, width] = self.kernel;
        self.weights[((output * self.inputs_per_output() + input) * height + row) * width + column]
    }

    /// Returns the biases for a kernel that reads the input as `x - shift` and leaves the zero point out:
    /// `bias - (input_zero - shift) * sum w`, modulo 2^32.
    ///
    /// Accumulating from there modulo 2^32 ends at the exact accumulator, because [`ConvSpec::check`] bounds that.
    pub(crate) fn folded_bias(&self, shift: i64) -> Vec<i32> {
        let per_output = self.weights.len() / self.out_channels;
        let zero = i64::from(self.input_zero) - shift;
        let fold = |(weights, &bias): (&[i8], &i32)| {
            let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
            (i64::from(bias) - zero * sum) as i32
        };
        self.weights.chunks_exact(per_output).zip(&self.bias).map(fold).collect()
    }
}

impl Shape {
    /// Height and width of the output for an input of `height` by `width`.
    pub(crate) fn output(&self, height: usize, width: usize) -> Result<Size, Error> {
        within("input height", height, 1, MAX_SIDE)?;
        within("input width", width, 1, MAX_SIDE)?;
        let padded_height = height + self.pads.top + self.pads.bottom;
        let padded_width = width + self.pads.left + self.pads.right;
        if padded_height < self.kernel[0] || padded_width < self.kernel[1] {
            return Err(Error::Small { height: padded_height, width: padded_width });
        }
        let rows = (padded_height - self.kernel[0]) / self.stride[0] + 1;
        let columns = (padded_width - self.kernel[1]) / self.stride[1] + 1;
        Ok((rows, columns))
    }

    /// The sizes of input and output as the kernels see them. Where an output reads one pixel alone, several short rows
    /// are joined to a long one, so that weights are read less often and tiles are filled.
    pub(crate) fn joined(&self, input: Size, output: Size) -> (Size, Size) {
        if self.kernel != [1, 1] || self.stride != [1, 1] || self.pads != Pads::default() {
            return (input, output);
        }
        let (height, width) = input;
        let fits = |rows: &usize| height.is_multiple_of(*rows) && rows * width <= JOINED;
        let rows = (1..=height.min(JOINED)).rev().find(fits).unwrap_or(1);
        let size = (height / rows, rows * width);
        (size, size)
    }
}

fn within(what: &'static str, value: usize, low: usize, high: usize) -> Result<(), Error> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(Error::Dimension { what, value, low, high }) }
}

/// Checks the length of the buffer `what`.
pub(crate) fn length(what: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Length { what, found, expected }) }
}
