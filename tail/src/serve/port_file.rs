//! The file that gets the server's address once it is ready.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use crate::{Error, files::aside};

/// Everybody may read it whom the umask allows.
const MODE: u32 = 0o666;

/// A file that can be written: its folder takes a file, and what has its name now may be replaced.
pub(crate) struct PortFile(PathBuf);

impl PortFile {
    /// Checks that the file can be written, before the networks are loaded.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder is missing or cannot be written, or if there is a link, a folder or a device of this name.
    pub(crate) fn open(file: &Path) -> Result<PortFile, Error> {
        let fail = |source| Error::Io { what: format!("--port-file {}", file.display()), source };
        aside(file, MODE).map_err(fail)?;
        match fs::symlink_metadata(file) {
            Ok(meta) if !meta.is_file() => {
                let what = if meta.is_symlink() { "a link" } else { "no regular file" };
                let reason =
                    format!("there is {what} of this name, which is not replaced; give another name");
                Err(fail(io::Error::new(io::ErrorKind::AlreadyExists, reason)))
            }
            Ok(_) => Ok(PortFile(file.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(PortFile(file.to_owned())),
            Err(error) => Err(fail(error)),
        }
    }

    /// Writes the address. The file is written aside and renamed into place, so a reader sees all of it or nothing, and a
    /// link that has taken the name meanwhile is replaced and not followed.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub(super) fn write(&self, address: &str) -> Result<(), Error> {
        let written = aside(&self.0, MODE).and_then(|mut aside| {
            aside.write_all(format!("{address}\n").as_bytes())?;
            aside.persist(&self.0).map(drop).map_err(|error| error.error)
        });
        written.map_err(|source| Error::Io { what: format!("cannot write {}", self.0.display()), source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_address_is_written_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("port");
        for address in ["127.0.0.1:1", "[::1]:65535"] {
            PortFile::open(&file).unwrap().write(address).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), format!("{address}\n"));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_never_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (file, victim) = (folder.path().join("port"), folder.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &file).unwrap();
        let error = PortFile::open(&file).err().unwrap();
        assert!(error.to_string().contains("--port-file"), "{error}");
        // A link that appears later, and one in the place where a name could be guessed.
        fs::remove_file(&file).unwrap();
        let checked = PortFile::open(&file).unwrap();
        symlink(&victim, &file).unwrap();
        symlink(&victim, file.with_extension("part")).unwrap();
        checked.write("127.0.0.1:1").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(fs::symlink_metadata(&file).unwrap().is_file());
    }

    #[test]
    fn a_folder_that_is_missing_and_a_device_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for file in [folder.path().join("none/port"), folder.path().to_owned(), "/dev/null".into()] {
            assert!(PortFile::open(&file).is_err(), "{}", file.display());
        }
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
