//! Frames of brightness and colour in planes of 8 bits, and their conversion to RGB.

use std::str::FromStr;

use yuv::{
    YuvBiPlanarImage, YuvConversionMode, YuvGrayImage, YuvPlanarImage, YuvRange, YuvStandardMatrix,
    yuv_nv12_to_rgb, yuv400_to_rgb, yuv420_to_rgb, yuv422_to_rgb, yuv444_to_rgb,
};

use crate::fault::StreamFault;

/// Longest side of a frame in pixels.
const SIDE_MAX: u32 = 65_535;
/// Most pixels of a frame.
const PIXELS_MAX: u64 = 64 << 20;

/// How colour is stored beside brightness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sampling {
    /// Three planes; those of colour have half the width and height (4:2:0).
    I420,
    /// A plane of brightness and one of pairs of colour, of half the width and height (4:2:0).
    Nv12,
    /// Three planes; those of colour have half the width (4:2:2).
    I422,
    /// Three planes of the same size (4:4:4).
    I444,
    /// Brightness alone.
    Grey,
}

/// What the numbers of a frame mean as colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Colour {
    /// Whether brightness takes all values from 0 to 255, as in JPEG, and not those from 16 to 235.
    pub full_range: bool,
    /// Whether the coefficients are those of ITU-R BT.709 and not those of BT.601.
    pub bt709: bool,
}

/// Size of a frame and how it lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    sampling: Sampling,
    width: u32,
    height: u32,
    stride: u32,
}

/// The format of a stream of raw frames.
///
/// It is written `i420:WIDTHxHEIGHT` or `nv12:WIDTHxHEIGHT`, with `+STRIDE` where rows are padded to so many bytes, and
/// behind commas `full` for the full range and `bt709` for the coefficients of BT.709.
///
/// ```
/// use narrows_video::RawFormat;
///
/// let format: RawFormat = "i420:640x480+704,full".parse()?;
/// assert_eq!((format.layout.stride(), format.layout.size()), (704, 704 * 480 * 3 / 2));
/// assert!(format.colour.full_range && !format.colour.bt709);
/// # Ok::<(), narrows_video::StreamFault>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFormat {
    /// Size and planes.
    pub layout: Layout,
    /// What the numbers mean.
    pub colour: Colour,
}

/// A frame that is not compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    format: RawFormat,
    bytes: Vec<u8>,
}

impl Layout {
    /// A layout whose rows of brightness are `stride` bytes apart, and those of a plane of colour half of that where the
    /// plane has half the width.
    ///
    /// # Errors
    /// [`StreamFault::Raw`] for a side of zero or beyond 65535, for more than 67,108,864 pixels, and for a stride that is shorter than the width or
    /// needlessly long.
    pub fn new(sampling: Sampling, width: u32, height: u32, stride: u32) -> Result<Self, StreamFault> {
        let side = 1..=SIDE_MAX;
        if !side.contains(&width) || !side.contains(&height) {
            return Err(StreamFault::Raw(format!(
                "a size of {width}x{height}; each side is 1 to {SIDE_MAX}"
            )));
        }
        if u64::from(width) * u64::from(height) > PIXELS_MAX {
            return Err(StreamFault::Raw(format!(
                "a size of {width}x{height} is too large; at most {PIXELS_MAX} pixels are read"
            )));
        }
        // Hardware pads rows to some power of two of bytes.
        if stride < width || stride > (width + 4096).max(2 * width) {
            return Err(StreamFault::Raw(format!(
                "a stride of {stride}; it is the distance of rows in bytes, at least the width, which is {width}"
            )));
        }
        Ok(Layout { sampling, width, height, stride })
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Distance of rows of brightness in bytes.
    #[must_use]
    pub fn stride(&self) -> u32 {
        self.stride
    }

    /// How colour is stored.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// Distance of rows of colour in bytes; 0 where there is none.
    #[must_use]
    pub fn colour_stride(&self) -> u32 {
        self.colour_plane().0
    }

    /// Bytes of a frame.
    #[must_use]
    pub fn size(&self) -> usize {
        let (stride, rows) = self.colour_plane();
        let planes = if self.sampling == Sampling::Nv12 { 1 } else { 2 };
        self.brightness() + planes * stride as usize * rows as usize
    }

    fn brightness(&self) -> usize {
        self.stride as usize * self.height as usize
    }

    /// Distance of rows in bytes and number of rows of one plane of colour.
    fn colour_plane(&self) -> (u32, u32) {
        match self.sampling {
            Sampling::I420 => (self.stride.div_ceil(2), self.height.div_ceil(2)),
            Sampling::Nv12 => (2 * self.stride.div_ceil(2), self.height.div_ceil(2)),
            Sampling::I422 => (self.stride.div_ceil(2), self.height),
            Sampling::I444 => (self.stride, self.height),
            Sampling::Grey => (0, 0),
        }
    }
}

impl FromStr for RawFormat {
    type Err = StreamFault;

    fn from_str(text: &str) -> Result<Self, StreamFault> {
        let wrong = |what: &str| {
            StreamFault::Raw(format!(
                "{text:?} {what}; give for example i420:640x480, nv12:1280x720 or i420:640x480+704,full"
            ))
        };
        let (sampling, rest) = match text.split_once(':') {
            Some(("i420", rest)) => (Sampling::I420, rest),
            Some(("nv12", rest)) => (Sampling::Nv12, rest),
            _ => return Err(wrong("is no format of raw frames")),
        };
        let mut words = rest.split(',');
        let size = words.next().unwrap_or_default();
        let (size, stride) = size.split_once('+').map_or((size, None), |(size, stride)| (size, Some(stride)));
        let number = |text: &str| text.parse::<u32>().ok();
        let sides = size.split_once('x').and_then(|(width, height)| number(width).zip(number(height)));
        let (width, height) = sides.ok_or_else(|| wrong("has no size"))?;
        let stride = match stride {
            Some(stride) => number(stride).ok_or_else(|| wrong("has no usable stride"))?,
            None => width,
        };
        let mut colour = Colour::default();
        for word in words {
            match word {
                "full" => colour.full_range = true,
                "limited" => colour.full_range = false,
                "bt709" => colour.bt709 = true,
                "bt601" => colour.bt709 = false,
                _ => {
                    return Err(wrong(&format!(
                        "has {word:?} where full, limited, bt601 or bt709 may stand"
                    )));
                }
            }
        }
        Ok(RawFormat { layout: Layout::new(sampling, width, height, stride)?, colour })
    }
}

impl Raw {
    /// A frame of `format`; `None` unless `bytes` are as many as its layout has.
    #[must_use]
    pub fn new(format: RawFormat, bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == format.layout.size()).then_some(Raw { format, bytes })
    }

    /// The format of the frame.
    #[must_use]
    pub fn format(&self) -> RawFormat {
        self.format
    }

    /// The plane of brightness, and those of colour one behind the other.
    #[must_use]
    pub fn planes(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.format.layout.brightness())
    }

    /// The frame as 8-bit RGB, row by row without padding: `width * height * 3` bytes. Colour is repeated where it has fewer
    /// pixels than brightness.
    ///
    /// # Errors
    /// [`StreamFault::Raw`] with what the conversion says.
    pub fn to_rgb(&self) -> Result<Vec<u8>, StreamFault> {
        let RawFormat { layout, colour } = self.format;
        let Layout { sampling, width, height, stride: y_stride } = layout;
        let range = if colour.full_range { YuvRange::Full } else { YuvRange::Limited };
        let matrix = if colour.bt709 { YuvStandardMatrix::Bt709 } else { YuvStandardMatrix::Bt601 };
        let (y_plane, rest) = self.bytes.split_at(layout.brightness());
        let (stride, rows) = layout.colour_plane();
        let mut rgb = vec![0; width as usize * height as usize * 3];
        let (out, rgb_stride) = (&mut rgb[..], width * 3);
        let planes = || {
            let (u_plane, v_plane) = rest.split_at(stride as usize * rows as usize);
            let (u_stride, v_stride) = (stride, stride);
            YuvPlanarImage { y_plane, y_stride, u_plane, u_stride, v_plane, v_stride, width, height }
        };
        let converted = match sampling {
            Sampling::I420 => yuv420_to_rgb(&planes(), out, rgb_stride, range, matrix),
            Sampling::I422 => yuv422_to_rgb(&planes(), out, rgb_stride, range, matrix),
            Sampling::I444 => yuv444_to_rgb(&planes(), out, rgb_stride, range, matrix),
            Sampling::Grey => {
                let image = YuvGrayImage { y_plane, y_stride, width, height };
                yuv400_to_rgb(&image, out, rgb_stride, range, matrix)
            }
            Sampling::Nv12 => {
                let image =
                    YuvBiPlanarImage { y_plane, y_stride, uv_plane: rest, uv_stride: stride, width, height };
                let mode = YuvConversionMode::Balanced;
                yuv_nv12_to_rgb(&image, out, rgb_stride, range, matrix, mode)
            }
        };
        converted
            .map_err(|error| StreamFault::Raw(format!("the frame cannot be converted to RGB: {error}")))?;
        Ok(rgb)
    }
}
