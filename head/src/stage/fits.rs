//! A picture at the input sizes of networks.

use narrows_models::Geometry;

use crate::{
    Error,
    picture::{Inputs, Picture},
};

/// Resizes the picture of a frame once for networks whose inputs have one size.
#[derive(Debug, Default)]
pub(super) struct Fits {
    inputs: Inputs,
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
    ///
    /// # Errors
    /// Those of a picture that cannot be decoded.
    pub(super) fn fit(&mut self, picture: &Picture, geometry: &Geometry) -> Result<&[u8], Error> {
        let is_same = |other: &Geometry| {
            (other.width, other.height, other.fit, other.filter)
                == (geometry.width, geometry.height, geometry.fit, geometry.filter)
        };
        if !self.geometry.as_ref().is_some_and(is_same) {
            // Until it is whole, the input is of no picture.
            self.geometry = None;
            self.inputs.fit(picture, geometry, &mut self.pixels)?;
            self.geometry = Some(geometry.clone());
        }
        Ok(&self.pixels)
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
        let grey = |value| Picture::Image(image::RgbImage::from_pixel(300, 300, image::Rgb([value; 3])));
        let mut fits = Fits::default();
        assert_eq!(fits.fit(&grey(9), photo).unwrap().len(), 224 * 224 * 3);
        // The other picture is not looked at.
        assert_eq!(fits.fit(&grey(8), &bundle.local().unwrap().geometry).unwrap()[0], 9);
        assert_eq!(fits.fit(&grey(9), frame).unwrap().len(), 480 * 360 * 3);
        assert_eq!(fits.fit(&grey(8), photo).unwrap()[0], 8);
        fits.begin();
        assert_eq!(fits.fit(&grey(7), photo).unwrap()[0], 7);
    }
}
