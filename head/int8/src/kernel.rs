//! A vector kernel of one convolution layer, and the loop over the rows of its output.

use crate::{
    rows::{Ring, Windows},
    spec::{Shape, Size},
};

/// The accumulators of one output row at a time, from an input that a [`Ring`] has converted.
pub(crate) trait RowKernel {
    /// An input value as the kernel reads it.
    type Element: Copy;

    /// Converts one stored input value.
    fn convert(value: u8) -> Self::Element;

    /// Number of kernel columns that have a window of their own; 1 where the window of the first column holds all.
    fn columns(&self) -> usize;

    /// Elements of a window, at most [`SLACK`](crate::rows::SLACK) beyond the end of the input row.
    fn window_length(&self) -> usize;

    /// Accumulators per pixel: the output channels, filled up to whole vectors.
    fn lanes(&self) -> usize;

    /// Fills `acc` (pixel, lane), which holds `windows.width()` times `lanes()` accumulators.
    fn row(&self, windows: &Windows<'_, Self::Element>, acc: &mut [i32]);
}

/// The input, the sizes and the memory of one run of a layer.
pub(crate) struct Pass<'a> {
    pub(crate) shape: &'a Shape,
    /// Row, column, channel.
    pub(crate) input: &'a [u8],
    pub(crate) input_size: Size,
    pub(crate) output_size: Size,
    pub(crate) starts: &'a mut Vec<usize>,
    pub(crate) acc: &'a mut Vec<i32>,
}

impl Pass<'_> {
    /// Computes the output rows from the first to the last. Calls `each` with the row, its accumulators (pixel, lane)
    /// and the number of lanes.
    pub(crate) fn run<K: RowKernel>(
        self,
        kernel: &K,
        buffer: &mut Vec<K::Element>,
        mut each: impl FnMut(usize, &[i32], usize),
    ) {
        let (height, width) = self.output_size;
        let lanes = kernel.lanes();
        self.acc.resize(width * lanes, 0);
        let step = self.shape.stride[1] * self.shape.inputs;
        let mut ring = Ring::new(self.shape, self.input, self.input_size, K::convert, buffer);
        for y in 0..height {
            let elements = ring.advance(y, kernel.columns(), self.starts);
            let windows = Windows::new(elements, self.starts, step, kernel.window_length(), width);
            kernel.row(&windows, self.acc);
            each(y, self.acc, lanes);
        }
    }
}
