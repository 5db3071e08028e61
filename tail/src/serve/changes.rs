//! Whether a file has changed since it was read.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What tells two versions of a file apart. `None` where there is no file.
pub(super) type Version = Option<(u64, u64, u64, i64, i64)>;

/// The versions of a file: the one that was read, and one that could not be used.
pub(super) struct Changes {
    path: PathBuf,
    read: Version,
    /// A version that could not be used, and whether that was said.
    failed: Option<(Version, bool)>,
}

impl Changes {
    /// Of a file that is read now.
    pub(super) fn of(path: &Path) -> Changes {
        Changes { path: path.to_owned(), read: version(path), failed: None }
    }

    /// The version of the file now, if it is to be read: because that was `asked` for, or because it is neither the one that
    /// was read nor one whose fault was said.
    pub(super) fn due(&self, asked: bool) -> Option<Version> {
        let found = version(&self.path);
        let said = self.failed.as_ref().is_some_and(|(version, said)| *version == found && *said);
        (asked || found != self.read && !said).then_some(found)
    }

    /// Takes note that this version is in use.
    pub(super) fn read(&mut self, found: Version) {
        (self.read, self.failed) = (found, None);
    }

    /// Takes note that this version cannot be used; returns whether to say why. A file that is just being written is looked at
    /// once more before its fault is said.
    pub(super) fn failed(&mut self, found: Version, asked: bool) -> bool {
        let say = asked || self.failed.as_ref().is_some_and(|(version, _)| *version == found);
        self.failed = Some((found, say));
        say
    }
}

/// The version of a file now.
pub(super) fn version(path: &Path) -> Version {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_said_once_and_not_of_a_file_in_the_making() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tail.toml");
        fs::write(&path, "a").unwrap();
        let mut changes = Changes::of(&path);
        assert!(changes.due(false).is_none() && changes.due(true).is_some());
        fs::write(&path, "bad").unwrap();
        let bad = changes.due(false).unwrap();
        assert!(!changes.failed(bad, false));
        let bad = changes.due(false).unwrap();
        assert!(changes.failed(bad, false) && changes.due(false).is_none());
        // Who asks is told again.
        let bad = changes.due(true).unwrap();
        assert!(changes.failed(bad, true));
        fs::write(&path, "good").unwrap();
        let good = changes.due(false).unwrap();
        changes.read(good);
        assert!(changes.due(false).is_none());
        fs::remove_file(&path).unwrap();
        assert_eq!(changes.due(false), Some(None));
    }
}
