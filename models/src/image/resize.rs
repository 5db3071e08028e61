//! Resizing and cropping of an image to the input of a network.

use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::U8x3,
};
use image::RgbImage;

use crate::{Filter, Fit, Geometry};

/// Resizes and crops an image to the network's input of one geometry: u8, rows of RGB pixels.
#[must_use]
pub fn fit(image: &RgbImage, geometry: &Geometry) -> Vec<u8> {
    let mut pixels = Vec::new();
    Fitter::default().fit(image, geometry, &mut pixels);
    pixels
}

/// Resizes as [`fit`] does, with buffers that are kept from image to image.
#[derive(Debug, Default)]
pub struct Fitter {
    resizer: Resizer,
    rows: Vec<u8>,
}

impl Fitter {
    /// Fills `pixels` with `image`, resized and cropped as `geometry` says.
    pub fn fit(&mut self, image: &RgbImage, geometry: &Geometry, pixels: &mut Vec<u8>) {
        let window = Window::of(image.width(), image.height(), geometry);
        let size = (geometry.width as u32, geometry.height as u32);
        self.cut(image, window, size, geometry.filter, pixels);
    }

    /// Fills `pixels` with the `window` of `image`, resampled to `width` by `height`. The filter reads pixels of the image
    /// beyond the window, as if the window were cropped after resizing the whole image.
    ///
    /// It resamples horizontally first and vertically second, as Pillow does, except where the result is wider and lower
    /// than the window. The result of the first pass is rounded to bytes, so the order matters (BUNDLE.md, section 3).
    pub fn cut(
        &mut self,
        image: &RgbImage,
        window: Window,
        (width, height): (u32, u32),
        filter: Filter,
        pixels: &mut Vec<u8>,
    ) {
        let size = (image.width(), image.height());
        if f64::from(width) > window.width && f64::from(height) < window.height {
            // The resizer of the library begins vertically.
            return self.resize(image.as_raw(), size, window, (width, height), filter, pixels);
        }
        let (first, last) = window.rows(height, image.height());
        let across = Window { top: first.into(), height: (last - first).into(), ..window };
        let mut rows = std::mem::take(&mut self.rows);
        self.resize(image.as_raw(), size, across, (width, last - first), filter, &mut rows);
        let down = Window { left: 0.0, top: window.top - f64::from(first), width: width.into(), ..window };
        self.resize(&rows, (width, last - first), down, (width, height), filter, pixels);
        self.rows = rows;
    }

    fn resize(
        &mut self,
        source: &[u8],
        from: (u32, u32),
        window: Window,
        to: (u32, u32),
        filter: Filter,
        target: &mut Vec<u8>,
    ) {
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(match filter {
                Filter::Bicubic => FilterType::CatmullRom,
                Filter::Bilinear => FilterType::Bilinear,
                Filter::Box => FilterType::Box,
            }))
            .crop(window.left, window.top, window.width, window.height);
        target.resize(to.0 as usize * to.1 as usize * 3, 0);
        // With untyped images the compiler would build the resizer for every pixel type.
        let source = TypedImageRef::<U8x3>::from_buffer(from.0, from.1, source)
            .expect("three bytes a pixel are there");
        let mut target =
            TypedImage::<U8x3>::from_buffer(to.0, to.1, target).expect("the buffer was just sized for it");
        self.resizer.resize_typed(&source, &mut target, &options).expect("the window lies within the image");
    }
}

/// A part of an image, in pixels of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width, above 0.
    pub width: f64,
    /// Height, above 0.
    pub height: f64,
}

impl Window {
    /// The part of an image of this size that `geometry` shows.
    #[must_use]
    pub fn of(width: u32, height: u32, geometry: &Geometry) -> Self {
        match geometry.fit {
            Fit::Crop { short_side } => {
                Self::crop(width, height, short_side, geometry.width, geometry.height)
            }
            Fit::Stretch => Window { left: 0.0, top: 0.0, width: width.into(), height: height.into() },
        }
    }

    /// The part that is left after resizing to `short_side` and cropping the centre.
    fn crop(width: u32, height: u32, short_side: usize, cut_width: usize, cut_height: usize) -> Self {
        let (left, wide) = Self::span(width, width.min(height), short_side, cut_width);
        let (top, high) = Self::span(height, width.min(height), short_side, cut_height);
        Window { left, top, width: wide, height: high }
    }

    /// First row and row after the last that the widest filter reads for `height` rows of the window, out of `full`.
    fn rows(&self, height: u32, full: u32) -> (u32, u32) {
        let reach = 2.0 * (self.height / f64::from(height)).max(1.0) + 1.0;
        let first = (self.top - reach).floor().max(0.0);
        let last = (self.top + self.height + reach).ceil().min(full.into());
        (first as u32, last as u32)
    }

    /// Start and length of the window along one side.
    fn span(side: u32, short: u32, short_side: usize, cut: usize) -> (f64, f64) {
        let full = f64::from(side);
        let resized = resized(side.into(), short.into(), short_side as u64);
        let start = resized.saturating_sub(cut as u64) / 2;
        let scale = full / resized as f64;
        let left = start as f64 * scale;
        (left, (cut as f64 * scale).min(full - left))
    }
}

/// Returns round(side · short_side / short), halves away from zero.
fn resized(side: u64, short: u64, short_side: u64) -> u64 {
    (2 * side * short_side + short) / (2 * short)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn resized_sides_round_halves_away_from_zero() {
        assert_eq!(resized(500, 375, 288), 384);
        assert_eq!(resized(375, 375, 288), 288);
        assert_eq!(resized(5, 2, 1), 3);
        assert_eq!(resized(3, 2, 1), 2);
    }

    #[test]
    fn the_crop_is_the_centre_of_the_resized_image() {
        let window = Window::crop(768, 576, 288, 256, 256);
        // 768 × 576 becomes 384 × 288; the cut starts at (64, 16).
        assert_eq!(window, Window { left: 128.0, top: 32.0, width: 512.0, height: 512.0 });
        let exact = Window::crop(256, 256, 256, 256, 256);
        assert_eq!(exact, Window { left: 0.0, top: 0.0, width: 256.0, height: 256.0 });
    }

    #[test]
    fn a_window_never_leaves_its_image() {
        let mut fitter = Fitter::default();
        let mut pixels = Vec::new();
        for (width, height) in [(1, 1), (1, 5000), (5000, 1), (3, 2), (257, 255), (333, 1999)] {
            let window = Window::crop(width, height, 288, 256, 256);
            assert!(window.left >= 0.0 && window.left + window.width <= f64::from(width));
            assert!(window.top >= 0.0 && window.top + window.height <= f64::from(height));
            let image = RgbImage::from_pixel(width, height, Rgb([9, 99, 199]));
            fitter.cut(&image, window, (256, 256), Filter::Bicubic, &mut pixels);
            assert_eq!(pixels.len(), 256 * 256 * 3);
            assert!(pixels.chunks_exact(3).all(|pixel| pixel == [9, 99, 199]), "{width}×{height}");
        }
    }
}
