//! Arbitrary bytes as a JPEG or WebP file, as the tail decodes them: an image within the limit, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows_models::image::{ImageFormat, decode_as};

/// The largest number of pixels. It is small, so that a run is quick. Larger images must not be decoded.
const MAX_PIXELS: u64 = 1 << 16;

fuzz_target!(|data: &[u8]| {
    for format in [ImageFormat::Jpeg, ImageFormat::WebP] {
        if let Ok(image) = decode_as(data, format, MAX_PIXELS) {
            let pixels = u64::from(image.width()) * u64::from(image.height());
            assert!((1..=MAX_PIXELS).contains(&pixels));
        }
    }
});
