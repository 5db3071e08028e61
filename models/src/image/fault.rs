//! Why an image file cannot be used.

use image::ImageError;

use super::limits::{FILE_MAX, SCANS_MAX, SIDE_MAX};

/// Why a file cannot be decoded to a frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageFault {
    /// The file holds no bytes.
    #[error("the file is empty")]
    Empty,
    /// More than [`FILE_MAX`] bytes.
    #[error("the file has {0} bytes, at most {FILE_MAX} are read")]
    File(u64),
    /// The width or the height is 0.
    #[error("the image is {width}×{height} pixels, there is nothing to see")]
    Zero {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
    },
    /// A side is longer than [`SIDE_MAX`], or there are more pixels than allowed.
    #[error("the image is {width}×{height} pixels, at most {most} pixels and {SIDE_MAX} a side are decoded")]
    Pixels {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// Largest number of pixels allowed.
        most: u64,
    },
    /// A JPEG has more than [`SCANS_MAX`] scans.
    #[error("the image has over {SCANS_MAX} scans, no camera makes so many")]
    Scans,
    /// The file ends before the image does.
    #[error("the image is truncated")]
    Truncated,
    /// The file is of a kind that is not read.
    #[error("this is {0}; JPEG, PNG, WebP and BMP images are read")]
    Format(&'static str),
    /// The file begins like nothing that is known.
    #[error("this is no JPEG, PNG, WebP or BMP image and nothing else that is known; it begins with {0}")]
    Unknown(String),
    /// A JPEG is coded by a process that is not read.
    #[error("the JPEG uses {0}; baseline and progressive JPEGs with Huffman codes are read")]
    Coding(&'static str),
    /// There is not enough memory for the image.
    #[error("the image is {width}×{height} pixels, which takes more memory than this process may have")]
    Memory {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
    },
    /// The decoder failed on the file in a way that it should not.
    #[error("the image cannot be decoded: the decoder panicked: {0}")]
    Panic(String),
    /// The file is not a JPEG, PNG, WebP or BMP image, or it is damaged.
    #[error("the image cannot be decoded")]
    Decode(#[source] ImageError),
}
