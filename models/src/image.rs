//! Image files to the network's input: decode, turn upright, resize and crop (BUNDLE.md, section 3).

use std::io::Cursor;

use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::U8x3,
};
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};
pub use image::{ImageFormat, RgbImage};

use crate::{Filter, Fit, Geometry};

/// Longest side of an image in pixels: what JPEG can express.
pub const SIDE_MAX: u32 = 65_535;
/// Most pixels of an image; with the decoder's own buffers, about half a gigabyte at worst.
pub const PIXELS_MAX: u64 = 64 << 20;
/// Largest image file in bytes.
pub const FILE_MAX: u64 = 256 << 20;
/// Most scans of a JPEG: each may go over every pixel, and a scan takes a few bytes. Encoders make about ten.
pub const SCANS_MAX: usize = 64;

/// Why a file cannot be used as a frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageFault {
    /// The file holds no bytes.
    #[error("the file is empty")]
    Empty,
    /// More than [`FILE_MAX`] bytes.
    #[error("the file has {0} bytes, at most {FILE_MAX} are read")]
    File(u64),
    /// Zero width or height.
    #[error("the image is {width}×{height} pixels, there is nothing to see")]
    Zero {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
    },
    /// Larger than [`SIDE_MAX`], or than the pixels allowed.
    #[error("the image is {width}×{height} pixels, at most {most} pixels and {SIDE_MAX} a side are decoded")]
    Pixels {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The pixels allowed.
        most: u64,
    },
    /// A JPEG of more than [`SCANS_MAX`] scans.
    #[error("the image has over {SCANS_MAX} scans, no camera makes so many")]
    Scans,
    /// The file ends before the image does.
    #[error("the image is truncated")]
    Truncated,
    /// Not a JPEG, PNG, WebP or BMP image, or a damaged one.
    #[error("the image cannot be decoded")]
    Decode(#[source] ImageError),
}

/// Decodes a JPEG, PNG, WebP or BMP file to upright 8-bit RGB; the format is told by its first bytes, alpha is
/// dropped.
///
/// # Errors
/// [`ImageFault`]; nothing larger than [`PIXELS_MAX`] is allocated for.
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

/// [`decode`] of a file that must be of this `format` and have at most `most` pixels.
///
/// # Errors
/// [`ImageFault`]; nothing larger than `most` pixels is allocated for.
pub fn decode_as(file: &[u8], format: ImageFormat, most: u64) -> Result<RgbImage, ImageFault> {
    if file.is_empty() {
        return Err(ImageFault::Empty);
    }
    read(file, ImageReader::with_format(Cursor::new(file), format), most)
}

fn read(file: &[u8], reader: ImageReader<Cursor<&[u8]>>, most: u64) -> Result<RgbImage, ImageFault> {
    if reader.format() == Some(ImageFormat::Jpeg) {
        survey(file)?;
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
    // Damaged metadata is no reason to refuse a picture.
    let orientation = decoder.orientation();
    let mut image = DynamicImage::from_decoder(decoder).map_err(fault)?;
    if let Ok(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(image.into_rgb8())
}

/// Resizes and crops to the network's input of one geometry: u8, rows of RGB pixels.
pub fn fit(image: &RgbImage, geometry: &Geometry) -> Vec<u8> {
    let mut pixels = Vec::new();
    Fitter::default().fit(image, geometry, &mut pixels);
    pixels
}

/// [`fit`] with buffers that are kept from image to image.
#[derive(Debug, Default)]
pub struct Fitter {
    resizer: Resizer,
    rows: Vec<u8>,
}

impl Fitter {
    /// Fills `pixels` with `image` as `geometry` needs it.
    pub fn fit(&mut self, image: &RgbImage, geometry: &Geometry, pixels: &mut Vec<u8>) {
        let window = Window::of(image.width(), image.height(), geometry);
        let size = (geometry.width as u32, geometry.height as u32);
        self.cut(image, window, size, geometry.filter, pixels);
    }

    /// Fills `pixels` with the `window` of `image` at another size. The filter reaches beyond the window into the
    /// image, as if it were cut out after resizing.
    ///
    /// Along rows first, then along columns, except where that makes the image wider and then lower: as Pillow does.
    /// What lies between is rounded to bytes, so the order shows.
    pub fn cut(
        &mut self,
        image: &RgbImage,
        window: Window,
        (width, height): (u32, u32),
        filter: Filter,
        pixels: &mut Vec<u8>,
    ) {
        let size = (image.width(), image.height());
        if f64::from(width) > window.width && f64::from(height) < window.height {
            // Left to itself the resizer begins with the columns.
            return self.resize(image.as_raw(), size, window, (width, height), filter, pixels);
        }
        let (first, last) = window.rows(height, image.height());
        let across = Window { top: first.into(), height: (last - first).into(), ..window };
        let mut rows = std::mem::take(&mut self.rows);
        self.resize(image.as_raw(), size, across, (width, last - first), filter, &mut rows);
        let down = Window { left: 0.0, top: window.top - f64::from(first), width: width.into(), ..window };
        self.resize(&rows, (width, last - first), down, (width, height), filter, pixels);
        self.rows = rows;
    }

    fn resize(
        &mut self,
        source: &[u8],
        from: (u32, u32),
        window: Window,
        to: (u32, u32),
        filter: Filter,
        target: &mut Vec<u8>,
    ) {
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(match filter {
                Filter::Bicubic => FilterType::CatmullRom,
                Filter::Bilinear => FilterType::Bilinear,
                Filter::Box => FilterType::Box,
            }))
            .crop(window.left, window.top, window.width, window.height);
        target.resize(to.0 as usize * to.1 as usize * 3, 0);
        // Typed images: the untyped ones would compile the resizer for every pixel type that there is.
        let source = TypedImageRef::<U8x3>::from_buffer(from.0, from.1, source)
            .expect("three bytes a pixel are there");
        let mut target =
            TypedImage::<U8x3>::from_buffer(to.0, to.1, target).expect("the buffer was just sized for it");
        self.resizer.resize_typed(&source, &mut target, &options).expect("the window lies within the image");
    }
}

/// The part of an image that a geometry shows, in pixels of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width, above 0.
    pub width: f64,
    /// Height, above 0.
    pub height: f64,
}

impl Window {
    /// The window of an image of this size.
    pub fn of(width: u32, height: u32, geometry: &Geometry) -> Self {
        match geometry.fit {
            Fit::Crop { short_side } => {
                Self::crop(width, height, short_side, geometry.width, geometry.height)
            }
            Fit::Stretch => Window { left: 0.0, top: 0.0, width: width.into(), height: height.into() },
        }
    }

    /// The window that resizing to `short_side` and cutting out the centre would leave.
    fn crop(width: u32, height: u32, short_side: usize, cut_width: usize, cut_height: usize) -> Self {
        let (left, wide) = Self::span(width, width.min(height), short_side, cut_width);
        let (top, high) = Self::span(height, width.min(height), short_side, cut_height);
        Window { left, top, width: wide, height: high }
    }

    /// The rows of an image that has `full` of them which the widest filter needs to make `height` of the window.
    fn rows(&self, height: u32, full: u32) -> (u32, u32) {
        let reach = 2.0 * (self.height / f64::from(height)).max(1.0) + 1.0;
        let first = (self.top - reach).floor().max(0.0);
        let last = (self.top + self.height + reach).ceil().min(full.into());
        (first as u32, last as u32)
    }

    fn span(side: u32, short: u32, short_side: usize, cut: usize) -> (f64, f64) {
        let full = f64::from(side);
        let resized = resized(side.into(), short.into(), short_side as u64);
        let start = resized.saturating_sub(cut as u64) / 2;
        let scale = full / resized as f64;
        let left = start as f64 * scale;
        (left, (cut as f64 * scale).min(full - left))
    }
}

/// round(side · short_side / short), halves away from zero.
fn resized(side: u64, short: u64, short_side: u64) -> u64 {
    (2 * side * short_side + short) / (2 * short)
}

fn limits(most: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    // 16-bit RGBA is the widest pixel.
    limits.max_alloc = Some(most * 8);
    limits
}

fn fault(error: ImageError) -> ImageFault {
    match error {
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => ImageFault::Truncated,
        other => ImageFault::Decode(other),
    }
}

/// Walks a JPEG's segments to its end-of-image marker (ITU-T T.81, annex B). The decoder would paint what is missing
/// grey and say nothing, and would work through any number of scans.
fn survey(file: &[u8]) -> Result<(), ImageFault> {
    const END_OF_IMAGE: u8 = 0xd9;
    const START_OF_SCAN: u8 = 0xda;
    // What does not begin as a JPEG the decoder refuses by itself.
    let Some(mut rest) = file.strip_prefix(b"\xff\xd8") else { return Ok(()) };
    let mut scans = 0;
    loop {
        // Fill bytes before a marker and stray bytes after a scan are skipped.
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
    fn no_cut_of_a_file_is_an_image_or_a_panic() {
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
    fn a_half_jpeg_is_truncated_and_nothing_is_empty() {
        let whole = file(64, 64, ImageFormat::Jpeg);
        for keep in [3, 40, whole.len() / 2, whole.len() - 1] {
            assert!(matches!(decode(&whole[..keep]), Err(ImageFault::Truncated)), "{keep}");
        }
        assert!(matches!(decode(&[]), Err(ImageFault::Empty)));
        assert!(matches!(decode(b"hello, this is text"), Err(ImageFault::Decode(_))));
    }

    #[test]
    fn a_huge_header_is_refused_before_memory_is_taken() {
        let mut bmp = file(4, 4, ImageFormat::Bmp);
        bmp[18..22].copy_from_slice(&60_000u32.to_le_bytes());
        bmp[22..26].copy_from_slice(&60_000u32.to_le_bytes());
        assert!(matches!(decode(&bmp), Err(ImageFault::Pixels { width: 60_000, .. })));
    }

    #[test]
    fn a_format_and_a_size_can_be_demanded() {
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
    fn a_jpeg_of_scans_without_end_is_refused_before_it_is_decoded() {
        let jpeg = file(40, 20, ImageFormat::Jpeg);
        let scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00";
        let bomb = [&jpeg[..jpeg.len() - 2], &scan.repeat(SCANS_MAX), b"\xff\xd9"].concat();
        assert!(matches!(decode(&bomb), Err(ImageFault::Scans)));
    }

    #[test]
    fn exif_orientation_turns_the_image_upright() {
        let jpeg = file(40, 20, ImageFormat::Jpeg);
        // APP1 with one little-endian IFD entry: tag 0x0112, SHORT, 1 value, 6 (rotate by 90 degrees).
        let mut exif =
            b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0".to_vec();
        exif.extend([0; 4]);
        let turned = [&jpeg[..2], &exif, &jpeg[2..]].concat();
        assert_eq!(decode(&turned).unwrap().dimensions(), (20, 40));
    }

    #[test]
    fn resized_sides_round_halves_away_from_zero() {
        assert_eq!(resized(500, 375, 288), 384);
        assert_eq!(resized(375, 375, 288), 288);
        assert_eq!(resized(5, 2, 1), 3);
        assert_eq!(resized(3, 2, 1), 2);
    }

    #[test]
    fn the_crop_is_the_centre_of_the_resized_image() {
        let window = Window::crop(768, 576, 288, 256, 256);
        // 768 × 576 becomes 384 × 288; the cut starts at (64, 16).
        assert_eq!(window, Window { left: 128.0, top: 32.0, width: 512.0, height: 512.0 });
        let exact = Window::crop(256, 256, 256, 256, 256);
        assert_eq!(exact, Window { left: 0.0, top: 0.0, width: 256.0, height: 256.0 });
    }

    #[test]
    fn a_window_never_leaves_its_image() {
        let mut fitter = Fitter::default();
        let mut pixels = Vec::new();
        for (width, height) in [(1, 1), (1, 5000), (5000, 1), (3, 2), (257, 255), (333, 1999)] {
            let window = Window::crop(width, height, 288, 256, 256);
            assert!(window.left >= 0.0 && window.left + window.width <= f64::from(width));
            assert!(window.top >= 0.0 && window.top + window.height <= f64::from(height));
            let image = RgbImage::from_pixel(width, height, Rgb([9, 99, 199]));
            fitter.cut(&image, window, (256, 256), Filter::Bicubic, &mut pixels);
            assert_eq!(pixels.len(), 256 * 256 * 3);
            assert!(pixels.chunks_exact(3).all(|pixel| pixel == [9, 99, 199]), "{width}×{height}");
        }
    }
}
