//! Pixels to a JPEG or WebP file, for the server's whole network.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use narrows_wire::ImageFormat;

use crate::Error;

/// How images are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// The file's format.
    pub format: Format,
    /// 1 (smallest) to 100.
    pub quality: u8,
    /// What becomes of the colour planes; WebP halves them always.
    pub chroma: Chroma,
}

/// An image file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Baseline JPEG with the standard Huffman tables.
    Jpeg,
    /// Lossy WebP as libwebp makes it by default.
    Webp,
}

/// Resolution of the colour planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Chroma {
    /// Half, both ways.
    #[value(name = "420")]
    Half,
    /// Full.
    #[value(name = "444")]
    Full,
}

impl Encoding {
    /// The file of `pixels`, u8 RGB, row by row.
    ///
    /// # Errors
    /// [`Error::Encode`] for a size that the format cannot express.
    ///
    /// # Panics
    /// When `pixels` are not three bytes for each of `width` × `height`.
    pub fn encode(&self, pixels: &[u8], width: usize, height: usize) -> Result<Vec<u8>, Error> {
        assert_eq!(pixels.len(), 3 * width * height, "three bytes a pixel");
        let failed = |reason: String| {
            Error::Encode(format!("{width}×{height} pixels as {}: {reason}", self.format.name()))
        };
        let size = u16::try_from(width).ok().zip(u16::try_from(height).ok());
        let (columns, rows) = size.ok_or_else(|| failed("a side is over 65535".to_owned()))?;
        match self.format {
            Format::Jpeg => {
                let mut file = Vec::new();
                let mut encoder = Encoder::new(&mut file, self.quality);
                encoder.set_sampling_factor(match self.chroma {
                    Chroma::Half => SamplingFactor::F_2_2,
                    Chroma::Full => SamplingFactor::F_1_1,
                });
                let encoded = encoder.encode(pixels, columns, rows, ColorType::Rgb);
                encoded.map(|()| file).map_err(|error| failed(error.to_string()))
            }
            Format::Webp => {
                let encoder = webp::Encoder::from_rgb(pixels, columns.into(), rows.into());
                let encoded = encoder.encode_simple(false, self.quality.into());
                encoded.map(|file| file.to_vec()).map_err(|error| failed(format!("{error:?}")))
            }
        }
    }
}

impl Format {
    /// The format on the wire.
    pub fn wire(self) -> ImageFormat {
        match self {
            Format::Jpeg => ImageFormat::Jpeg,
            Format::Webp => ImageFormat::WebP,
        }
    }

    /// As flags and lines write it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "jpeg",
            Format::Webp => "webp",
        }
    }
}

impl Chroma {
    /// As flags and lines write it.
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

    /// Bytes of the file, and the mean square error of what it decodes to.
    fn trip(format: Format, quality: u8, chroma: Chroma) -> (usize, f64) {
        let pixels = pixels();
        let file = Encoding { format, quality, chroma }.encode(&pixels, SIDES.0, SIDES.1).unwrap();
        let back = decode(&file).unwrap();
        assert_eq!(back.dimensions(), (SIDES.0 as u32, SIDES.1 as u32));
        let square = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b)).powi(2);
        (file.len(), back.as_raw().iter().zip(&pixels).map(square).sum::<f64>() / pixels.len() as f64)
    }

    #[test]
    fn quality_costs_bytes_and_comes_closer() {
        for format in [Format::Jpeg, Format::Webp] {
            let trips: Vec<_> = [5, 30, 75, 95].map(|quality| trip(format, quality, Chroma::Half)).into();
            assert!(trips.windows(2).all(|pair| pair[0].0 < pair[1].0), "{format:?}: {trips:?}");
            assert!(trips.windows(2).all(|pair| pair[0].1 > pair[1].1), "{format:?}: {trips:?}");
        }
    }

    #[test]
    fn full_chroma_costs_bytes_and_comes_closer() {
        let (half, full) = (trip(Format::Jpeg, 75, Chroma::Half), trip(Format::Jpeg, 75, Chroma::Full));
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
