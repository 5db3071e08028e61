//! Finding image files: a file, a folder or a glob pattern.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// File name extensions, in any case, that a folder or a pattern is searched for.
pub const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "webp", "bmp"];

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
        /// The source as given.
        path: String,
        /// What the operating system reported.
        #[source]
        source: std::io::Error,
    },
    /// The folder holds no images.
    #[error("--source {0}: no images in this folder; looked for {list}", list = extensions())]
    Folder(String),
    /// The pattern matches no images.
    #[error("--source {0}: the pattern matches no images; looked for {list}", list = extensions())]
    Pattern(String),
    /// The text is not a valid glob pattern.
    #[error("--source {pattern}: not a pattern: {reason}")]
    Syntax {
        /// The source as given.
        pattern: String,
        /// What is wrong and at which character.
        reason: String,
    },
}

/// Lists the image files that `source` names, sorted by the bytes of their paths.
///
/// A single file is listed whatever its name. A folder is searched without its subfolders and without hidden files, a
/// pattern (`*`, `?`, `[…]`, `**`) wherever it matches; both keep only names with one of [`EXTENSIONS`].
///
/// # Errors
/// [`SourceError`] if the source does not exist, cannot be read, or contains no image file.
pub fn list(source: &str) -> Result<Vec<PathBuf>, SourceError> {
    let path = Path::new(source);
    let read = |e| SourceError::Read { path: source.to_owned(), source: e };
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let mut files = Vec::new();
            for entry in fs::read_dir(path).map_err(read)? {
                files.push(entry.map_err(read)?.path());
            }
            keep_images(files).ok_or_else(|| SourceError::Folder(source.to_owned()))
        }
        Ok(_) => Ok(vec![path.to_owned()]),
        Err(_) if source.contains(['*', '?', '[']) => {
            let paths = glob::glob(source).map_err(|e| SourceError::Syntax {
                pattern: source.to_owned(),
                reason: format!("{} at character {}", e.msg, e.pos),
            })?;
            // Folders that cannot be read match nothing.
            keep_images(paths.flatten().collect()).ok_or_else(|| SourceError::Pattern(source.to_owned()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(SourceError::Missing(source.to_owned())),
        Err(e) => Err(read(e)),
    }
}

fn keep_images(mut files: Vec<PathBuf>) -> Option<Vec<PathBuf>> {
    files.retain(|path| is_image(path) && path.is_file());
    files.sort_unstable();
    files.dedup();
    (!files.is_empty()).then_some(files)
}

fn is_image(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let known = path
        .extension()
        .and_then(|e| e.to_str())
        .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)));
    known && !hidden
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
        let all = list(&format!("{}/**/*", dir.path().display())).unwrap();
        assert_eq!(names(dir.path(), all), ["a.jpg", "deep/b.jpg", "deep/er/c.bmp"]);
        let one = list(&format!("{}/*/?.jpg", dir.path().display())).unwrap();
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
        assert!(folder.contains(place) && folder.contains(".jpg, .jpeg, .png, .webp, .bmp"), "{folder}");
        assert!(matches!(list(&format!("{place}/*.jpg")), Err(SourceError::Pattern(_))));
        assert!(matches!(list(&format!("{place}/none.jpg")), Err(SourceError::Missing(_))));
        assert!(matches!(list(&format!("{place}/[")), Err(SourceError::Syntax { .. })));
    }
}
