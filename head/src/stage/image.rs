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
    picture::{Inputs, Picture},
};

/// Encodes images for a server that runs the whole network.
#[derive(Debug)]
pub struct ImageEncoder {
    geometries: Vec<Geometry>,
    inputs: Inputs,
    pixels: Vec<u8>,
}

impl ImageEncoder {
    /// An encoder for the geometries of `bundle`.
    #[must_use]
    pub fn new(bundle: &Bundle) -> Self {
        ImageEncoder {
            geometries: bundle.geometries().to_vec(),
            inputs: Inputs::default(),
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
        let started = Instant::now();
        let Self { geometries, inputs, pixels } = self;
        let target = target(geometries, geometry)?;
        let work = Work { geometry, encoding, framing, started };
        match framing {
            Framing::Original => work.original(image),
            _ => {
                inputs.fit_image(image, target, pixels);
                work.encode(pixels, target.width, target.height)
            }
        }
    }

    /// As [`ImageEncoder::encode_image`], a picture.
    ///
    /// # Errors
    /// Those of [`ImageEncoder::encode_image`], and those of a picture that cannot be decoded.
    pub(crate) fn encode_picture(
        &mut self,
        picture: &Picture,
        geometry: GeometryId,
        encoding: Encoding,
        framing: Framing,
    ) -> Result<(Image, Timings), Error> {
        let started = Instant::now();
        let Self { geometries, inputs, pixels } = self;
        let target = target(geometries, geometry)?;
        let work = Work { geometry, encoding, framing, started };
        match framing {
            Framing::Original => work.original(&*picture.image()?),
            _ => {
                inputs.fit(picture, target, pixels)?;
                work.encode(pixels, target.width, target.height)
            }
        }
    }
}

fn target(geometries: &[Geometry], geometry: GeometryId) -> Result<&Geometry, Error> {
    let found = geometries.get(geometry.index());
    found.ok_or_else(|| Error::usage("--geometry", format!("the bundle has no geometry {geometry}")))
}

/// How an image is encoded, and since when it has been worked on.
struct Work {
    geometry: GeometryId,
    encoding: Encoding,
    framing: Framing,
    started: Instant,
}

impl Work {
    /// Encodes an image at the size that it has.
    fn original(self, image: &RgbImage) -> Result<(Image, Timings), Error> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        if width * height > MAX_IMAGE_PIXELS {
            return Err(EncodeError::TooManyPixels { width, height }.into());
        }
        self.encode(image.as_raw(), width, height)
    }

    fn encode(self, pixels: &[u8], width: usize, height: usize) -> Result<(Image, Timings), Error> {
        let fitted = Instant::now();
        let file = self.encoding.encode(pixels, width, height)?;
        let timings = Timings {
            decode: Duration::ZERO,
            resize: fitted - self.started,
            head: Duration::ZERO,
            encode: fitted.elapsed(),
            exit: Duration::ZERO,
        };
        let Work { geometry, encoding, framing, .. } = self;
        Ok((Image { geometry: geometry.0, format: encoding.format.wire(), framing, file }, timings))
    }
}
