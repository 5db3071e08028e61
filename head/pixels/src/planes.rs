//! A frame as planes of samples, as [`Converter`](crate::Converter) reads them.

use std::ops::Range;

use narrows_models::{Geometry, image::Window};
use narrows_video::Colour;

/// Fractional bits of a sample: a sample is (value − 128) · 2^7, so that 8-bit values use the whole of an `i16`.
pub(crate) const FRACTION: u32 = 7;

/// Samples are computed on in groups of so many; rows are padded to whole groups.
pub(crate) const GROUP: usize = 32;

/// A frame as one plane of brightness and none or two of colour, with as much of each as some networks' inputs show.
#[derive(Debug, Clone, Default)]
pub struct Planes {
    /// Width of the whole frame in pixels.
    pub(crate) width: u32,
    /// Height of the whole frame in pixels.
    pub(crate) height: u32,
    pub(crate) colour: Colour,
    pub(crate) planes: [Plane; 3],
    /// 1 or 3.
    pub(crate) count: usize,
    /// The inputs that the planes hold enough for.
    pub(crate) views: Vec<Geometry>,
}

/// Samples of one component.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plane {
    /// Rows of `stride` samples, and whatever lies behind them.
    pub(crate) samples: Vec<i16>,
    /// Samples of a row, a multiple of [`GROUP`].
    pub(crate) stride: usize,
    /// How columns lie in a row: column c, counted from `left`, at (c mod step) · (stride / step) + c / step. 1 for one
    /// behind the other.
    pub(crate) step: usize,
    /// Column and row of the whole plane that the first sample is of.
    pub(crate) left: usize,
    pub(crate) top: usize,
    /// Columns and rows that are held.
    pub(crate) held: (usize, usize),
    /// Columns and rows of the whole plane.
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    /// Columns and rows of the plane for each of the frame.
    pub(crate) across: f64,
    pub(crate) down: f64,
}

impl Planes {
    /// Width of the whole frame in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height of the whole frame in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Whether the planes hold what the input of `geometry` shows.
    #[must_use]
    pub fn cover(&self, geometry: &Geometry) -> bool {
        let same = |view: &Geometry| {
            (view.width, view.height, view.fit, view.filter)
                == (geometry.width, geometry.height, geometry.fit, geometry.filter)
        };
        self.count > 0 && self.views.iter().any(same)
    }
}

impl Plane {
    /// Makes room for so many rows. What they hold has no meaning.
    pub(crate) fn make_room(&mut self, rows: usize) {
        grow(&mut self.samples, rows * self.stride);
    }

    /// The place in a row of a column of the whole plane.
    pub(crate) fn place(&self, column: usize) -> usize {
        let column = column - self.left;
        match self.step {
            1 => column,
            step => column % step * (self.stride / step) + column / step,
        }
    }
}

/// Makes a buffer at least so long. It never becomes shorter, so that what is overwritten is not filled before.
pub(crate) fn grow<T: Copy + Default>(buffer: &mut Vec<T>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
}

/// The columns and rows that the inputs of `views` are made of, of a plane of `size` with `scale` samples for each pixel of a
/// frame, each way; all of them where there are no inputs.
pub(crate) fn shown(
    views: &[Geometry],
    (width, height): (u32, u32),
    scale: (f64, f64),
    size: (usize, usize),
) -> (Range<usize>, Range<usize>) {
    let side = |start: f64, length: f64, count: usize, scale: f64, size: usize| {
        // What the widest filter reads around the window, and a sample for rounding.
        let reach = 2.0 * (length * scale / count as f64).max(1.0) + 2.0;
        let first = (start * scale - reach).floor().max(0.0) as usize;
        let end = ((start + length) * scale + reach).ceil() as usize;
        first.min(size - 1)..end.clamp(1, size)
    };
    let parts = views.iter().map(|view| {
        let window = Window::of(width, height, view);
        let columns = side(window.left, window.width, view.width, scale.0, size.0);
        (columns, side(window.top, window.height, view.height, scale.1, size.1))
    });
    let both = |a: Range<usize>, b: Range<usize>| a.start.min(b.start)..a.end.max(b.end);
    parts.reduce(|a, b| (both(a.0, b.0), both(a.1, b.1))).unwrap_or((0..size.0, 0..size.1))
}
