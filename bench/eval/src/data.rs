//! Labelled photos and frames, read from tar files.

use std::{collections::HashMap, fs::File, io::Read, path::Path};

use anyhow::{Context, Result, bail, ensure};
use image::{GrayImage, RgbImage};

/// Largest file that is read from a tar, in bytes.
const FILE_MAX: u64 = 64 << 20;

/// Reads the files of a tar; returns name and bytes of each, by name.
///
/// # Errors
/// When the tar cannot be read, holds no file, or holds a file of more than 64 MiB.
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
    /// The encoded file.
    pub bytes: Vec<u8>,
    /// Class index.
    pub class: usize,
}

/// Reads the photos of `tar` that `labels`, a CSV with columns `file` and `class`, has a row for.
///
/// # Errors
/// When a file cannot be read, the table has no row, or a row names a photo that the tar does not hold.
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

/// Frames of a tar, decoded one by one.
pub type Scenes = Box<dyn ExactSizeIterator<Item = Result<Scene>>>;

/// Reads the frames `ID.jpg` of `tar` with their class maps `ID.png`.
///
/// # Errors
/// When the tar cannot be read or holds no frame. The iterator returns an error for a frame without a class map of its
/// size, or one that cannot be decoded.
pub fn scenes(tar: &Path) -> Result<Scenes> {
    let (maps, frames): (Vec<_>, Vec<_>) =
        files(tar)?.into_iter().partition(|(name, _)| name.ends_with(".png"));
    let maps: HashMap<_, _> = maps.into_iter().collect();
    let frames: Vec<_> = frames.into_iter().filter(|(name, _)| name.ends_with(".jpg")).collect();
    ensure!(!frames.is_empty(), "{}: holds no frames", tar.display());
    let tar = tar.to_owned();
    Ok(Box::new(frames.into_iter().map(move |(name, bytes)| {
        let at = || format!("{}: {name}", tar.display());
        let map = maps.get(&name.replace(".jpg", ".png"));
        let map = map.with_context(|| format!("{}: has no class map", at()))?;
        let image = image::load_from_memory(&bytes).with_context(at)?.into_rgb8();
        let classes = image::load_from_memory(map).with_context(at)?.into_luma8();
        ensure!(image.dimensions() == classes.dimensions(), "{}: frame and class map differ in size", at());
        Ok(Scene { name, image, classes })
    })))
}
