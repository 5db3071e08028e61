//! Where symbols are in a plane that keeps even and odd columns apart.

use crate::{
    Shape,
    format::context_section::{NEIGHBORS, NEIGHBORS_MAX},
};

/// Rows of zeros above and below a plane.
const ROWS_ABOVE: usize = 2;
const ROWS_BELOW: usize = 1;

/// Indices and distances in such a plane. Each row holds its even columns (phase 0), then its odd ones (phase 1), each
/// with a zero before and after them, so that the symbols that a run needs are consecutive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PlaneLayout {
    /// The distance from a row's even columns to its odd ones. Rows are twice as far apart.
    pub(crate) phase_stride: usize,
    /// The size of a plane.
    pub(crate) len: usize,
    /// For each phase, the distances to the own neighbors.
    pub(crate) own: [[isize; NEIGHBORS_MAX]; 2],
    /// For each phase, the distances to the nine places that taps name.
    pub(crate) taps: [[isize; 9]; 2],
}

impl PlaneLayout {
    /// The layout of the planes of a feature of `shape`.
    pub(crate) fn new(shape: Shape) -> Self {
        let phase_stride = shape.width().div_ceil(2) + 2;
        let stride = phase_stride.cast_signed();
        let distance = |phase: usize, (dy, dx): (isize, isize)| {
            let columns = match (phase, dx) {
                (_, 0) => 0,
                (0, -1) => stride - 1,
                (0, _) => stride,
                (_, -1) => -stride,
                (_, _) => 1 - stride,
            };
            2 * stride * dy + columns
        };
        let mut own = [[0; NEIGHBORS_MAX]; 2];
        let mut taps = [[0; 9]; 2];
        for phase in 0..2 {
            own[phase].iter_mut().zip(NEIGHBORS[phase]).for_each(|(to, &place)| *to = distance(phase, place));
            let places = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx)));
            taps[phase].iter_mut().zip(places).for_each(|(to, place)| *to = distance(phase, place));
        }
        let len = (shape.height() + ROWS_ABOVE + ROWS_BELOW) * 2 * phase_stride;
        Self { phase_stride, len, own, taps }
    }

    /// The index at which the run of a row and phase begins.
    pub(crate) fn run_start(&self, row: usize, phase: usize) -> usize {
        (row + ROWS_ABOVE) * 2 * self.phase_stride + phase * self.phase_stride + 1
    }
}
