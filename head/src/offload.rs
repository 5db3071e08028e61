//! From an image to a smaller file of it: what the device does when the server runs the whole network.
#![expect(clippy::disallowed_methods, reason = "every stage is timed here")]

use std::time::{Duration, Instant};

use image::RgbImage;
use narrows_codec::GeometryId;
use narrows_models::{Bundle, Geometry};
use narrows_wire::{Framing, Image, limits::MAX_IMAGE_PIXELS};

use crate::{Error, encoding::Encoding, image::Fitter, pipeline::Timings};

/// Encodes frames for the server's whole networks.
#[derive(Debug)]
pub struct Offload {
    geometries: Vec<Geometry>,
    encoding: Encoding,
    framing: Framing,
    fitter: Fitter,
    pixels: Vec<u8>,
}

impl Offload {
    /// Encodes as `encoding` says, fitted to a geometry of `bundle` or at the image's own size.
    pub fn new(bundle: &Bundle, encoding: Encoding, framing: Framing) -> Self {
        let geometries = bundle.geometries().to_vec();
        Offload { geometries, encoding, framing, fitter: Fitter::default(), pixels: Vec::new() }
    }

    /// Encodes an image for `geometry`; with what the stages cost.
    ///
    /// # Errors
    /// [`Error::Usage`] for a geometry that the bundle does not have, [`Error::Encode`] for an image that is too large
    /// to be sent as it is.
    pub fn encode_image(
        &mut self,
        image: &RgbImage,
        geometry: GeometryId,
    ) -> Result<(Image, Timings), Error> {
        let Some(target) = self.geometries.get(geometry.index()) else {
            return Err(Error::usage("--geometry", format!("the bundle has no geometry {geometry}")));
        };
        let started = Instant::now();
        let (pixels, width, height) = match self.framing {
            Framing::Original => {
                let (width, height) = (image.width() as usize, image.height() as usize);
                if width * height > MAX_IMAGE_PIXELS {
                    let reason = format!(
                        "{width}×{height} pixels, a server takes at most {MAX_IMAGE_PIXELS}; send it fitted"
                    );
                    return Err(Error::Encode(reason));
                }
                (image.as_raw(), width, height)
            }
            _ => {
                self.fitter.fit(image, target, &mut self.pixels);
                (&self.pixels, target.width, target.height)
            }
        };
        let fitted = Instant::now();
        let file = self.encoding.encode(pixels, width, height)?;
        let timings = Timings {
            decode: Duration::ZERO,
            resize: fitted - started,
            head: Duration::ZERO,
            encode: fitted.elapsed(),
        };
        let image =
            Image { geometry: geometry.0, format: self.encoding.format.wire(), framing: self.framing, file };
        Ok((image, timings))
    }
}
