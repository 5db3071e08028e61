//! A feature: integer symbols and their shape.

use crate::{CHANNELS_MAX, Error, Mode, SIDE_MAX, SYMBOLS_MAX};

/// The shape of a feature: channels, height and width, each at least 1 and within the limits of FORMAT.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    channels: usize,
    height: usize,
    width: usize,
}

impl Shape {
    /// The shape of `channels` planes of `height` rows and `width` columns.
    ///
    /// # Errors
    /// [`Error::Shape`] when one of them is 0, or when [`CHANNELS_MAX`], [`SIDE_MAX`] or [`SYMBOLS_MAX`] is exceeded.
    pub fn new(channels: usize, height: usize, width: usize) -> Result<Self, Error> {
        let refuse = |problem| Err(Error::Shape { channels, height, width, problem });
        if channels == 0 || height == 0 || width == 0 {
            return refuse("every side is at least 1");
        }
        if channels > CHANNELS_MAX {
            return refuse("at most 1024 channels");
        }
        if height > SIDE_MAX || width > SIDE_MAX {
            return refuse("height and width are at most 4096");
        }
        if channels * height * width > SYMBOLS_MAX {
            return refuse("at most 4194304 symbols");
        }
        Ok(Self { channels, height, width })
    }

    /// The number of channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The number of rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// The number of columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The shape in which a feature of this shape is coded: mode rows exchanges rows and columns.
    pub(crate) fn coded_shape(self, mode: Mode) -> Self {
        if mode == Mode::Rows { Self { height: self.width, width: self.height, ..self } } else { self }
    }

    /// The number of symbols in one channel: height times width.
    #[must_use]
    pub fn plane(&self) -> usize {
        self.height * self.width
    }

    /// The number of symbols in all channels.
    #[must_use]
    pub fn symbols(&self) -> usize {
        self.channels * self.plane()
    }
}

/// The integer symbols that a bottleneck outputs, in channel, row, column order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    shape: Shape,
    symbols: Vec<i16>,
}

impl Feature {
    /// The feature of these symbols, in channel, row, column order.
    ///
    /// # Errors
    /// [`Error::Symbols`] when their number is not that of the shape.
    pub fn new(shape: Shape, symbols: Vec<i16>) -> Result<Self, Error> {
        if symbols.len() != shape.symbols() {
            return Err(Error::Symbols { found: symbols.len(), expected: shape.symbols() });
        }
        Ok(Self { shape, symbols })
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The symbols in channel, row, column order.
    #[must_use]
    pub fn symbols(&self) -> &[i16] {
        &self.symbols
    }

    /// The symbols, without copying them.
    #[must_use]
    pub fn into_symbols(self) -> Vec<i16> {
        self.symbols
    }

    /// The symbols of one channel, row by row.
    ///
    /// # Panics
    /// When the feature has no such channel.
    #[must_use]
    pub fn plane(&self, channel: usize) -> &[i16] {
        &self.symbols[channel * self.shape.plane()..][..self.shape.plane()]
    }

    /// The symbols of each channel, row by row.
    #[must_use]
    pub fn planes(&self) -> impl DoubleEndedIterator<Item = &[i16]> + ExactSizeIterator {
        self.symbols.chunks_exact(self.shape.plane())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_over_a_limit_are_refused_by_name() {
        for (sides, problem) in [
            ([0, 1, 1], "every side"),
            ([1, 0, 1], "every side"),
            ([1, 1, 0], "every side"),
            ([CHANNELS_MAX + 1, 1, 1], "1024 channels"),
            ([1, SIDE_MAX + 1, 1], "4096"),
            ([1, 1, usize::MAX], "4096"),
            ([CHANNELS_MAX, 64, 65], "symbols"),
        ] {
            let error = Shape::new(sides[0], sides[1], sides[2]).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
        assert_eq!(Shape::new(CHANNELS_MAX, 64, 64).unwrap().symbols(), SYMBOLS_MAX);
    }

    #[test]
    fn a_feature_has_as_many_symbols_as_its_shape() {
        let shape = Shape::new(2, 3, 4).unwrap();
        assert!(Feature::new(shape, vec![0; 23]).is_err());
        let feature = Feature::new(shape, (0..24).collect()).unwrap();
        assert_eq!(feature.planes().nth(1).unwrap()[0], 12);
    }
}
