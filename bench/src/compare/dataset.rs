//! The photos and frames that every variant answers, as files in a temporary folder, with their labels.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use image::GrayImage;
use narrows_eval::data;
use narrows_head::source;
use narrows_models::{Bundle, TaskKind};

use super::plan::{Scope, WARM_UP};

/// The label of a photo or frame.
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
    /// Its label, where there is one.
    pub label: Option<Label>,
}

/// Photos or frames for one task.
#[derive(Debug)]
pub struct Dataset {
    /// Index of the task in the bundle.
    pub task: usize,
    /// Its name.
    pub name: String,
    /// The kind of its answers.
    pub kind: TaskKind,
    /// The folder of all items.
    pub folder: PathBuf,
    /// In name order.
    pub items: Vec<Item>,
    /// Source and number of the items, for the report.
    pub about: String,
}

impl Dataset {
    /// Whether every item is labelled.
    #[must_use]
    pub fn labelled(&self) -> bool {
        self.items.iter().all(|item| item.label.is_some())
    }

    /// A folder with `count` photos to measure, and [`WARM_UP`] others that sort before them; made once.
    ///
    /// `order` has the indices of the items from small to large. Photos are picked evenly from it, so that a few stand for
    /// all sizes, and are repeated where there are too few.
    ///
    /// # Errors
    /// When the set is empty or a file cannot be copied.
    pub fn photos_of_run(&self, within: &Path, count: usize, order: &[usize]) -> Result<PathBuf> {
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

/// At most `count` indices below `all`, evenly spaced from 0 on.
#[must_use]
pub fn spread(all: usize, count: usize) -> Vec<usize> {
    let count = count.min(all);
    (0..count).map(|place| place * all / count).collect()
}

/// The photos or frames of a task, in a folder within `within`: labelled ones of `data`, or those of `source`.
///
/// # Errors
/// When files cannot be read or copied, or there are none.
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

/// At most `count` labelled photos of a tar and its table of labels; `None` where labels are not classes of the task.
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

/// At most `count` labelled frames of a tar.
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

/// The photos of a file, a folder or a glob, without labels; `missing` says why there are none with labels.
fn unlabelled(bundle: &Bundle, task: usize, photos: &Path, missing: &str, within: &Path) -> Result<Dataset> {
    let mut set = empty(bundle, task, within)?;
    let files = source::list(photos)?;
    for (index, from) in files.iter().enumerate() {
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        let file = set.folder.join(format!("{index:05}-{name}"));
        fs::copy(from, &file).with_context(|| file.display().to_string())?;
        set.items.push(Item { file, label: None });
    }
    set.about = format!(
        "{}: {} photos of {}, without labels{missing}: answers are compared with the unsplit network's",
        set.name,
        set.items.len(),
        named(photos)
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

/// A path for the report, which leaves out the folders of absolute paths: they are private.
fn named(path: &Path) -> String {
    if path.is_relative() {
        return path.display().to_string();
    }
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
    fn a_run_warms_up_first_and_repeats_a_small_set() {
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
        let folder = set.photos_of_run(within.path(), 3, &[0, 1]).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["000-b.jpg", "001-a.jpg", "002-a.jpg", "003-b.jpg", "004-a.jpg"]);
    }
}
