//! Arbitrary bytes as a JPEG or WebP file, as the tail decodes them: an image within the limit, or an error.

use narrows_models::image::{ImageFormat, decode_as};

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
    let decoded = [ImageFormat::Jpeg, ImageFormat::WebP].map(|format| decode_as(data, format, MAX_PIXELS));
    decoded.iter().flatten().fold(false, |_, image| {
        let pixels = u64::from(image.width()) * u64::from(image.height());
        assert!((1..=MAX_PIXELS).contains(&pixels));
        true
    })
}
