//! The folders of the bundles that are served, and whether they have changed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::changes::{Version, version};
use crate::{config::Serve, engine::BundleOptions};

/// Files of a bundle that are looked at; one has about twenty.
const FILES: usize = 1024;

/// The folders of the bundles, as they were read and as they were seen last.
pub(super) struct BundleFolders {
    folders: Vec<PathBuf>,
    options: BundleOptions,
    read: Vec<Files>,
    seen: Vec<Files>,
}

/// The files in a folder and the folders in it, with their versions.
type Files = Vec<(PathBuf, Version)>;

impl BundleFolders {
    /// The folders of a server with these settings, which are read now.
    pub(super) fn of(config: &Serve) -> BundleFolders {
        let folders = config.bundles.folders.clone();
        let read: Vec<Files> = folders.iter().map(|folder| files(folder)).collect();
        BundleFolders { folders, options: config.engine_options().bundles, seen: read.clone(), read }
    }

    /// Takes over other settings.
    pub(super) fn set(&mut self, config: &Serve) {
        let options = config.engine_options().bundles;
        if (&self.folders, &self.options) != (&config.bundles.folders, &options) {
            (self.folders, self.options) = (config.bundles.folders.clone(), options);
            // They are read at the next look.
            self.read.clear();
        }
    }

    /// The folders and settings, if the bundles are to be read: because that was `asked` for, or because something in the folders
    /// has changed and did not change further since the last look, so that a bundle that is just being copied is not read.
    pub(super) fn due(&mut self, asked: bool) -> Option<(Vec<PathBuf>, BundleOptions)> {
        let found: Vec<Files> = self.folders.iter().map(|folder| files(folder)).collect();
        let is_settled = found == self.seen || self.read.is_empty();
        self.seen.clone_from(&found);
        if !asked && (found == self.read || !is_settled) {
            return None;
        }
        self.read = found;
        Some((self.folders.clone(), self.options.clone()))
    }
}

/// The files in a folder and in those in it, in the order of their names.
fn files(folder: &Path) -> Files {
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).take(FILES).collect()
    };
    let mut paths = list(folder);
    let inner: Vec<PathBuf> =
        paths.iter().filter(|path| path.is_dir()).flat_map(|inner| list(inner)).collect();
    paths.extend(inner);
    paths.sort();
    paths.truncate(FILES);
    paths.into_iter().map(|path| (path.clone(), version(&path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_due_once_and_not_before_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("vectors");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("a"), "a").unwrap();
        let read = vec![files(folder.path())];
        let folders = vec![folder.path().to_owned()];
        let mut bundles =
            BundleFolders { folders, options: BundleOptions::default(), seen: read.clone(), read };
        assert!(bundles.due(false).is_none() && bundles.due(true).is_some());
        fs::write(inner.join("a"), "ab").unwrap();
        assert!(bundles.due(false).is_none());
        fs::write(inner.join("b"), "b").unwrap();
        assert!(bundles.due(false).is_none());
        assert!(bundles.due(false).is_some() && bundles.due(false).is_none());
        // A folder that is gone has changed as well.
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(bundles.due(false).is_none() && bundles.due(false).is_some());
    }
}
