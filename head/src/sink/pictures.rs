//! Pictures of answers in a folder: an overlay for each frame that is drawn, and a mask where there is a class map.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use narrows_models::{Bundle, Geometry};

use super::{
    gallery::{Draft as ViewDraft, DraftMap},
    line::FinishedLine,
    overlay::{self, Map},
};
use crate::{
    Error, artifact,
    draft::Draft,
    frame::{Answer, Finished, Frame, FramePath, Origin, Outcome},
    name::Escaped,
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
        let place = format!("into --out {}", Escaped(dir));
        fs::create_dir_all(dir).map_err(|source| Error::Output { place, source })?;
        Ok(PictureFolder(dir.to_owned()))
    }

    /// Draws an answered frame, if its plan says so, and puts the paths of the pictures into its line.
    ///
    /// # Errors
    /// [`Error::Output`] for a picture that cannot be written; none of the frame's are then.
    pub(super) fn write(
        &self,
        frame: &Frame<Finished>,
        finished: &mut FinishedLine,
        bundle: &Bundle,
    ) -> Result<(), Error> {
        let FinishedLine { line, map } = finished;
        let (Some(photo), Some(name)) = (&frame.stage.picture, &frame.picture_name) else { return Ok(()) };
        if !frame.plan.draw || line.status != Status::Answered {
            return Ok(());
        }
        let Some(geometry) = input_geometry(frame, bundle) else { return Ok(()) };
        let title = title(&frame.origin);
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
        let picture = overlay::draw(&*photo.image()?, geometry, &title, scores, map);
        let pictures = [Some(overlay::png(&picture)), map.map(overlay::mask)];
        let [overlay, mask] = self.save(name, pictures)?;
        match &mut line.segment {
            Some(segment) => (segment.overlay, segment.mask) = (overlay, mask),
            None => line.overlay = overlay,
        }
        Ok(())
    }

    /// Writes the pictures of a frame, all or none of them, and removes those that an earlier run left for it.
    fn save(
        &self,
        name: &str,
        pictures: [Option<io::Result<Vec<u8>>>; 2],
    ) -> Result<[Option<PathBuf>; 2], Error> {
        let mut paths = [None, None];
        let (mut drafts, mut old) = (Vec::new(), Vec::new());
        for ((kind, picture), path) in artifact::KINDS.iter().zip(pictures).zip(&mut paths) {
            let target = self.0.join(format!("{name}.{kind}.png"));
            let Some(bytes) = picture else {
                old.push(target);
                continue;
            };
            let failed = |source| Error::Output { place: Escaped(&target).to_string(), source };
            drafts.push(bytes.and_then(|bytes| Draft::write(&target, &bytes)).map_err(failed)?);
            *path = Some(target);
        }
        for picture in old.iter().filter(|path| artifact::is_own(path)) {
            let place = format!("over the older {}", Escaped(picture));
            fs::remove_file(picture).map_err(|source| Error::Output { place, source })?;
        }
        for draft in drafts {
            let place = Escaped(&draft.target).to_string();
            draft.publish().map_err(|source| Error::Output { place, source })?;
        }
        Ok(paths)
    }
}

/// What a picture is headed with: the name of its file, or of its camera.
fn title(origin: &Origin) -> String {
    match origin {
        Origin::File { file, .. } => Escaped(file.file_name().unwrap_or_default().as_ref()).to_string(),
        Origin::Camera { name, .. } => name.to_string(),
    }
}

/// What is needed to draw a frame for those who view its camera; takes its picture. `None` where it kept none.
pub(super) fn draft(
    frame: &mut Frame<Finished>,
    finished: &FinishedLine,
    camera: &str,
    bundle: &Bundle,
) -> Option<ViewDraft> {
    let geometry = input_geometry(frame, bundle)?.clone();
    let photo = frame.stage.picture.take()?;
    let FinishedLine { line, map } = finished;
    let answered = line.status == Status::Answered;
    let map =
        line.segment.as_ref().zip(map.as_ref()).filter(|_| answered).map(|(segment, (task, pixels))| {
            let labels = &bundle.tasks()[*task].labels;
            DraftMap {
                width: segment.width.into(),
                height: segment.height.into(),
                pixels: pixels.clone(),
                colours: Box::new(overlay::palette(labels.iter().map(|label| label.colour))),
                shares: segment.classes.clone(),
            }
        });
    let title = match &line.error {
        Some(error) if !answered => format!("{camera}: {error}"),
        _ => camera.to_owned(),
    };
    let scores = line.classify.clone().unwrap_or_default();
    Some(ViewDraft { number: line.frame + 1, photo, geometry, title, scores, map })
}

/// The geometry of the network that answered.
fn input_geometry<'a>(frame: &Frame<Finished>, bundle: &'a Bundle) -> Option<&'a Geometry> {
    let is_local = match &frame.stage.outcome {
        Outcome::Local { .. } => true,
        Outcome::Kept { answer, .. } => matches!(**answer, Answer::Device(_)),
        _ => false,
    };
    match frame.plan.path {
        _ if is_local => bundle.local().map(|local| &local.geometry),
        FramePath::Local => bundle.local().map(|local| &local.geometry),
        FramePath::Split { geometry, .. } | FramePath::Image { geometry, .. } => {
            bundle.geometries().get(geometry.index())
        }
    }
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    fn picture() -> Option<io::Result<Vec<u8>>> {
        Some(overlay::png(&RgbImage::new(20, 20)))
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn pictures_are_marked_and_replace_those_of_an_earlier_run() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PictureFolder::create(dir.path()).unwrap();
        folder.save("cat", [picture(), picture()]).unwrap();
        assert_eq!(names(dir.path()), ["cat.mask.png", "cat.overlay.png"]);
        assert!(artifact::is_own(&dir.path().join("cat.mask.png")));
        let [overlay, mask] = folder.save("cat", [picture(), None]).unwrap();
        assert_eq!((overlay, mask), (Some(dir.path().join("cat.overlay.png")), None));
        assert_eq!(names(dir.path()), ["cat.overlay.png"]);
        // Somebody else's mask stays.
        let mut own = Vec::new();
        RgbImage::new(4, 4).write_to(&mut io::Cursor::new(&mut own), image::ImageFormat::Png).unwrap();
        fs::write(dir.path().join("dog.mask.png"), own).unwrap();
        folder.save("dog", [picture(), None]).unwrap();
        assert_eq!(names(dir.path()), ["cat.overlay.png", "dog.mask.png", "dog.overlay.png"]);
        assert!(!artifact::is_own(&dir.path().join("dog.mask.png")));
    }

    #[test]
    fn a_frame_whose_pictures_cannot_all_be_written_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PictureFolder::create(dir.path()).unwrap();
        let error =
            folder.save("cat", [picture(), Some(Err(io::ErrorKind::StorageFull.into()))]).unwrap_err();
        assert!(error.to_string().contains("cat.mask.png"), "{error}");
        assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
        fs::create_dir(dir.path().join("cat.overlay.png")).unwrap();
        assert!(folder.save("cat", [picture(), None]).is_err());
        assert_eq!(names(dir.path()), ["cat.overlay.png"]);
    }

    #[test]
    fn a_draft_that_a_killed_run_left_is_replaced_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PictureFolder::create(dir.path()).unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        std::os::unix::fs::symlink("precious", dir.path().join(".cat.overlay.png.part")).unwrap();
        folder.save("cat", [picture(), None]).unwrap();
        assert_eq!(names(dir.path()), ["cat.overlay.png", "precious"]);
        assert_eq!(fs::read(dir.path().join("precious")).unwrap(), b"x");
    }
}
