//! The photos and frames that are compared on, as files of their own, and what is in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use image::GrayImage;
use narrows_eval::data;
use narrows_models::{Bundle, TaskKind};

use super::plan::{Scope, WARM_UP};

/// What a photo or frame is labelled with.
#[derive(Debug, Clone)]
pub enum Label {
    /// The class.
    Class(usize),
    /// The class of every pixel.
    Map(GrayImage),
}

/// One photo or frame.
#[derive(Debug, Clone)]
pub struct Item {
    /// The file.
    pub file: PathBuf,
    /// Its label, if it has one.
    pub label: Option<Label>,
}

/// Photos or frames for one task.
#[derive(Debug)]
pub struct Dataset {
    /// Index of the task in the bundle.
    pub task: usize,
    /// Its name.
    pub name: String,
    /// What it answers.
    pub kind: TaskKind,
    /// The folder of all items.
    pub folder: PathBuf,
    /// In name order.
    pub items: Vec<Item>,
    /// Where they come from, for the report.
    pub about: String,
}

impl Dataset {
    /// Whether every item is labelled.
    pub fn labelled(&self) -> bool {
        self.items.iter().all(|item| item.label.is_some())
    }

    /// A folder of its own for `count` photos to measure and [`WARM_UP`] in front of them; made once.
    ///
    /// Photos are taken evenly from `order`, places of items from small to large, so that a few stand for all; over
    /// again when there are too few.
    pub fn run(&self, within: &Path, count: usize, order: &[usize]) -> Result<PathBuf> {
        let folder = within.join(format!("run-{}-{count}", self.name));
        if folder.is_dir() {
            return Ok(folder);
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let few = count.min(order.len());
        let picked: Vec<usize> =
            (0..few).map(|place| order[(2 * place + 1) * order.len() / (2 * few)]).collect();
        ensure!(!picked.is_empty(), "no photos for {}", self.name);
        let warm_up = picked.iter().rev().cycle().take(WARM_UP).copied();
        let places = warm_up.chain(picked.iter().copied().cycle().take(count));
        for (place, index) in places.enumerate() {
            let from = &self.items[index].file;
            let name = from.file_name().unwrap_or_default().to_string_lossy();
            let to = folder.join(format!("{place:03}-{name}"));
            fs::copy(from, &to).with_context(|| to.display().to_string())?;
        }
        Ok(folder)
    }
}

/// At most `count` of `all` indices, evenly spaced from the first on.
pub fn spread(all: usize, count: usize) -> Vec<usize> {
    let count = count.min(all);
    (0..count).map(|place| place * all / count).collect()
}

/// The photos or frames of a task, in a folder within `within`: labelled ones of `data`, else those of `source`.
pub fn set(
    bundle: &Bundle,
    task: usize,
    data: Option<&Path>,
    source: &Path,
    scope: &Scope,
    within: &Path,
) -> Result<Dataset> {
    let spec = &bundle.tasks()[task];
    let missing = match (data, spec.kind) {
        (None, _) => String::new(),
        (Some(data), TaskKind::Classify) => {
            let (tar, labels) = (data.join("imagenet500.tar"), data.join("imagenet500.csv"));
            match tar.is_file() && labels.is_file() {
                true => match classes(bundle, task, &tar, &labels, scope.photos, within)? {
                    Some(set) => return Ok(set),
                    None => format!(" ({} has labels of other classes)", named(&labels)),
                },
                false => format!(" ({} is not there)", named(&tar)),
            }
        }
        (Some(data), TaskKind::Segment) => {
            let tar = data.join("camvid-val.tar");
            if tar.is_file() {
                return maps(bundle, task, &tar, scope.scenes, within);
            }
            format!(" ({} is not there)", named(&tar))
        }
    };
    unlabelled(bundle, task, source, &missing, within)
}

/// Labelled photos from a tar and a table, at most `count`, into a folder within `within`; `None` where they are labelled
/// with classes that the task does not have.
fn classes(
    bundle: &Bundle,
    task: usize,
    tar: &Path,
    labels: &Path,
    count: usize,
    within: &Path,
) -> Result<Option<Dataset>> {
    let photos = data::labelled(tar, labels)?;
    if photos.iter().any(|photo| photo.class >= bundle.tasks()[task].labels.len()) {
        return Ok(None);
    }
    let mut set = empty(bundle, task, within)?;
    let picked = spread(photos.len(), count);
    for index in &picked {
        let photo = &photos[*index];
        let name = Path::new(&photo.name).file_name().context("a photo without a name")?;
        let file = set.folder.join(format!("{index:05}-{}", name.to_string_lossy()));
        fs::write(&file, &photo.bytes).with_context(|| file.display().to_string())?;
        set.items.push(Item { file, label: Some(Label::Class(photo.class)) });
    }
    set.about =
        format!("{}: {} of {} labelled photos of {}", set.name, picked.len(), photos.len(), named(tar));
    Ok(Some(set))
}

/// Labelled frames from a tar, at most `count`, into a folder within `within`.
fn maps(bundle: &Bundle, task: usize, tar: &Path, count: usize, within: &Path) -> Result<Dataset> {
    let files = data::files(tar)?;
    let frames: Vec<&(String, Vec<u8>)> = files.iter().filter(|(name, _)| name.ends_with(".jpg")).collect();
    let mut set = empty(bundle, task, within)?;
    let picked = spread(frames.len(), count);
    for index in &picked {
        let (name, bytes) = frames[*index];
        let stem = name.trim_end_matches(".jpg");
        let map = files.iter().find(|(other, _)| other.strip_suffix(".png") == Some(stem));
        let (_, map) = map.with_context(|| format!("{}: {name} has no class map", tar.display()))?;
        let map = image::load_from_memory(map).with_context(|| format!("{}: {stem}.png", tar.display()))?;
        let name = Path::new(name).file_name().context("a frame without a name")?.to_string_lossy();
        let file = set.folder.join(format!("{index:05}-{name}"));
        fs::write(&file, bytes).with_context(|| file.display().to_string())?;
        set.items.push(Item { file, label: Some(Label::Map(map.into_luma8())) });
    }
    ensure!(!set.items.is_empty(), "{}: holds no frames", tar.display());
    set.about =
        format!("{}: {} of {} labelled frames of {}", set.name, picked.len(), frames.len(), named(tar));
    Ok(set)
}

/// Photos without labels from a folder; `missing` says why there are none with labels.
fn unlabelled(bundle: &Bundle, task: usize, source: &Path, missing: &str, within: &Path) -> Result<Dataset> {
    let mut set = empty(bundle, task, within)?;
    let list = || format!("{}: cannot be listed", source.display());
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(source).with_context(list)? {
        let path = entry.with_context(list)?.path();
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        if ending.is_some_and(|ending| ["jpg", "jpeg", "png", "webp", "bmp"].contains(&ending.as_str())) {
            files.push(path);
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "{}: holds no photos", source.display());
    for from in files {
        let file = set.folder.join(from.file_name().unwrap_or_default());
        fs::copy(&from, &file).with_context(|| file.display().to_string())?;
        set.items.push(Item { file, label: None });
    }
    set.about = format!(
        "{}: {} photos of {}, without labels{missing}: what counts is agreement with the unsplit network",
        set.name,
        set.items.len(),
        named(source)
    );
    Ok(set)
}

fn empty(bundle: &Bundle, task: usize, within: &Path) -> Result<Dataset> {
    let spec = &bundle.tasks()[task];
    let folder = within.join(format!("all-{}", spec.name));
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let (name, kind) = (spec.name.clone(), spec.kind);
    Ok(Dataset { task, name, kind, folder, items: Vec::new(), about: String::new() })
}

/// The last part of a path: reports do not tell where on a machine things lie.
fn named(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_even_and_start_at_the_first() {
        assert_eq!(spread(500, 5), [0, 100, 200, 300, 400]);
        assert_eq!(spread(3, 10), [0, 1, 2]);
        assert!(spread(0, 10).is_empty());
    }

    #[test]
    fn a_run_warms_up_with_more_photos_and_repeats_a_small_set() {
        let within = tempfile::tempdir().unwrap();
        let item = |name: &str| {
            let file = within.path().join(name);
            fs::write(&file, name).unwrap();
            Item { file, label: None }
        };
        let set = Dataset {
            task: 0,
            name: "classify".into(),
            kind: TaskKind::Classify,
            folder: within.path().into(),
            items: vec![item("a.jpg"), item("b.jpg")],
            about: String::new(),
        };
        let folder = set.run(within.path(), 3, &[0, 1]).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["000-b.jpg", "001-a.jpg", "002-a.jpg", "003-b.jpg", "004-a.jpg"]);
    }
}
