//! Pictures of answers in a folder: an overlay for each frame that is drawn, and a mask where there is a class map.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use image::{RgbImage, codecs::png::PngEncoder};
use narrows_models::{Bundle, Geometry};

use super::{
    line::FinishedLine,
    overlay::{self, Map},
};
use crate::{
    Error,
    frame::{Finished, Frame, FramePath, Outcome},
    report::Status,
};

/// A folder for pictures.
#[derive(Debug)]
pub(crate) struct PictureFolder(PathBuf);

impl PictureFolder {
    /// Creates the folder unless it exists.
    ///
    /// # Errors
    /// [`Error::Output`] if it cannot be created.
    pub(crate) fn create(dir: &Path) -> Result<Self, Error> {
        let place = format!("into --out {}", dir.display());
        fs::create_dir_all(dir).map_err(|source| Error::Output { place, source })?;
        Ok(PictureFolder(dir.to_owned()))
    }

    /// Draws an answered frame, if its plan says so, and puts the paths of the pictures into its line.
    ///
    /// # Errors
    /// [`Error::Output`] for a picture that cannot be written.
    pub(super) fn write(
        &self,
        frame: &Frame<Finished>,
        finished: &mut FinishedLine,
        bundle: &Bundle,
    ) -> Result<(), Error> {
        let FinishedLine { line, map } = finished;
        let (Some(photo), Some(name)) = (&frame.stage.pixels, &frame.picture_name) else { return Ok(()) };
        if !frame.plan.draw || line.status != Status::Answered {
            return Ok(());
        }
        let Some(geometry) = input_geometry(frame, bundle) else { return Ok(()) };
        let title = frame.file.file_name().unwrap_or_default().to_string_lossy();
        let scores = line.classify.as_deref().unwrap_or_default();
        let palette = map
            .as_ref()
            .map(|(task, _)| overlay::palette(bundle.tasks()[*task].labels.iter().map(|label| label.colour)));
        let map = line.segment.as_ref().zip(map.as_ref()).zip(palette.as_ref());
        let map = map.map(|((segment, (_, pixels)), colours)| Map {
            width: segment.width.into(),
            height: segment.height.into(),
            pixels,
            colours,
            shares: &segment.classes,
        });
        let picture = overlay::draw(photo, geometry, &title, scores, map);
        let overlay = self.save(name, "overlay", png(&picture))?;
        let mask = map.map(|map| self.save(name, "mask", overlay::mask(map))).transpose()?;
        match &mut line.segment {
            Some(segment) => (segment.overlay, segment.mask) = (Some(overlay), mask),
            None => line.overlay = Some(overlay),
        }
        Ok(())
    }

    fn save(&self, name: &str, kind: &str, bytes: io::Result<Vec<u8>>) -> Result<PathBuf, Error> {
        let path = self.0.join(format!("{name}.{kind}.png"));
        match bytes.and_then(|bytes| fs::write(&path, bytes)) {
            Ok(()) => Ok(path),
            Err(source) => Err(Error::Output { place: path.display().to_string(), source }),
        }
    }
}

/// The geometry of the network that answered.
fn input_geometry<'a>(frame: &Frame<Finished>, bundle: &'a Bundle) -> Option<&'a Geometry> {
    match (&frame.stage.outcome, frame.plan.path) {
        (Outcome::Local { .. }, _) | (_, FramePath::Local) => bundle.local().map(|local| &local.geometry),
        (_, FramePath::Split { geometry, .. } | FramePath::Image { geometry, .. }) => {
            bundle.geometries().get(geometry.index())
        }
    }
}

fn png(picture: &RgbImage) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    picture.write_with_encoder(PngEncoder::new(&mut bytes)).map_err(io::Error::other)?;
    Ok(bytes)
}
