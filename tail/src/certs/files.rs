//! Reading and writing of the files of certificates.

use std::{
    fs::{DirBuilder, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::error::Error;
use crate::files::{aside, folder_of};

/// The certificate of the CA, the own certificate and the private key of an identity.
pub(super) fn identity(folder: &Path) -> [PathBuf; 3] {
    ["ca.pem", "cert.pem", "key.pem"].map(|file| folder.join(file))
}

pub(super) fn refuse_existing<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Error> {
    match files.into_iter().find(|file| file.symlink_metadata().is_ok()) {
        Some(file) => Err(Error::Exists { file: file.clone() }),
        None => Ok(()),
    }
}

pub(crate) fn create_folder(folder: &Path) -> Result<(), Error> {
    let created = DirBuilder::new().recursive(true).create(folder);
    created.map_err(|source| Error::File { file: folder.to_owned(), source })
}

/// Writes a new file, which is never there in part and never overwritten.
pub(super) fn create(file: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let written = write_aside(file, text, mode);
    let written = written.and_then(|aside| aside.persist_noclobber(file).map_err(|error| error.error));
    written.and_then(|_| sync_folder(file)).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { file: file.to_owned() },
        _ => Error::File { file: file.to_owned(), source },
    })
}

/// Writes a file or replaces it. Whoever reads it sees all of the old text or all of the new one, also after a loss of power.
pub(crate) fn replace(file: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let written = write_aside(file, text, mode);
    let written = written.and_then(|aside| aside.persist(file).map_err(|error| error.error));
    let written = written.and_then(|_| sync_folder(file));
    written.map_err(|source| Error::File { file: file.to_owned(), source })
}

/// Writes a text to a file with these permissions beside `file`.
fn write_aside(file: &Path, text: &str, mode: u32) -> io::Result<NamedTempFile> {
    let mut aside = aside(file, mode)?;
    aside.write_all(text.as_bytes())?;
    aside.as_file().sync_all()?;
    Ok(aside)
}

/// Makes a rename in the folder of `file` last.
fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}
