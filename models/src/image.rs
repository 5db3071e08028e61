//! From an image file to the input of a network: decode, apply the EXIF orientation, resize and crop (BUNDLE.md,
//! section 3). Device and server use the same code, so they compute the same pixels.

mod decode;
#[cfg(test)]
mod reference;
mod resize;

pub use decode::{FILE_MAX, ImageFault, PIXELS_MAX, SCANS_MAX, SIDE_MAX, decode, decode_as};
pub use image::{ImageFormat, RgbImage};
pub use resize::{Fitter, Window, fit};
