//! The newest version of each bundle that a device has used, so that nobody can give it an older one.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::SignatureFault;
use crate::{Bundle, Error};

/// Largest record in bytes.
const RECORD_MAX: u64 = 1 << 16;
/// Most characters of a version that are kept.
const VERSION_MAX: usize = 64;

/// A file with the newest version of each bundle that was used: a line `NAME VERSION` each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewestRecord {
    file: PathBuf,
}

/// Whether `version` comes before `other`: numbers with dots between them, compared from the front; what follows a `-` or `+` does not
/// count. A version that has no such form is older than none and no newer than any.
#[must_use]
pub fn is_older(version: &str, other: &str) -> bool {
    numbers(version).zip(numbers(other)).is_some_and(|(version, other)| version.cmp(&other) == Ordering::Less)
}

fn numbers(version: &str) -> Option<Vec<u64>> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let mut numbers: Vec<u64> = core.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(numbers)
}

impl NewestRecord {
    /// The record in this file, which need not exist.
    #[must_use]
    pub fn new(file: &Path) -> NewestRecord {
        NewestRecord { file: file.to_owned() }
    }

    /// Checks that no newer version of this bundle was used.
    ///
    /// # Errors
    /// [`SignatureFault::Older`], or the reason why the file cannot be read.
    pub fn check(&self, bundle: &Bundle) -> Result<(), Error> {
        let known = self.read().map_err(|source| self.failed(source))?;
        let (name, version) = (bundle.name(), bundle.manifest().version());
        match known.get(name).filter(|newest| is_older(version, newest)) {
            Some(newest) => {
                let (name, found, newest) = (name.to_owned(), version.to_owned(), newest.clone());
                Err(Error::signature(bundle.dir(), SignatureFault::Older { name, found, newest }))
            }
            None => Ok(()),
        }
    }

    /// Takes note that a bundle is used: its version counts as the newest from now on.
    ///
    /// # Errors
    /// The reason why the file cannot be read or written.
    pub fn note(&self, bundle: &Bundle) -> Result<(), Error> {
        let mut known = self.read().map_err(|source| self.failed(source))?;
        // A version may be any text, and must stay the end of one short line.
        let version = bundle.manifest().version().chars().filter(|c| !c.is_control()).take(VERSION_MAX);
        let (name, version) = (bundle.name().to_owned(), version.collect::<String>());
        match known.insert(name, version.clone()) {
            Some(before) if before == version => Ok(()),
            _ => self.write(&known).map_err(|source| self.failed(source)),
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Read { path: self.file.clone(), source }
    }

    fn read(&self) -> io::Result<BTreeMap<String, String>> {
        let text = match fs::metadata(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Ok(file) if file.len() > RECORD_MAX => {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is no record of bundles"));
            }
            _ => fs::read_to_string(&self.file)?,
        };
        let entry = |line: &str| {
            let entry = line.split_once(' ').map(|(name, version)| (name.to_owned(), version.to_owned()));
            entry.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no record of bundles"))
        };
        text.lines().map(entry).collect()
    }

    /// Writes the record aside and renames it, so that a loss of power leaves the old one or the new one.
    fn write(&self, known: &BTreeMap<String, String>) -> io::Result<()> {
        let text: String = known.iter().map(|(name, version)| format!("{name} {version}\n")).collect();
        let aside = self.file.with_added_extension("new");
        let mut file = File::create(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, &self.file)?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}
