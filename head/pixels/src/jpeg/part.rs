//! Which blocks of a component are decoded, and at which size.

use std::ops::Range;

use narrows_models::{Geometry, image::Window};

use super::{
    header::{self, Frame},
    transform,
};
use crate::planes::{GROUP, shown};

/// How one component is decoded.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    /// Samples of a block, each way.
    pub(super) size: usize,
    /// The blocks that are decoded.
    pub(super) across: Range<usize>,
    pub(super) down: Range<usize>,
    /// Blocks in a run of coefficients: those of `across`, and more up to a whole number of vectors.
    pub(super) blocks: usize,
    /// For each coefficient in the order of the file: the run that it belongs to, and its factor. Those that are not used
    /// at this size have a run of their own behind the others.
    pub(super) order: Vec<(u32, i32)>,
}

impl Part {
    /// What the inputs of `views` need of a component.
    pub(super) fn new(frame: &Frame, index: usize, views: &[Geometry]) -> Self {
        let component = &frame.components[index];
        let (most_across, most_down) = frame.most();
        let (width, height) = (u32::from(frame.width), u32::from(frame.height));
        // Samples of the component for each of the frame, at full size.
        let across = component.across as f64 / most_across as f64;
        let down = component.down as f64 / most_down as f64;
        // Samples for each pixel of the finest input: with n times as many as there are pixels, an nth of the size will do.
        let spare = views.iter().map(|view| {
            let window = Window::of(width, height, view);
            let wide = window.width * across / view.width as f64;
            wide.min(window.height * down / view.height as f64)
        });
        let size = match spare.fold(f64::INFINITY, f64::min) {
            8.0.. => 1,
            4.0.. => 2,
            2.0.. => 4,
            _ => 8,
        };
        // As many samples as all blocks have, of which those beyond the frame are not read.
        let all = (frame.units.0 * component.across, frame.units.1 * component.down);
        let scale = (across * size as f64 / 8.0, down * size as f64 / 8.0);
        let (columns, rows) = shown(views, (width, height), scale, (all.0 * size, all.1 * size));
        let in_blocks = |samples: Range<usize>| samples.start / size..samples.end.div_ceil(size);
        let (across, down) = (in_blocks(columns), in_blocks(rows));
        let blocks = across.len().next_multiple_of(GROUP);
        let order = header::ZIGZAG.iter().zip(&component.steps).map(|(&at, &step)| {
            let (row, column) = (usize::from(at) / 8, usize::from(at) % 8);
            match row < size && column < size {
                true => {
                    let run = (row * size + column) * blocks;
                    (run as u32, transform::quantiser(step, row, column, size))
                }
                false => ((size * size * blocks) as u32, 0),
            }
        });
        Part { size, order: order.collect(), across, down, blocks }
    }
}
