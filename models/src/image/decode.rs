//! Decoding of image files to upright 8-bit RGB.

use std::{
    any::Any,
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
};

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::{
    fault::ImageFault,
    jpeg,
    limits::{FILE_MAX, PIXELS_MAX, SIDE_MAX},
    sniff,
};

/// Bytes for each pixel that a decoder may take: 16-bit RGBA.
const BYTES_PER_PIXEL: u64 = 8;
/// Pixels from which on it is asked beforehand whether there is memory for them.
const MANY_PIXELS: u64 = 4 << 20;

/// Decodes a JPEG, PNG, WebP or BMP file to upright 8-bit RGB (BUNDLE.md, section 3). The first bytes tell the format; line
/// breaks before the image are skipped, the EXIF orientation is applied, alpha is dropped.
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
    let file = skip_line_breaks(file);
    match image::guess_format(file) {
        Ok(format) => read(file, format, PIXELS_MAX),
        Err(_) => Err(unread(file)),
    }
}

/// Decodes a file as [`decode`] does, which must be of this `format` and have at most `most` pixels.
///
/// # Errors
/// [`ImageFault`]. A header of more than `most` pixels is refused before memory is allocated.
pub fn decode_as(file: &[u8], format: ImageFormat, most: u64) -> Result<RgbImage, ImageFault> {
    if file.is_empty() {
        return Err(ImageFault::Empty);
    }
    read(skip_line_breaks(file), format, most)
}

/// Line breaks before the image are left over from a header of HTTP or MIME.
fn skip_line_breaks(file: &[u8]) -> &[u8] {
    let breaks = file.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    &file[breaks..]
}

fn read(file: &[u8], format: ImageFormat, most: u64) -> Result<RgbImage, ImageFault> {
    // A decoder that fails on one file must not end the process that has others.
    let decoded = catch_unwind(AssertUnwindSafe(|| match format {
        // The size is checked before the scans of a file are followed, which takes as long as they are.
        ImageFormat::Jpeg => match open(file, format, most) {
            Err(fault @ (ImageFault::Zero { .. } | ImageFault::Pixels { .. })) => Err(fault),
            _ => decode_with(&jpeg::complete(file)?, format, most),
        },
        ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp => decode_with(file, format, most),
        _ => Err(unread(file)),
    }));
    decoded.unwrap_or_else(|panic| Err(ImageFault::Panic(message(&*panic))))
}

fn decode_with(file: &[u8], format: ImageFormat, most: u64) -> Result<RgbImage, ImageFault> {
    let mut decoder = open(file, format, most)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MANY_PIXELS && !is_memory_free(pixels * BYTES_PER_PIXEL) {
        return Err(ImageFault::Memory { width, height });
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

/// Reads the header of a file, and checks the size that it gives.
fn open(file: &[u8], format: ImageFormat, most: u64) -> Result<impl ImageDecoder, ImageFault> {
    let decoder = ImageReader::with_format(Cursor::new(file), format).into_decoder().map_err(fault)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageFault::Zero { width, height });
    }
    let pixels = u64::from(width) * u64::from(height);
    if width > SIDE_MAX || height > SIDE_MAX || pixels > most {
        return Err(ImageFault::Pixels { width, height, most });
    }
    Ok(decoder)
}

/// What a file is that is no image, as far as its first bytes tell.
fn unread(file: &[u8]) -> ImageFault {
    match sniff::describe(file) {
        Some(name) => ImageFault::Format(name),
        None => {
            let first: Vec<String> = file.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            ImageFault::Unknown(first.join(" "))
        }
    }
}

/// Whether so many bytes can be allocated. Where they cannot, a decoder would end the process.
fn is_memory_free(bytes: u64) -> bool {
    usize::try_from(bytes).is_ok_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok())
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

fn limits(most: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(most * BYTES_PER_PIXEL);
    limits
}

fn fault(error: ImageError) -> ImageFault {
    match error {
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => ImageFault::Truncated,
        other => ImageFault::Decode(other),
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::image::SCANS_MAX;

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
                // A PNG is complete before its end chunk, and a JPEG before its end marker.
                let end = match format {
                    ImageFormat::Png => 15,
                    ImageFormat::Jpeg => 2,
                    _ => 0,
                };
                if keep + end >= whole.len() && end > 0 {
                    continue;
                }
                assert!(decode(&whole[..keep]).is_err(), "{format:?} {keep} of {}", whole.len());
            }
        }
    }

    #[test]
    fn a_truncated_jpeg_and_an_empty_file_are_told_apart() {
        let whole = file(64, 64, ImageFormat::Jpeg);
        for keep in [3, 40, whole.len() / 2, whole.len() - 3] {
            assert!(matches!(decode(&whole[..keep]), Err(ImageFault::Truncated)), "{keep}");
        }
        assert!(matches!(decode(&[]), Err(ImageFault::Empty)));
        assert!(matches!(decode(b"hello, this is text"), Err(ImageFault::Format(_))));
        assert!(matches!(decode(&[7; 30]), Err(ImageFault::Unknown(_))));
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
        let mut jpeg = file(40, 20, ImageFormat::Jpeg);
        // A progressive image may have many scans of little data.
        let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        jpeg[frame + 1] = 0xc2;
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
