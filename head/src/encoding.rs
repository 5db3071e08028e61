//! JPEG and WebP files of pixels, for a server that runs the whole network.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use narrows_wire::{ImageFormat, limits::MAX_IMAGE_PIXELS};

/// How an image is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// Format of the file.
    pub format: Format,
    /// 1 (smallest) to 100.
    pub quality: u8,
    /// Resolution of the colour planes; WebP always halves it.
    pub chroma: Chroma,
}

/// Why an image cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// More pixels than a server accepts of an image that is not resized.
    #[error("{width}×{height} pixels, a server takes at most {MAX_IMAGE_PIXELS}; send it fitted")]
    TooManyPixels {
        /// Width of the image.
        width: usize,
        /// Height of the image.
        height: usize,
    },
    /// A side is longer than the format can express.
    #[error("{width}×{height} pixels as {format}: a side is over 65535")]
    Side {
        /// Width of the image.
        width: usize,
        /// Height of the image.
        height: usize,
        /// Name of the format.
        format: &'static str,
    },
    /// The JPEG encoder failed.
    #[error("{width}×{height} pixels as jpeg")]
    Jpeg {
        /// Width of the image.
        width: usize,
        /// Height of the image.
        height: usize,
        /// The encoder's error.
        source: jpeg_encoder::EncodingError,
    },
    /// libwebp failed; its error is only a name.
    #[error("{width}×{height} pixels as webp: {reason}")]
    Webp {
        /// Width of the image.
        width: usize,
        /// Height of the image.
        height: usize,
        /// Name of the error.
        reason: String,
    },
}

/// An image file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Baseline JPEG with the standard Huffman tables.
    Jpeg,
    /// Lossy WebP with libwebp's default settings.
    Webp,
}

/// Resolution of the colour planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Chroma {
    /// Half the image's height and width.
    #[value(name = "420")]
    Half,
    /// That of the image.
    #[value(name = "444")]
    Full,
}

impl Encoding {
    /// Encodes `pixels`, u8 RGB row by row, as a file.
    ///
    /// # Errors
    /// [`EncodeError`] for a size that the format cannot express.
    ///
    /// # Panics
    /// If `pixels` are not three bytes for each of `width` × `height`.
    pub fn encode(&self, pixels: &[u8], width: usize, height: usize) -> Result<Vec<u8>, EncodeError> {
        assert_eq!(pixels.len(), 3 * width * height, "three bytes a pixel");
        let format = self.format.name();
        let size = u16::try_from(width).ok().zip(u16::try_from(height).ok());
        let (columns, rows) = size.ok_or(EncodeError::Side { width, height, format })?;
        match self.format {
            Format::Jpeg => {
                let mut file = Vec::new();
                let mut encoder = Encoder::new(&mut file, self.quality);
                encoder.set_sampling_factor(match self.chroma {
                    Chroma::Half => SamplingFactor::F_2_2,
                    Chroma::Full => SamplingFactor::F_1_1,
                });
                let encoded = encoder.encode(pixels, columns, rows, ColorType::Rgb);
                encoded.map(|()| file).map_err(|source| EncodeError::Jpeg { width, height, source })
            }
            Format::Webp => {
                let encoder = webp::Encoder::from_rgb(pixels, columns.into(), rows.into());
                let encoded = encoder.encode_simple(false, self.quality.into());
                encoded.map(|file| file.to_vec()).map_err(|error| EncodeError::Webp {
                    width,
                    height,
                    reason: format!("{error:?}"),
                })
            }
        }
    }
}

impl Format {
    /// The format's code in the protocol.
    #[must_use]
    pub fn wire(self) -> ImageFormat {
        match self {
            Format::Jpeg => ImageFormat::Jpeg,
            Format::Webp => ImageFormat::WebP,
        }
    }

    /// Name in flags and in JSON lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "jpeg",
            Format::Webp => "webp",
        }
    }
}

impl Chroma {
    /// Name in flags and in JSON lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Chroma::Half => "420",
            Chroma::Full => "444",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::decode;

    const SIDES: (usize, usize) = (75, 50);

    /// A coloured gradient with edges.
    fn pixels() -> Vec<u8> {
        let pixel = |at: usize| {
            let (x, y) = (at % SIDES.0, at / SIDES.0);
            [(3 * x) as u8, (5 * y) as u8, if (x / 8 + y / 8) % 2 == 0 { 40 } else { 200 }]
        };
        (0..SIDES.0 * SIDES.1).flat_map(pixel).collect()
    }

    /// Size of the file in bytes, and mean square error of the decoded pixels.
    fn round_trip(format: Format, quality: u8, chroma: Chroma) -> (usize, f64) {
        let pixels = pixels();
        let file = Encoding { format, quality, chroma }.encode(&pixels, SIDES.0, SIDES.1).unwrap();
        let back = decode(&file).unwrap();
        assert_eq!(back.dimensions(), (SIDES.0 as u32, SIDES.1 as u32));
        let square = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b)).powi(2);
        (file.len(), back.as_raw().iter().zip(&pixels).map(square).sum::<f64>() / pixels.len() as f64)
    }

    #[test]
    fn higher_quality_takes_more_bytes_and_has_less_error() {
        for format in [Format::Jpeg, Format::Webp] {
            let results: Vec<_> =
                [5, 30, 75, 95].map(|quality| round_trip(format, quality, Chroma::Half)).into();
            assert!(results.windows(2).all(|pair| pair[0].0 < pair[1].0), "{format:?}: {results:?}");
            assert!(results.windows(2).all(|pair| pair[0].1 > pair[1].1), "{format:?}: {results:?}");
        }
    }

    #[test]
    fn full_chroma_takes_more_bytes_and_has_less_error() {
        let (half, full) =
            (round_trip(Format::Jpeg, 75, Chroma::Half), round_trip(Format::Jpeg, 75, Chroma::Full));
        assert!(half.0 < full.0 && half.1 > full.1, "{half:?} {full:?}");
    }

    #[test]
    fn a_size_that_the_format_cannot_express_is_an_error_that_names_it() {
        let wide = vec![0; 3 * 70_000];
        for format in [Format::Jpeg, Format::Webp] {
            let encoding = Encoding { format, quality: 50, chroma: Chroma::Half };
            let error = encoding.encode(&wide, 70_000, 1).unwrap_err().to_string();
            assert!(error.contains("70000×1") && error.contains(format.name()), "{error}");
        }
        let encoding = Encoding { format: Format::Webp, quality: 50, chroma: Chroma::Half };
        assert!(encoding.encode(&wide[..3 * 17_000], 17_000, 1).is_err());
    }
}
