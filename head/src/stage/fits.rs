//! A picture at the input sizes of networks.

use image::RgbImage;
use narrows_models::Geometry;

use crate::image::Fitter;

/// Resizes the picture of a frame once for networks whose inputs have one size.
#[derive(Debug, Default)]
pub(super) struct Fits {
    fitter: Fitter,
    /// The last geometry of this picture.
    geometry: Option<Geometry>,
    pixels: Vec<u8>,
}

impl Fits {
    /// Forgets the picture.
    pub(super) fn begin(&mut self) {
        self.geometry = None;
    }

    /// The input of a network: rows of RGB pixels of the geometry's size.
    pub(super) fn fit(&mut self, image: &RgbImage, geometry: &Geometry) -> &[u8] {
        let is_same = |other: &Geometry| {
            (other.width, other.height, other.fit, other.filter)
                == (geometry.width, geometry.height, geometry.fit, geometry.filter)
        };
        if !self.geometry.as_ref().is_some_and(is_same) {
            self.fitter.fit(image, geometry, &mut self.pixels);
            self.geometry = Some(geometry.clone());
        }
        &self.pixels
    }
}

#[cfg(test)]
mod tests {
    use narrows_models::{Bundle, Parts};

    use super::*;

    #[test]
    fn a_picture_is_resized_once_for_one_size_and_anew_for_another_one_and_another_picture() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/lite2");
        let bundle = Bundle::open(folder, Parts::Head).unwrap();
        let (photo, frame) = (&bundle.geometries()[0], &bundle.geometries()[1]);
        let grey = |value| RgbImage::from_pixel(300, 300, image::Rgb([value; 3]));
        let mut fits = Fits::default();
        assert_eq!(fits.fit(&grey(9), photo).len(), 224 * 224 * 3);
        // The other picture is not looked at.
        assert_eq!(fits.fit(&grey(8), &bundle.local().unwrap().geometry)[0], 9);
        assert_eq!(fits.fit(&grey(9), frame).len(), 480 * 360 * 3);
        assert_eq!(fits.fit(&grey(8), photo)[0], 8);
        fits.begin();
        assert_eq!(fits.fit(&grey(7), photo)[0], 7);
    }
}
