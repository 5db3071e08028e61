//! From an image file to the input of a network: decode, apply the EXIF orientation, resize and crop (BUNDLE.md,
//! section 3). Device and server use the same code, so they compute the same pixels.

mod decode;
mod fault;
mod jpeg;
mod limits;
#[cfg(test)]
mod reference;
mod resize;
mod scan;
mod sniff;
mod standard_tables;

pub use decode::{decode, decode_as};
pub use fault::ImageFault;
pub use image::{ImageFormat, RgbImage};
pub use limits::{FILE_MAX, PIXELS_MAX, SCANS_MAX, SIDE_MAX};
pub use resize::{Fitter, Window, fit};
pub use standard_tables::STANDARD_TABLES;
