//! From a camera's frame to the input of a network without an image in between.
//!
//! A camera delivers JPEG files or planes of brightness and colour, larger than the network's input, and the network wants
//! u8 RGB of its own size. [`JpegDecoder`] decodes of a JPEG only the blocks that the input shows, at an eighth, a quarter
//! or a half of their size where that is enough, and leaves them as planes; [`Planes::set_raw`] takes the planes of a frame
//! that is not compressed. [`Converter`] brings planes to the input's size, each from its own resolution, and converts
//! colours last, where the fewest pixels are.
//!
//! ```
//! use narrows_models::{Filter, Fit, Geometry};
//! use narrows_pixels::{Converter, Planes};
//! use narrows_video::Raw;
//!
//! let frame = Raw::new("i420:640x480".parse()?, vec![128; 640 * 480 * 3 / 2]).expect("as many bytes as its format has");
//! let input = Geometry::new("photo", (224, 224), Fit::Crop { short_side: 256 }, Filter::Bicubic);
//! let (mut planes, mut pixels) = (Planes::default(), Vec::new());
//! planes.set_raw(&frame, std::slice::from_ref(&input));
//! Converter::default().fit(&planes, &input, &mut pixels);
//! assert_eq!(pixels, [130; 224 * 224 * 3]);
//! # Ok::<(), narrows_video::StreamFault>(())
//! ```
//!
//! All arithmetic is on integers, so that every processor computes the same pixels. They are not those that
//! `narrows_models::image` computes of the same frame, which converts first, rounds to bytes and resizes then; they differ
//! by about a level. The crate is pure: it opens nothing and reads no clock.

mod colour;
mod converter;
mod jpeg;
mod planes;
mod raw;
mod taps;

pub use converter::Converter;
pub use jpeg::{JpegDecoder, Untaken};
pub use planes::Planes;
