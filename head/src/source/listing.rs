//! Finding image files: a file, a folder or a glob pattern.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};
use walkdir::WalkDir;

use super::loss::CameraFault;
use crate::{artifact, name::Escaped};

/// File name extensions, in any case, that a folder or a pattern is searched for.
pub const EXTENSIONS: [&str; 11] =
    ["jpg", "jpeg", "jpe", "jfif", "jif", "pjpeg", "pjp", "png", "webp", "bmp", "dib"];

/// Most kinds of passed-over files that are named one by one.
const KINDS_MAX: usize = 8;

/// Why a source holds no images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Neither a file nor a folder.
    #[error("--source {0}: no such file or folder")]
    Missing(String),
    /// The folder cannot be listed, or the file's type cannot be determined.
    #[error("--source {path}: cannot be read")]
    Read {
        /// The source as given, or the folder in it.
        path: String,
        /// What the operating system reported.
        #[source]
        source: io::Error,
    },
    /// The folder holds no images.
    #[error("--source {0}: no images in this folder; looked for {list}", list = extensions())]
    Folder(String),
    /// The pattern matches no images.
    #[error("--source {0}: the pattern matches no images; looked for {list}", list = extensions())]
    Pattern(String),
    /// The text is no source, or lacks a part.
    #[error("--source {text}: {reason}")]
    Spec {
        /// The source as given.
        text: String,
        /// What is missing or wrong.
        reason: String,
    },
    /// Two sources have one name, or standard input is read twice.
    #[error("--source: {0:?} stands twice")]
    Twice(String),
    /// A source that cannot be opened again delivered nothing of use.
    #[error("--source: {name}")]
    Camera {
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: CameraFault,
    },
    /// The text is not a valid glob pattern.
    #[error("--source {pattern}: not a pattern: {reason}")]
    Syntax {
        /// The source as given.
        pattern: String,
        /// What is wrong and at which character.
        reason: String,
    },
}

/// Lists the image files that `source` names, sorted by the bytes of their paths, and logs what it passes over: one warning
/// for each kind of file, with their number.
///
/// A path that exists is taken literally, whatever characters are in it. A single file is listed whatever its name. A folder
/// is searched without its subfolders and without hidden files, a pattern (`*`, `?`, `[…]`, `**`) wherever it matches; both
/// keep only names with one of [`EXTENSIONS`], and pass over the pictures that this program wrote.
///
/// # Errors
/// [`SourceError`] if the source does not exist, cannot be read, or contains no image file.
pub fn list(source: impl AsRef<Path>) -> Result<Vec<PathBuf>, SourceError> {
    let source = source.as_ref();
    let text = Escaped(source).to_string();
    let found = match fs::metadata(source) {
        Ok(meta) if meta.is_dir() => Found::in_folder(source)?,
        Ok(_) => return Ok(vec![source.to_owned()]),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match has_wildcard(source) {
            true => Found::by_pattern(source)?,
            false => return Err(SourceError::Missing(text)),
        },
        Err(source) => return Err(SourceError::Read { path: text, source }),
    };
    for note in found.notes() {
        tracing::warn!("--source {text}: {note}");
    }
    found.into_images()
}

/// What a search has come across.
#[derive(Debug)]
struct Found {
    images: Vec<PathBuf>,
    /// By kind: how many files were passed over, and the first of them.
    passed_over: BTreeMap<Kind, (usize, PathBuf)>,
    /// Folders that could not be searched, and what the operating system reported.
    unreadable: Vec<(PathBuf, io::Error)>,
    /// The error if there are no images.
    empty: fn(String) -> SourceError,
    source: PathBuf,
}

/// Why a file is passed over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It is a picture that this program wrote.
    Own,
    /// Its extension, in lower case, is not one of [`EXTENSIONS`].
    Extension(String),
    NoExtension,
    Hidden,
    /// It is a folder in a folder.
    Folder,
}

impl Found {
    fn new(source: &Path, empty: fn(String) -> SourceError) -> Self {
        let (images, passed_over, unreadable) = (Vec::new(), BTreeMap::new(), Vec::new());
        Found { images, passed_over, unreadable, empty, source: source.to_owned() }
    }

    fn in_folder(folder: &Path) -> Result<Self, SourceError> {
        let read = |source| SourceError::Read { path: Escaped(folder).to_string(), source };
        let mut found = Found::new(folder, SourceError::Folder);
        for entry in fs::read_dir(folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            match path.is_dir() {
                true => found.pass_over(Kind::Folder, path),
                false => found.add(path),
            }
        }
        Ok(found)
    }

    fn by_pattern(source: &Path) -> Result<Self, SourceError> {
        let syntax = |reason| SourceError::Syntax { pattern: Escaped(source).to_string(), reason };
        let (folder, rest) = split_pattern(source);
        let rest = rest.to_str().ok_or_else(|| syntax("a pattern must be UTF-8".to_owned()))?;
        let pattern =
            Pattern::new(rest).map_err(|e| syntax(format!("{} at character {} of {rest}", e.msg, e.pos)))?;
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
        let is_deep = rest.split('/').any(|part| part == "**");
        let root = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        let walk = WalkDir::new(root)
            .min_depth(1)
            .max_depth(if is_deep { usize::MAX } else { rest.split('/').count() })
            // As a shell does it: `**` does not go through links.
            .follow_links(!is_deep);
        let mut found = Found::new(source, SourceError::Pattern);
        let matches = |path: &Path| {
            let below = path.strip_prefix(root).unwrap_or(path);
            pattern.matches_with(&below.to_string_lossy(), options).then(|| folder.join(below))
        };
        for entry in walk {
            match entry {
                Ok(entry) => match matches(entry.path()) {
                    Some(path) if !path.is_dir() => found.add(path),
                    _ => {}
                },
                Err(error) => {
                    let path = error.path().unwrap_or(root).to_owned();
                    let is_loop = error.loop_ancestor().is_some();
                    let reason = error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of links"));
                    match matches(&path) {
                        // A link that leads nowhere: reading it gives the reason.
                        Some(path) if !is_loop && path.is_symlink() => found.add(path),
                        _ => found.unreadable.push((path, reason)),
                    }
                }
            }
        }
        Ok(found)
    }

    fn add(&mut self, path: PathBuf) {
        match unwanted(&path) {
            Some(kind) => self.pass_over(kind, path),
            None => self.images.push(path),
        }
    }

    fn pass_over(&mut self, kind: Kind, path: PathBuf) {
        self.passed_over.entry(kind).or_insert((0, path)).0 += 1;
    }

    /// What was passed over and what could not be read, a line for each kind.
    fn notes(&self) -> Vec<String> {
        let mut kinds: Vec<_> = self.passed_over.iter().collect();
        kinds.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let mut notes: Vec<String> = kinds
            .iter()
            .take(KINDS_MAX)
            .map(|(kind, (count, first))| {
                let first = Escaped(first.file_name().unwrap_or_default().as_ref()).to_string();
                format!("{}: {first}{}", kind.describe(*count), if *count > 1 { ", …" } else { "" })
            })
            .collect();
        let rest: usize = kinds.iter().skip(KINDS_MAX).map(|(_, (count, _))| count).sum();
        if rest > 0 {
            notes.push(format!("{rest} more files of {} other kinds are not read", kinds.len() - KINDS_MAX));
        }
        let unreadable = self.unreadable.iter().take(KINDS_MAX);
        notes.extend(unreadable.map(|(path, error)| format!("{} is not searched: {error}", Escaped(path))));
        if self.unreadable.len() > KINDS_MAX {
            notes.push(format!("{} more folders are not searched", self.unreadable.len() - KINDS_MAX));
        }
        notes
    }

    fn into_images(mut self) -> Result<Vec<PathBuf>, SourceError> {
        self.images.sort_unstable();
        self.images.dedup();
        match (self.images.is_empty(), self.unreadable.pop()) {
            (false, _) => Ok(self.images),
            (true, Some((path, source))) => {
                Err(SourceError::Read { path: Escaped(&path).to_string(), source })
            }
            (true, None) => Err((self.empty)(Escaped(&self.source).to_string())),
        }
    }
}

impl Kind {
    fn describe(&self, count: usize) -> String {
        let (files, are) = if count == 1 { ("file", "is") } else { ("files", "are") };
        match self {
            Kind::Own => format!("{count} {files} that narrows-head wrote {are} not read"),
            Kind::Extension(extension) => {
                let extension = Escaped(extension.as_ref()).to_string();
                format!("{count} .{extension} {files} {are} not read")
            }
            Kind::NoExtension => format!("{count} {files} without an extension {are} not read"),
            Kind::Hidden => format!("{count} hidden {files} {are} not read"),
            Kind::Folder => {
                let folders = if count == 1 { "folder" } else { "folders" };
                format!("{count} {folders} in it {are} not searched (a pattern such as '**/*' would)")
            }
        }
    }
}

/// Whether a file is one that a folder or a pattern is searched for.
pub(super) fn is_image(path: &Path) -> bool {
    unwanted(path).is_none()
}

/// Why a file is passed over; `None` for an image.
fn unwanted(path: &Path) -> Option<Kind> {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    match extension {
        _ if hidden => Some(Kind::Hidden),
        None => Some(Kind::NoExtension),
        Some(extension) if !EXTENSIONS.contains(&extension.as_str()) => Some(Kind::Extension(extension)),
        Some(_) if artifact::is_own(path) => Some(Kind::Own),
        Some(_) => None,
    }
}

/// Whether a path may be a pattern.
fn has_wildcard(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte))
}

/// Splits a pattern into the folder to search, which is its longest front that has no wildcards or exists as it stands, and
/// the rest.
fn split_pattern(pattern: &Path) -> (PathBuf, PathBuf) {
    let mut folder = PathBuf::new();
    let mut parts = pattern.components();
    while let Some(part) = parts.clone().next() {
        let next = folder.join(part);
        if has_wildcard(part.as_os_str().as_ref()) && !next.exists() {
            break;
        }
        folder = next;
        parts.next();
    }
    (folder, parts.as_path().to_owned())
}

fn extensions() -> String {
    EXTENSIONS.map(|extension| format!(".{extension}")).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        dir
    }

    fn names(dir: &Path, found: Vec<PathBuf>) -> Vec<String> {
        found.iter().map(|p| p.strip_prefix(dir).unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_folder_lists_its_images_in_order() {
        let dir = folder(&[
            "b.JPG",
            "a.png",
            "notes.txt",
            ".hidden.jpg",
            "c.webp",
            "deep/d.jpg",
            "folder.jpg/x.txt",
        ]);
        let found = list(dir.path().to_str().unwrap()).unwrap();
        assert_eq!(names(dir.path(), found), ["a.png", "b.JPG", "c.webp"]);
    }

    #[test]
    fn a_pattern_matches_in_subfolders() {
        let dir = folder(&["a.jpg", "deep/b.jpg", "deep/er/c.bmp", "deep/d.txt"]);
        let all = list(format!("{}/**/*", dir.path().display())).unwrap();
        assert_eq!(names(dir.path(), all), ["a.jpg", "deep/b.jpg", "deep/er/c.bmp"]);
        let one = list(format!("{}/*/?.jpg", dir.path().display())).unwrap();
        assert_eq!(names(dir.path(), one), ["deep/b.jpg"]);
    }

    #[test]
    fn a_single_file_is_listed_whatever_its_name() {
        let dir = folder(&["photo[1].data"]);
        let path = dir.path().join("photo[1].data");
        assert_eq!(list(path.to_str().unwrap()).unwrap(), [path]);
    }

    #[test]
    fn a_source_without_images_is_an_error_that_names_it() {
        let dir = folder(&["readme.md"]);
        let place = dir.path().to_str().unwrap();
        let folder = list(place).unwrap_err().to_string();
        assert!(
            folder.contains(place)
                && folder.contains(".jpg, .jpeg, ")
                && folder.contains(".png, .webp, .bmp"),
            "{folder}"
        );
        assert!(matches!(list(format!("{place}/*.jpg")), Err(SourceError::Pattern(_))));
        assert!(matches!(list(format!("{place}/none.jpg")), Err(SourceError::Missing(_))));
        assert!(matches!(list(format!("{place}/[")), Err(SourceError::Syntax { .. })));
    }

    /// The notes of a search.
    fn notes(source: &Path) -> Vec<String> {
        let found = if source.is_dir() { Found::in_folder(source) } else { Found::by_pattern(source) };
        found.unwrap().notes()
    }

    #[test]
    fn names_that_cameras_and_browsers_give_are_found() {
        let dir = folder(&["a.jfif", "b.JPE", "c.pjpeg", "d.DIB", "e.heic"]);
        let found = list(dir.path()).unwrap();
        assert_eq!(names(dir.path(), found), ["a.jfif", "b.JPE", "c.pjpeg", "d.DIB"]);
    }

    #[test]
    fn what_is_passed_over_is_counted_once_for_each_kind() {
        let dir = folder(&["a.jpg", "1.heic", "2.HEIC", "notes", ".hidden.jpg", "deep/d.jpg", "x.jpg/y.txt"]);
        let notes = notes(dir.path());
        for (start, end) in [
            ("2 .heic files are not read: ", ".heic, …"),
            ("1 file without an extension is not read: notes", ""),
            ("1 hidden file is not read: .hidden.jpg", ""),
            ("2 folders in it are not searched", ", …"),
        ] {
            let said = notes.iter().any(|note| note.starts_with(start) && note.to_lowercase().ends_with(end));
            assert!(said, "{start}: {notes:?}");
        }
        assert_eq!(notes.len(), 4, "{notes:?}");
        let many: Vec<String> = (0..30).map(|kind| format!("x.{kind}")).chain(["a.jpg".into()]).collect();
        let many = folder(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let notes = super::tests::notes(many.path());
        assert_eq!(notes.len(), KINDS_MAX + 1, "{notes:?}");
        assert!(notes[KINDS_MAX].starts_with("22 more files of 22 other kinds"), "{notes:?}");
    }

    #[test]
    fn a_path_that_exists_is_taken_literally_before_it_is_a_pattern() {
        let dir = folder(&["shots [2024]/a.jpg", "shots [2024]/deep/b.jpg", "shots 2/c.jpg", "what?/d.jpg"]);
        let at = |source: &str| names(dir.path(), list(dir.path().join(source)).unwrap());
        assert_eq!(at("shots [2024]"), ["shots [2024]/a.jpg"]);
        assert_eq!(at("shots [2024]/*.jpg"), ["shots [2024]/a.jpg"]);
        assert_eq!(at("shots [2024]/**/*"), ["shots [2024]/a.jpg", "shots [2024]/deep/b.jpg"]);
        assert_eq!(at("what?/?.jpg"), ["what?/d.jpg"]);
        assert_eq!(at("shots [1-3]/*"), ["shots 2/c.jpg"]);
    }

    #[test]
    fn names_that_are_not_utf_8_are_found() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let dir = folder(&["a.jpg"]);
        let odd = dir.path().join(OsStr::from_bytes(b"b\xff.jpg"));
        fs::write(&odd, b"x").unwrap();
        for source in [dir.path().to_owned(), dir.path().join("*.jpg"), dir.path().join("**/*")] {
            assert_eq!(list(source).unwrap(), [dir.path().join("a.jpg"), odd.clone()]);
        }
        let nowhere = dir.path().join(OsStr::from_bytes(b"\xff*"));
        assert!(list(nowhere).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn links_that_lead_nowhere_or_in_a_circle_are_listed_or_named() {
        use std::os::unix::fs::symlink;
        let dir = folder(&["a.jpg", "deep/b.jpg"]);
        symlink("gone.jpg", dir.path().join("dangling.jpg")).unwrap();
        symlink("loop.jpg", dir.path().join("loop.jpg")).unwrap();
        symlink("..", dir.path().join("deep/up")).unwrap();
        let all = ["a.jpg", "dangling.jpg", "loop.jpg"];
        assert_eq!(names(dir.path(), list(dir.path()).unwrap()), all);
        assert_eq!(names(dir.path(), list(dir.path().join("*")).unwrap()), all);
        let deep = ["a.jpg", "dangling.jpg", "deep/b.jpg", "loop.jpg"];
        assert_eq!(names(dir.path(), list(dir.path().join("**/*")).unwrap()), deep);
        let circle = dir.path().join("*/*/*/b.jpg");
        assert!(
            notes(&circle).iter().any(|note| note.contains("deep/up is not searched")),
            "{:?}",
            notes(&circle)
        );
        let error = list(dir.path().join("loop.jpg")).unwrap_err();
        assert!(matches!(&error, SourceError::Read { .. }), "{error}");
    }
}
