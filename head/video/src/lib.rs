//! Pictures in a stream of bytes, as cameras and their programs write it to a pipe: MJPEG, Y4M and raw frames.
//!
//! [`Parser`] takes bytes as they arrive, in pieces of any size, and delivers each picture with its last byte. JPEG pictures
//! are found and not decoded, so that a frame that nobody takes costs no decoding. Raw pictures are converted to RGB by
//! [`Raw::to_rgb`].
//!
//! * **MJPEG**: JPEG files one behind the other. What lies between them, such as the headers of a
//!   `multipart/x-mixed-replace` response, is skipped and counted.
//! * **Y4M**: YUV4MPEG2 with 8 bits, progressive, 4:2:0, 4:2:2, 4:4:4 or grey.
//! * **Raw**: I420 or NV12 of a given size, whose rows may be padded ([`RawFormat`]).
//!
//! MJPEG and Y4M are told apart by the first bytes; raw frames have nothing to be recognised by.
//!
//! ```
//! use narrows_video::{Parser, Picture};
//!
//! let mut parser = Parser::new(None, 1 << 20);
//! let mut sizes = Vec::new();
//! let stream = b"YUV4MPEG2 W2 H2 F30:1 Ip C420jpeg\nFRAME\n\x10\x20\x30\x40\x80\x80FRAME\n\x50\x60";
//! for byte in stream {
//!     parser.push(&[*byte], &mut |picture| {
//!         let Picture::Raw(picture) = picture else { return };
//!         sizes.push(picture.to_rgb().unwrap().len());
//!     })?;
//! }
//! assert_eq!((sizes, parser.counts().pictures), (vec![2 * 2 * 3], 1));
//! # Ok::<(), narrows_video::StreamFault>(())
//! ```
//!
//! The crate is pure: it opens nothing, reads no clock, and holds at most one picture of the given size.

mod collector;
mod counts;
mod fault;
mod mjpeg;
mod parser;
mod raw;
mod y4m;

pub use counts::Counts;
pub use fault::StreamFault;
pub use parser::{Parser, Picture};
pub use raw::{Colour, Layout, Raw, RawFormat, Sampling};
