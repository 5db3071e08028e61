//! The input as the vector kernels read it: the padded rows under one output row, converted and kept in a ring.

use crate::spec::{Shape, Size};

/// Elements after the last pixel of a row that a kernel may read; their products are multiplied by weights of 0.
pub(crate) const SLACK: usize = 16;

/// A ring of as many padded input rows as the kernel is high.
#[derive(Debug)]
pub(crate) struct Ring<'a, T, F> {
    shape: &'a Shape,
    input: &'a [u8],
    size: Size,
    convert: F,
    elements: &'a mut [T],
    /// Elements of one row: `(left + width + right) * channels + SLACK`.
    row: usize,
    /// First padded row that has not been read.
    next: usize,
}

impl<'a, T: Copy, F: Fn(u8) -> T> Ring<'a, T, F> {
    /// Prepares to read `input` (row, column, channel) of `size`, with memory of `buffer` and `convert` for each value.
    pub(crate) fn new(
        shape: &'a Shape,
        input: &'a [u8],
        size: Size,
        convert: F,
        buffer: &'a mut Vec<T>,
    ) -> Ring<'a, T, F> {
        let row = (shape.pads.left + size.1 + shape.pads.right) * shape.inputs + SLACK;
        buffer.clear();
        buffer.resize(row * shape.kernel[0], convert(shape.zero));
        Ring { shape, input, size, convert, elements: buffer, row, next: 0 }
    }

    /// Reads the rows under output row `y`, which never decreases, and returns the ring. `starts` becomes the indices
    /// at which the first `columns` kernel columns of each kernel row begin for the first output of the row.
    pub(crate) fn advance(&mut self, y: usize, columns: usize, starts: &mut Vec<usize>) -> &[T] {
        let [height, _] = self.shape.kernel;
        let top = y * self.shape.stride[0];
        for row in self.next.max(top)..top + height {
            self.fill(row);
        }
        self.next = top + height;
        starts.clear();
        for row in top..top + height {
            starts.extend((0..columns).map(|column| row % height * self.row + column * self.shape.inputs));
        }
        self.elements
    }

    /// Reads row `row` of the padded input into its place in the ring.
    fn fill(&mut self, row: usize) {
        let slot = row % self.shape.kernel[0] * self.row + self.shape.pads.left * self.shape.inputs;
        let length = self.size.1 * self.shape.inputs;
        let slot = &mut self.elements[slot..slot + length];
        match row.checked_sub(self.shape.pads.top).filter(|&row| row < self.size.0) {
            Some(row) => {
                let source = &self.input[row * length..][..length];
                slot.iter_mut().zip(source).for_each(|(slot, &value)| *slot = (self.convert)(value));
            }
            None => slot.fill((self.convert)(self.shape.zero)),
        }
    }
}

/// The windows of a kernel on one output row: for each start and each `x` below the width, `length` elements from
/// `start + x * step` on. [`Windows::new`] checks that all of them exist and its fields are private, so kernels may
/// read them without a check.
#[derive(Debug)]
pub(crate) struct Windows<'a, T> {
    elements: &'a [T],
    starts: &'a [usize],
    step: usize,
    length: usize,
    width: usize,
}

impl<'a, T> Windows<'a, T> {
    /// Panics unless there are starts and outputs, and every window lies within `elements`.
    pub(crate) fn new(
        elements: &'a [T],
        starts: &'a [usize],
        step: usize,
        length: usize,
        width: usize,
    ) -> Windows<'a, T> {
        let last = starts.iter().max().expect("a kernel has at least one row");
        assert!(width > 0 && last + (width - 1) * step + length <= elements.len(), "window outside the ring");
        Windows { elements, starts, step, length, width }
    }

    /// The ring.
    pub(crate) fn elements(&self) -> &'a [T] {
        self.elements
    }

    /// Where the kernel's rows, or its rows and columns, begin for the first output.
    pub(crate) fn starts(&self) -> &'a [usize] {
        self.starts
    }

    /// Elements from the window of one output to that of the next.
    pub(crate) fn step(&self) -> usize {
        self.step
    }

    /// Elements of a window.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Outputs in the row, at least one.
    pub(crate) fn width(&self) -> usize {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConvKind, Pads};

    #[test]
    fn rows_are_padded_with_the_zero_point() {
        let shape = Shape {
            kind: ConvKind::Dense,
            inputs: 1,
            outputs: 1,
            kernel: [2, 1],
            stride: [1, 1],
            pads: Pads { top: 1, left: 0, bottom: 0, right: 0 },
            zero: 9,
        };
        let (mut buffer, mut starts) = (Vec::new(), Vec::new());
        let mut ring = Ring::new(&shape, &[1, 2, 3, 4], (2, 2), i16::from, &mut buffer);
        let row = 2 + SLACK;
        let elements = ring.advance(0, 1, &mut starts);
        assert_eq!((&elements[starts[0]..][..2], &elements[starts[1]..][..2]), (&[9, 9][..], &[1, 2][..]));
        assert_eq!(starts, [0, row]);
        let elements = ring.advance(1, 1, &mut starts);
        assert_eq!((&elements[starts[0]..][..2], &elements[starts[1]..][..2]), (&[1, 2][..], &[3, 4][..]));
        assert_eq!(starts, [row, 0]);
    }

    #[test]
    #[should_panic(expected = "window outside the ring")]
    fn window_past_the_end_panics() {
        Windows::new(&[0_i16; 10], &[0, 5], 2, 2, 3);
    }
}
