//! An image as a smaller file, for a server that runs the whole network.
#![expect(clippy::disallowed_methods, reason = "every stage is timed here")]

use std::time::{Duration, Instant};

use image::RgbImage;
use narrows_codec::GeometryId;
use narrows_models::{Bundle, Geometry};
use narrows_wire::{Framing, Image, limits::MAX_IMAGE_PIXELS};

use crate::{
    Error,
    encoding::{EncodeError, Encoding},
    frame::Timings,
    image::Fitter,
};

/// Encodes images for a server that runs the whole network.
#[derive(Debug)]
pub struct ImageEncoder {
    geometries: Vec<Geometry>,
    fitter: Fitter,
    pixels: Vec<u8>,
}

impl ImageEncoder {
    /// An encoder for the geometries of `bundle`.
    #[must_use]
    pub fn new(bundle: &Bundle) -> Self {
        ImageEncoder {
            geometries: bundle.geometries().to_vec(),
            fitter: Fitter::default(),
            pixels: Vec::new(),
        }
    }

    /// Encodes an image for `geometry` and returns it with the duration of each stage.
    ///
    /// With [`Framing::Fitted`] it is resized and cropped to the geometry first; with [`Framing::Original`] it keeps its
    /// size and the server does that.
    ///
    /// # Errors
    /// [`Error::Usage`] for a geometry that the bundle does not have, [`Error::Encode`] for an image that is too large to
    /// be sent as it is or that the format cannot express.
    pub fn encode_image(
        &mut self,
        image: &RgbImage,
        geometry: GeometryId,
        encoding: Encoding,
        framing: Framing,
    ) -> Result<(Image, Timings), Error> {
        let Some(target) = self.geometries.get(geometry.index()) else {
            return Err(Error::usage("--geometry", format!("the bundle has no geometry {geometry}")));
        };
        let started = Instant::now();
        let (pixels, width, height) = match framing {
            Framing::Original => {
                let (width, height) = (image.width() as usize, image.height() as usize);
                if width * height > MAX_IMAGE_PIXELS {
                    return Err(EncodeError::TooManyPixels { width, height }.into());
                }
                (image.as_raw(), width, height)
            }
            _ => {
                self.fitter.fit(image, target, &mut self.pixels);
                (&self.pixels, target.width, target.height)
            }
        };
        let fitted = Instant::now();
        let file = encoding.encode(pixels, width, height)?;
        let timings = Timings {
            decode: Duration::ZERO,
            resize: fitted - started,
            head: Duration::ZERO,
            encode: fitted.elapsed(),
            exit: Duration::ZERO,
        };
        let image = Image { geometry: geometry.0, format: encoding.format.wire(), framing, file };
        Ok((image, timings))
    }
}
