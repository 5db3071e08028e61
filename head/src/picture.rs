//! The picture of a frame: an image, or what a camera delivered, of which networks' inputs are made without an image in between.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use image::RgbImage;
use narrows_models::Geometry;
use narrows_pixels::{Converter, JpegDecoder, Planes};
use narrows_video::{Raw, StreamFault};

use crate::{
    Error,
    error::caught,
    image::{Fitter, decode},
};

/// The upright picture of a frame.
#[derive(Debug)]
pub(crate) enum Picture {
    /// An image.
    Image(RgbImage),
    /// What a camera delivered.
    Camera {
        /// Its name, for errors.
        camera: Arc<str>,
        delivered: Delivered,
        /// What the run's networks see of it, until they have run.
        planes: Option<Lent>,
    },
}

/// What a camera delivered.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// An image file.
    File(Vec<u8>),
    /// A frame that is not compressed.
    Raw(Raw),
}

impl Picture {
    /// The picture as an image. What a camera delivered is decoded whole for it.
    ///
    /// # Errors
    /// [`Error::Camera`] and [`Error::Convert`] where it holds none.
    pub(crate) fn image(&self) -> Result<Cow<'_, RgbImage>, Error> {
        match self {
            Picture::Image(image) => Ok(Cow::Borrowed(image)),
            Picture::Camera { camera, delivered, .. } => {
                let camera = || camera.to_string();
                let image = match delivered {
                    Delivered::File(file) => {
                        decode(file).map_err(|source| Error::Camera { camera: camera(), source })
                    }
                    Delivered::Raw(raw) => caught("a frame cannot be converted", || rgb(raw))?
                        .map_err(|source| Error::Convert { camera: camera(), source }),
                };
                image.map(Cow::Owned)
            }
        }
    }

    /// The same picture after the networks of its run have seen it: it takes less memory.
    pub(crate) fn seen(self) -> Self {
        match self {
            Picture::Camera { camera, delivered, .. } => Picture::Camera { camera, delivered, planes: None },
            image => image,
        }
    }
}

/// A frame that is not compressed as an image.
pub(crate) fn rgb(raw: &Raw) -> Result<RgbImage, StreamFault> {
    let layout = raw.format().layout;
    let image = RgbImage::from_raw(layout.width(), layout.height(), raw.to_rgb()?);
    Ok(image.expect("the conversion gives three bytes for each pixel"))
}

/// Makes networks' inputs of pictures, with buffers that are kept from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    fitter: Fitter,
    converter: Converter,
    decoder: JpegDecoder,
    planes: Planes,
}

impl Inputs {
    /// Fills `pixels` with the input that `geometry` describes: u8, rows of RGB pixels.
    ///
    /// # Errors
    /// Those of [`Picture::image`], where the picture was not decoded for this input.
    pub(crate) fn fit(
        &mut self,
        picture: &Picture,
        geometry: &Geometry,
        pixels: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if let Picture::Camera { delivered, planes, .. } = picture {
            let planes = planes.as_ref().and_then(|lent| lent.planes.as_deref());
            if let Some(planes) = planes.filter(|planes| planes.cover(geometry)) {
                self.converter.fit(planes, geometry, pixels);
                return Ok(());
            }
            if take(&mut self.decoder, delivered, std::slice::from_ref(geometry), &mut self.planes) {
                self.converter.fit(&self.planes, geometry, pixels);
                return Ok(());
            }
        }
        self.fit_image(&*picture.image()?, geometry, pixels);
        Ok(())
    }

    /// As [`Inputs::fit`], of an image.
    pub(crate) fn fit_image(&mut self, image: &RgbImage, geometry: &Geometry, pixels: &mut Vec<u8>) {
        self.fitter.fit(image, geometry, pixels);
    }
}

/// Fills planes with what `views` show of a frame; returns whether it could.
fn take(decoder: &mut JpegDecoder, delivered: &Delivered, views: &[Geometry], planes: &mut Planes) -> bool {
    match delivered {
        Delivered::Raw(raw) => {
            planes.set_raw(raw, views);
            true
        }
        Delivered::File(file) => match decoder.decode(file, views, planes) {
            Ok(()) => true,
            Err(why) => {
                tracing::trace!("a JPEG is decoded whole: {why}");
                false
            }
        },
    }
}

/// Takes what the networks of a run see of what a camera delivers.
#[derive(Debug)]
pub(crate) struct Taker {
    decoder: JpegDecoder,
    /// The inputs of the run's networks. None where images are needed anyway.
    views: Arc<[Geometry]>,
    pool: Pool,
}

impl Taker {
    /// For networks with these inputs; with none of them every frame becomes an image.
    pub(crate) fn new(views: Arc<[Geometry]>) -> Self {
        Taker { decoder: JpegDecoder::default(), views, pool: Pool::default() }
    }

    /// Takes what other inputs show from now on.
    pub(crate) fn set_views(&mut self, views: Arc<[Geometry]>) {
        self.views = views;
    }

    /// The picture of what a camera delivered.
    ///
    /// # Errors
    /// Those of [`Picture::image`].
    pub(crate) fn picture(&mut self, camera: &Arc<str>, delivered: Delivered) -> Result<Picture, Error> {
        let mut planes = (!self.views.is_empty()).then(|| self.pool.lend());
        if let Some(lent) = planes.as_mut().and_then(|lent| lent.planes.as_deref_mut()) {
            let taken = caught("a frame cannot be decoded", || {
                take(&mut self.decoder, &delivered, &self.views, lent)
            })?;
            if !taken {
                planes = None;
            }
        }
        let is_whole = planes.is_none();
        let picture = Picture::Camera { camera: Arc::clone(camera), delivered, planes };
        match is_whole {
            true => Ok(Picture::Image(picture.image()?.into_owned())),
            false => Ok(picture),
        }
    }
}

/// Planes that are used again: as many as there are frames between being taken and being seen.
#[derive(Debug, Clone, Default)]
#[expect(clippy::vec_box, reason = "planes are lent and given back as they are")]
struct Pool(Arc<Mutex<Vec<Box<Planes>>>>);

/// Planes of a [`Pool`], which they go back to.
pub(crate) struct Lent {
    /// There until they go back.
    planes: Option<Box<Planes>>,
    pool: Pool,
}

impl Pool {
    fn lend(&self) -> Lent {
        // A vector of planes is whole whatever happened to them.
        let planes = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lent { planes: Some(planes.unwrap_or_default()), pool: self.clone() }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let planes = self.planes.take();
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).extend(planes);
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.planes.as_ref().map(|planes| (planes.width(), planes.height()));
        f.debug_tuple("Lent").field(&size).finish()
    }
}

#[cfg(test)]
mod tests {
    use narrows_models::{Filter, Fit};

    use super::*;

    const PHOTO: &[u8] = include_bytes!("../../bench/photos/road/street.jpg");

    fn view(side: usize) -> Geometry {
        Geometry::new("test", (side, side), Fit::Crop { short_side: side + 8 }, Filter::Bicubic)
    }

    #[test]
    fn a_camera_s_jpeg_is_seen_without_an_image_and_is_still_there_as_one() {
        let camera: Arc<str> = "yard".into();
        let mut taker = Taker::new([view(96)].into());
        let picture = taker.picture(&camera, Delivered::File(PHOTO.to_vec())).unwrap();
        assert!(matches!(&picture, Picture::Camera { planes: Some(_), .. }));
        let (mut inputs, mut found, mut wanted) = (Inputs::default(), Vec::new(), Vec::new());
        // The input that it was taken for, and another.
        for side in [96, 64] {
            inputs.fit(&picture, &view(side), &mut found).unwrap();
            inputs.fit_image(&picture.image().unwrap(), &view(side), &mut wanted);
            let distance: u32 = found.iter().zip(&wanted).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
            assert!(distance < 2 * found.len() as u32, "{distance}");
        }
        let before = found.clone();
        let picture = picture.seen();
        inputs.fit(&picture, &view(64), &mut found).unwrap();
        assert_eq!(found, before);
        assert_eq!(taker.pool.0.lock().unwrap().len(), 1, "planes go back");
    }

    #[test]
    fn what_is_no_jpeg_and_what_is_damaged_is_told_as_of_any_file() {
        let mut taker = Taker::new([view(96)].into());
        let camera: Arc<str> = "yard".into();
        let cut = Delivered::File(PHOTO[..PHOTO.len() / 2].to_vec());
        assert!(matches!(taker.picture(&camera, cut), Err(Error::Camera { .. })));
        let text = Delivered::File(b"no image".to_vec());
        assert!(matches!(taker.picture(&camera, text), Err(Error::Camera { .. })));
        // A run that needs images has them.
        let mut taker = Taker::new([].into());
        let picture = taker.picture(&camera, Delivered::File(PHOTO.to_vec())).unwrap();
        assert!(matches!(picture, Picture::Image(_)));
    }

    #[test]
    fn raw_frames_become_images() {
        let raw = Raw::new("i420:3x2,full".parse().unwrap(), vec![128; 10]).unwrap();
        let image = rgb(&raw).unwrap();
        assert_eq!(image.dimensions(), (3, 2));
        assert!(image.pixels().all(|pixel| pixel.0 == [128; 3]));
    }
}
