//! Image files to a whole network's input: a bounded number at a time, away from the threads of the connections.
#![expect(clippy::disallowed_methods, reason = "the shell of a stage reads the clock")]

use std::{
    error::Error as _,
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_models::{
    Geometry,
    image::{self, ImageFault},
};
use narrows_wire::{Framing, Image, ImageFormat, limits::MAX_IMAGE_PIXELS};
use tokio::{sync::Semaphore, time::timeout_at};

use crate::input::RgbImage;

/// Room for a number of images to be decoded at once.
pub(crate) struct Decoders(Arc<Semaphore>);

/// Why an image did not become a network's input.
#[derive(Debug)]
pub(crate) enum DecodeFailure {
    /// Its budget was spent before there was room.
    Late,
    /// It is no image, or not the image it claims to be.
    Bad(String),
    /// The decoder failed.
    Failed,
}

impl Decoders {
    /// Room for `most` images.
    pub(crate) fn new(most: usize) -> Decoders {
        Decoders(Arc::new(Semaphore::new(most)))
    }

    /// Decodes and fits an image on a thread of its own, once there is room; with the time that this took.
    pub(crate) async fn decode(
        &self,
        image: Image,
        geometry: &Geometry,
        deadline: Option<Instant>,
    ) -> Result<(RgbImage, Duration), DecodeFailure> {
        let room = Arc::clone(&self.0).acquire_owned();
        let room = match deadline {
            Some(deadline) => timeout_at(deadline.into(), room).await.map_err(|_| DecodeFailure::Late)?,
            None => room.await,
        };
        let geometry = geometry.clone();
        let decoded = tokio::task::spawn_blocking(move || {
            // Kept until the end, whether or not the frame is still wanted: it stands for the memory.
            let _room = room;
            let began = Instant::now();
            let rows = pixels(&image, &geometry).map_err(DecodeFailure::Bad)?;
            let pixels = RgbImage { rows: Arc::new(rows), height: geometry.height, width: geometry.width };
            Ok((pixels, began.elapsed()))
        });
        decoded.await.unwrap_or(Err(DecodeFailure::Failed))
    }
}

/// The input that `image` is for `geometry`: u8 RGB, row by row.
fn pixels(image: &Image, geometry: &Geometry) -> Result<Vec<u8>, String> {
    let format = match image.format {
        ImageFormat::Jpeg => image::ImageFormat::Jpeg,
        ImageFormat::WebP => image::ImageFormat::WebP,
        other => return Err(other.to_string()),
    };
    let decoded = image::decode_as(&image.file, format, MAX_IMAGE_PIXELS as u64).map_err(with_source)?;
    let (width, height) = decoded.dimensions();
    match image.framing {
        Framing::Original => Ok(image::fit(&decoded, geometry)),
        Framing::Fitted if (width as usize, height as usize) == (geometry.width, geometry.height) => {
            Ok(decoded.into_raw())
        }
        Framing::Fitted => Err(format!(
            "a fitted image of {width}×{height} pixels, geometry {} has {}×{}",
            geometry.name, geometry.width, geometry.height
        )),
        other => Err(other.to_string()),
    }
}

/// The fault with what the decoder said.
fn with_source(fault: ImageFault) -> String {
    match fault.source() {
        Some(source) => format!("{fault}: {}", source.to_string().trim_end()),
        None => fault.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use narrows_models::{Bundle, Parts};

    use super::*;

    /// 4 × 2 pixels as a JPEG.
    fn grey() -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let grey = image::RgbImage::from_vec(4, 2, vec![99; 24]).unwrap();
        grey.write_to(&mut file, image::ImageFormat::Jpeg).unwrap();
        file.into_inner()
    }

    fn geometry() -> Geometry {
        let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/lite2");
        Bundle::open(bundle, Parts::Head).unwrap().geometries()[0].clone()
    }

    fn image(format: ImageFormat, framing: Framing) -> Image {
        Image { geometry: 0, format, framing, file: grey() }
    }

    #[test]
    fn an_original_image_is_fitted_and_a_fitted_one_must_have_the_size() {
        let geometry = geometry();
        let rows = pixels(&image(ImageFormat::Jpeg, Framing::Original), &geometry).unwrap();
        assert_eq!(rows.len(), 3 * geometry.width * geometry.height);
        assert!(rows.iter().all(|value| rows[0].abs_diff(*value) <= 1));
        let error = pixels(&image(ImageFormat::Jpeg, Framing::Fitted), &geometry).unwrap_err();
        assert!(error.contains("4×2") && error.contains("224×224"), "{error}");
    }

    #[test]
    fn a_file_of_another_format_is_refused() {
        let error = pixels(&image(ImageFormat::WebP, Framing::Original), &geometry()).unwrap_err();
        assert!(error.contains("cannot be decoded"), "{error}");
    }

    #[tokio::test]
    async fn an_image_without_room_waits_until_its_deadline_and_no_longer() {
        let decoders = Decoders::new(1);
        let held = decoders.0.clone().acquire_owned().await.unwrap();
        let soon = Some(Instant::now() + Duration::from_millis(20));
        let image = || image(ImageFormat::Jpeg, Framing::Original);
        assert!(matches!(decoders.decode(image(), &geometry(), soon).await, Err(DecodeFailure::Late)));
        drop(held);
        assert!(decoders.decode(image(), &geometry(), None).await.is_ok());
    }
}
