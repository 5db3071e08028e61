//! Arbitrary bytes as a picture of each format that is read: an image within the limit, or an error, and no decoder fails. What
//! is decoded to planes is a JPEG of the same size by the decoder of whole images, unless that finds it damaged.

use narrows_models::{
    Filter, Fit, Geometry,
    image::{ImageFault, ImageFormat, decode_as},
};
use narrows_pixels::{Converter, JpegDecoder, Planes};

/// The largest number of pixels. It is small, so that a run is quick. Larger images must not be decoded.
pub const MAX_PIXELS: u64 = 1 << 16;

/// Decodes the bytes as a file of each format.
///
/// Returns whether they are accepted.
///
/// # Panics
/// When accepted bytes break a promise.
#[must_use]
pub fn run(data: &[u8]) -> bool {
    let mut accepted = false;
    for format in [ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Png, ImageFormat::Bmp] {
        match decode_as(data, format, MAX_PIXELS) {
            Ok(image) => {
                if format == ImageFormat::Jpeg {
                    see(data, (image.width(), image.height()));
                }
                let pixels = u64::from(image.width()) * u64::from(image.height());
                assert!((1..=MAX_PIXELS).contains(&pixels));
                accepted = true;
            }
            Err(ImageFault::Panic(message)) => panic!("a decoder failed: {message}"),
            Err(_) => {}
        }
    }
    accepted
}

/// Decodes a JPEG to planes for a cropped input and for a stretched one, and converts them.
fn see(data: &[u8], size: (u32, u32)) {
    let input = |fit| Geometry::new("fuzz", (24, 16), fit, Filter::Bicubic);
    let views = [input(Fit::Crop { short_side: 30 }), input(Fit::Stretch)];
    let (mut decoder, mut planes, mut pixels) = (JpegDecoder::default(), Planes::default(), Vec::new());
    if decoder.decode(data, &views, &mut planes).is_ok() {
        assert_eq!((planes.width(), planes.height()), size);
        for view in &views {
            Converter::default().fit(&planes, view, &mut pixels);
            assert_eq!(pixels.len(), 24 * 16 * 3);
        }
    }
}
