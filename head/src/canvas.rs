//! Drawing on an RGB image: rectangles and text in fixed-width fonts.

use embedded_graphics::{
    mono_font::{
        MonoFont, MonoTextStyle,
        iso_8859_1::{FONT_9X18, FONT_9X18_BOLD, FONT_10X20},
    },
    pixelcolor::{Rgb888, RgbColor},
    prelude::{DrawTarget, Drawable, OriginDimensions, Pixel, Point, Size},
    text::{Baseline, Text},
};
use image::{Rgb, RgbImage};

/// Red, green, blue.
pub(crate) type Colour = [u8; 3];

/// Fonts by use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    Title,
    Strong,
    Plain,
}

impl Face {
    fn font(self) -> &'static MonoFont<'static> {
        match self {
            Face::Title => &FONT_10X20,
            Face::Strong => &FONT_9X18_BOLD,
            Face::Plain => &FONT_9X18,
        }
    }

    /// Width of `text` in pixels.
    pub(crate) fn width(self, text: &str) -> u32 {
        text.chars().count() as u32 * self.font().character_size.width
    }

    /// Height of a line in pixels.
    pub(crate) fn height(self) -> u32 {
        self.font().character_size.height
    }

    /// Returns `text`, or its beginning and two dots where it is wider than `width` pixels.
    pub(crate) fn fit(self, text: &str, width: u32) -> String {
        let room = (width / self.font().character_size.width) as usize;
        match text.chars().count() <= room {
            true => text.to_owned(),
            false => text.chars().take(room.saturating_sub(2)).chain("..".chars()).take(room).collect(),
        }
    }
}

/// An RGB image to draw on.
pub(crate) struct Canvas(RgbImage);

impl Canvas {
    pub(crate) fn new(width: u32, height: u32, background: Colour) -> Self {
        Canvas(RgbImage::from_pixel(width, height, Rgb(background)))
    }

    pub(crate) fn into_image(self) -> RgbImage {
        self.0
    }

    pub(crate) fn width(&self) -> u32 {
        self.0.width()
    }

    /// Copies rows of RGB pixels, `width` wide, so that the first pixel is at (x, y).
    pub(crate) fn paste(&mut self, x: u32, y: u32, width: u32, pixels: &[u8]) {
        for (row, line) in (y..).zip(pixels.chunks_exact(width as usize * 3)) {
            for (column, pixel) in (x..).zip(line.chunks_exact(3)) {
                self.0.put_pixel(column, row, Rgb([pixel[0], pixel[1], pixel[2]]));
            }
        }
    }

    /// Fills a rectangle with rounded corners.
    pub(crate) fn block(&mut self, x: u32, y: u32, width: u32, height: u32, colour: Colour) {
        let radius = 3.min(width / 2).min(height / 2);
        for row in 0..height {
            for column in 0..width {
                let (dx, dy) = (column.min(width - 1 - column), row.min(height - 1 - row));
                // A corner of radius 3 leaves out three pixels.
                if radius == 3 && dx + dy < 2 {
                    continue;
                }
                if x + column < self.0.width() && y + row < self.0.height() {
                    self.0.put_pixel(x + column, y + row, Rgb(colour));
                }
            }
        }
    }

    /// Draws a line of text with its left upper corner at (x, y), clipped to the image.
    pub(crate) fn text(&mut self, x: u32, y: u32, face: Face, colour: Colour, text: &str) {
        // The fonts have ISO 8859-1; other characters are drawn as a question mark.
        let style = MonoTextStyle::new(face.font(), Rgb888::new(colour[0], colour[1], colour[2]));
        let Ok(_) =
            Text::with_baseline(text, Point::new(x as i32, y as i32), style, Baseline::Top).draw(self);
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(point, colour) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y))
                && let Some(pixel) = self.0.get_pixel_mut_checked(x, y)
            {
                *pixel = Rgb([colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_too_long_is_cut_with_dots() {
        assert_eq!(Face::Plain.fit("road", 36), "road");
        assert_eq!(Face::Plain.fit("pavement", 45), "pav..");
        assert_eq!(Face::Plain.fit("pavement", 9), ".");
        assert_eq!(Face::Plain.fit("pavement", 0), "");
    }

    #[test]
    fn drawing_is_clipped_to_the_image() {
        let mut canvas = Canvas::new(20, 10, [0; 3]);
        canvas.text(15, 5, Face::Title, [255; 3], "Wörter – 漢字");
        canvas.block(18, 8, 9, 9, [1, 2, 3]);
        let image = canvas.into_image();
        assert_eq!(image.dimensions(), (20, 10));
        assert!(image.pixels().any(|pixel| pixel.0 == [255; 3]));
    }
}
