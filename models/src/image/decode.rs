//! Decoding of image files to upright 8-bit RGB.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

/// Longest side of an image in pixels: the most that a JPEG can have.
pub const SIDE_MAX: u32 = 65_535;
/// Most pixels of an image; with the buffers of the decoder, about half a gigabyte at worst.
pub const PIXELS_MAX: u64 = 64 << 20;
/// Largest image file in bytes.
pub const FILE_MAX: u64 = 256 << 20;
/// Most scans of a JPEG. A scan of a few bytes may cover every pixel; encoders write about ten.
pub const SCANS_MAX: usize = 64;

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
    /// The file is not a JPEG, PNG, WebP or BMP image, or it is damaged.
    #[error("the image cannot be decoded")]
    Decode(#[source] ImageError),
}

/// Decodes a JPEG, PNG, WebP or BMP file to upright 8-bit RGB (BUNDLE.md, section 3). The first bytes tell the format;
/// the EXIF orientation is applied, alpha is dropped.
///
/// # Errors
/// [`ImageFault`]. A header of more than [`PIXELS_MAX`] pixels is refused before memory is allocated.
pub fn decode(file: &[u8]) -> Result<RgbImage, ImageFault> {
    if file.is_empty() {
        return Err(ImageFault::Empty);
    }
    if file.len() as u64 > FILE_MAX {
        return Err(ImageFault::File(file.len() as u64));
    }
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|e| fault(e.into()))?;
    read(file, reader, PIXELS_MAX)
}

/// Decodes a file as [`decode`] does, which must be of this `format` and have at most `most` pixels.
///
/// # Errors
/// [`ImageFault`]. A header of more than `most` pixels is refused before memory is allocated.
pub fn decode_as(file: &[u8], format: ImageFormat, most: u64) -> Result<RgbImage, ImageFault> {
    if file.is_empty() {
        return Err(ImageFault::Empty);
    }
    read(file, ImageReader::with_format(Cursor::new(file), format), most)
}

fn read(file: &[u8], reader: ImageReader<Cursor<&[u8]>>, most: u64) -> Result<RgbImage, ImageFault> {
    if reader.format() == Some(ImageFormat::Jpeg) {
        check_jpeg(file)?;
    }
    let mut decoder = reader.into_decoder().map_err(fault)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageFault::Zero { width, height });
    }
    if width > SIDE_MAX || height > SIDE_MAX || u64::from(width) * u64::from(height) > most {
        return Err(ImageFault::Pixels { width, height, most });
    }
    decoder.set_limits(limits(most)).map_err(fault)?;
    // An image with damaged metadata is decoded as it is stored.
    let orientation = decoder.orientation();
    let mut image = DynamicImage::from_decoder(decoder).map_err(fault)?;
    if let Ok(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(image.into_rgb8())
}

fn limits(most: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    // The largest pixel is 16-bit RGBA.
    limits.max_alloc = Some(most * 8);
    limits
}

fn fault(error: ImageError) -> ImageFault {
    match error {
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => ImageFault::Truncated,
        other => ImageFault::Decode(other),
    }
}

/// Reads a JPEG's segments up to the end-of-image marker (ITU-T T.81, annex B), to refuse a truncated file and one with
/// too many scans: the decoder would fill the missing part with grey and decode any number of scans.
fn check_jpeg(file: &[u8]) -> Result<(), ImageFault> {
    const END_OF_IMAGE: u8 = 0xd9;
    const START_OF_SCAN: u8 = 0xda;
    // The decoder refuses what does not begin as a JPEG.
    let Some(mut rest) = file.strip_prefix(b"\xff\xd8") else { return Ok(()) };
    let mut scans = 0;
    loop {
        // Fill bytes before a marker and the data of a scan are skipped.
        let Some(at) = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff))
        else {
            return Err(ImageFault::Truncated);
        };
        let marker = rest[at + 1];
        rest = &rest[at + 2..];
        match marker {
            END_OF_IMAGE => return Ok(()),
            // Markers without a length: TEM, restarts, start of image.
            0x01 | 0xd0..=0xd8 => {}
            _ => {
                scans += usize::from(marker == START_OF_SCAN);
                if scans > SCANS_MAX {
                    return Err(ImageFault::Scans);
                }
                let (length, _) = rest.split_first_chunk::<2>().ok_or(ImageFault::Truncated)?;
                let length = usize::from(u16::from_be_bytes(*length));
                rest = rest.get(length.max(2)..).ok_or(ImageFault::Truncated)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn file(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let image =
            RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7) as u8, (y * 5) as u8, (x ^ y) as u8]));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn decodes_every_known_format() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
            let image = decode(&file(31, 17, format)).unwrap();
            assert_eq!(image.dimensions(), (31, 17), "{format:?}");
        }
    }

    #[test]
    fn no_prefix_of_a_file_is_decoded_or_panics() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
            let whole = file(40, 40, format);
            for keep in 0..whole.len() - 1 {
                // A PNG is complete before its end chunk, a JPEG without its last two bytes is not.
                if format == ImageFormat::Png && keep + 16 > whole.len() {
                    continue;
                }
                assert!(decode(&whole[..keep]).is_err(), "{format:?} {keep} of {}", whole.len());
            }
        }
    }

    #[test]
    fn a_truncated_jpeg_and_an_empty_file_are_told_apart() {
        let whole = file(64, 64, ImageFormat::Jpeg);
        for keep in [3, 40, whole.len() / 2, whole.len() - 1] {
            assert!(matches!(decode(&whole[..keep]), Err(ImageFault::Truncated)), "{keep}");
        }
        assert!(matches!(decode(&[]), Err(ImageFault::Empty)));
        assert!(matches!(decode(b"hello, this is text"), Err(ImageFault::Decode(_))));
    }

    #[test]
    fn a_huge_header_is_refused_before_memory_is_allocated() {
        let mut bmp = file(4, 4, ImageFormat::Bmp);
        bmp[18..22].copy_from_slice(&60_000u32.to_le_bytes());
        bmp[22..26].copy_from_slice(&60_000u32.to_le_bytes());
        assert!(matches!(decode(&bmp), Err(ImageFault::Pixels { width: 60_000, .. })));
    }

    #[test]
    fn a_format_and_a_largest_size_can_be_required() {
        let jpeg = file(40, 20, ImageFormat::Jpeg);
        assert_eq!(decode_as(&jpeg, ImageFormat::Jpeg, 800).unwrap().dimensions(), (40, 20));
        let error = decode_as(&jpeg, ImageFormat::Jpeg, 799).unwrap_err();
        assert!(matches!(error, ImageFault::Pixels { width: 40, height: 20, most: 799 }));
        assert!(matches!(decode_as(&jpeg, ImageFormat::WebP, 800), Err(ImageFault::Decode(_))));
        assert!(matches!(decode_as(&[], ImageFormat::WebP, 800), Err(ImageFault::Empty)));
        let png = file(40, 20, ImageFormat::Png);
        assert!(decode_as(&png, ImageFormat::Jpeg, 800).is_err());
    }

    #[test]
    fn a_jpeg_with_too_many_scans_is_refused_before_it_is_decoded() {
        let jpeg = file(40, 20, ImageFormat::Jpeg);
        let scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00";
        let bomb = [&jpeg[..jpeg.len() - 2], &scan.repeat(SCANS_MAX), b"\xff\xd9"].concat();
        assert!(matches!(decode(&bomb), Err(ImageFault::Scans)));
    }

    /// Puts an APP1 segment with one little-endian IFD entry into a JPEG: tag 0x0112, SHORT, 1 value.
    fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let mut exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        [&jpeg[..2], &exif, &jpeg[2..]].concat()
    }

    #[test]
    fn all_eight_exif_orientations_are_applied_and_others_ignored() {
        let jpeg = file(40, 20, ImageFormat::Jpeg);
        let stored = decode(&jpeg).unwrap();
        let (right, bottom) = (stored.width() - 1, stored.height() - 1);
        for orientation in 0..=9 {
            let upright = decode(&with_orientation(&jpeg, orientation)).unwrap();
            let size = if (5..=8).contains(&orientation) { (20, 40) } else { (40, 20) };
            assert_eq!(upright.dimensions(), size, "{orientation}");
            for (x, y, pixel) in upright.enumerate_pixels() {
                // Where the pixel is stored, as the table of BUNDLE.md says.
                let (column, row) = match orientation {
                    2 => (right - x, y),
                    3 => (right - x, bottom - y),
                    4 => (x, bottom - y),
                    5 => (y, x),
                    6 => (y, bottom - x),
                    7 => (right - y, bottom - x),
                    8 => (right - y, x),
                    _ => (x, y),
                };
                assert_eq!(pixel, stored.get_pixel(column, row), "{orientation} at {x}, {y}");
            }
        }
    }
}
