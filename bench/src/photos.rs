//! Evaluation data as it comes: tars of photos, a table of labels.

use std::{collections::HashMap, fs::File, io::Read, path::Path};

use anyhow::{Context, Result, bail, ensure};
use image::{GrayImage, RgbImage};

/// Largest file taken out of a tar, in bytes.
const FILE_MAX: u64 = 64 << 20;

/// The files of a tar in name order, whole.
pub fn files(tar: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let open = || format!("{}: cannot be read as a tar", tar.display());
    let mut archive = tar::Archive::new(File::open(tar).with_context(open)?);
    let mut files = Vec::new();
    for entry in archive.entries().with_context(open)? {
        let mut entry = entry.with_context(open)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().with_context(open)?.to_string_lossy().into_owned();
        ensure!(entry.size() <= FILE_MAX, "{}: {name} has {} bytes", tar.display(), entry.size());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).with_context(|| format!("{}: {name}", tar.display()))?;
        files.push((name, bytes));
    }
    files.sort();
    ensure!(!files.is_empty(), "{}: holds no files", tar.display());
    Ok(files)
}

/// A labelled photo.
pub struct Photo {
    /// File name inside the tar.
    pub name: String,
    /// The file, still encoded.
    pub bytes: Vec<u8>,
    /// Class index.
    pub class: usize,
}

/// Photos of `tar` that `labels`, a CSV with columns `file` and `class`, has a row for.
pub fn labelled(tar: &Path, labels: &Path) -> Result<Vec<Photo>> {
    #[derive(serde::Deserialize)]
    struct Row {
        file: String,
        class: usize,
    }
    let mut reader =
        csv::Reader::from_path(labels).with_context(|| format!("{}: cannot be read", labels.display()))?;
    let mut files: HashMap<_, _> = files(tar)?.into_iter().collect();
    let mut photos = Vec::new();
    for row in reader.deserialize() {
        let Row { file, class } =
            row.with_context(|| format!("{}: not a table of labels", labels.display()))?;
        let Some(bytes) = files.remove(&file) else {
            bail!("{}: holds no {file}, which {} lists", tar.display(), labels.display());
        };
        photos.push(Photo { name: file, bytes, class });
    }
    ensure!(!photos.is_empty(), "{}: lists no photos", labels.display());
    Ok(photos)
}

/// A frame with the class of every pixel.
pub struct Scene {
    /// File name inside the tar.
    pub name: String,
    /// The frame.
    pub image: RgbImage,
    /// Class index of each pixel, of the frame's size.
    pub classes: GrayImage,
}

/// Frames `ID.jpg` of `tar` with their `ID.png`.
pub fn scenes(tar: &Path) -> Result<impl ExactSizeIterator<Item = Result<Scene>>> {
    let files = files(tar)?;
    let masks: HashMap<_, _> = files
        .iter()
        .filter_map(|(name, bytes)| Some((name.strip_suffix(".png")?.to_owned(), bytes.clone())))
        .collect();
    let frames: Vec<_> = files.into_iter().filter(|(name, _)| name.ends_with(".jpg")).collect();
    ensure!(!frames.is_empty(), "{}: holds no frames", tar.display());
    let tar = tar.to_owned();
    Ok(frames.into_iter().map(move |(name, bytes)| {
        let at = || format!("{}: {name}", tar.display());
        let mask = masks.get(name.trim_end_matches(".jpg"));
        let mask = mask.with_context(|| format!("{}: has no class map", at()))?;
        let image = image::load_from_memory(&bytes).with_context(at)?.into_rgb8();
        let classes = image::load_from_memory(mask).with_context(at)?.into_luma8();
        ensure!(image.dimensions() == classes.dimensions(), "{}: frame and class map differ in size", at());
        Ok(Scene { name: name.clone(), image, classes })
    }))
}
