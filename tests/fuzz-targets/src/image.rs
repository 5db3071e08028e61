//! Arbitrary bytes as a picture of each format that is read: an image within the limit, or an error, and no decoder fails.

use narrows_models::image::{ImageFault, ImageFormat, decode_as};

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
