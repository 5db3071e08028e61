//! Arbitrary bytes as a JPEG or a WebP, as the tail takes them: an image within the limit, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows_models::image::{ImageFormat, decode_as};

/// Small, so that a run is quick; what is over it must not be decoded.
const MOST: u64 = 1 << 16;

fuzz_target!(|data: &[u8]| {
    for format in [ImageFormat::Jpeg, ImageFormat::WebP] {
        if let Ok(image) = decode_as(data, format, MOST) {
            let pixels = u64::from(image.width()) * u64::from(image.height());
            assert!((1..=MOST).contains(&pixels));
        }
    }
});
