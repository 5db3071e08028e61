//! A file of lines, which is renamed when it is full.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{Error, name::Escaped};

/// A file of lines, and what becomes of it when it is full.
#[derive(Debug)]
pub(crate) struct LineFile {
    /// The flag that names it.
    flag: &'static str,
    path: PathBuf,
    /// Bytes at which the file is renamed.
    rotate_size: u64,
    /// How many renamed files are kept.
    keep: u32,
    file: Option<Open>,
}

/// The file at the path when it was opened.
#[derive(Debug)]
struct Open {
    file: File,
    /// Bytes of whole lines.
    length: u64,
}

impl LineFile {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// [`Error::Output`] if it cannot be written, or is something else than a file.
    pub(crate) fn open(flag: &'static str, path: &Path, rotate_size: u64, keep: u32) -> Result<Self, Error> {
        let mut lines = LineFile { flag, path: path.to_owned(), rotate_size, keep, file: None };
        match lines.reopen().map(drop) {
            Ok(()) => Ok(lines),
            Err(source) => Err(lines.error(source)),
        }
    }

    /// Drops a file that somebody has removed or renamed, so that the next line begins a new one at the path, and notes the
    /// length of one that somebody has emptied. Returns whether either has happened.
    pub(crate) fn look_after(&mut self) -> bool {
        let Some(open) = &mut self.file else { return false };
        match (fs::metadata(&self.path), open.file.metadata()) {
            (Ok(there), Ok(ours)) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                ours.len() < std::mem::replace(&mut open.length, ours.len())
            }
            _ => {
                self.file = None;
                true
            }
        }
    }

    /// Bytes of the file at the path, which is opened or created where it is not open.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn length(&mut self) -> io::Result<u64> {
        self.opened().map(|open| open.length)
    }

    /// Has what was written survive a power cut.
    pub(crate) fn sync(&self) {
        if let Some(open) = &self.file {
            // Where the disk fails, the lines fail as well.
            let _ = open.file.sync_data();
        }
    }

    /// Writes a whole line, or several, or nothing of them.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = self.opened()?.length;
        // Also where an earlier attempt has failed, lest a file that cannot be renamed grow without bound.
        if length > 0 && length + line.len() as u64 > self.rotate_size {
            self.rotate()?;
        }
        let open = self.opened()?;
        if let Err(error) = open.file.write_all(line) {
            // Half a line would be glued to the next one. A file that was emptied meanwhile must not grow.
            let whole = open.length;
            let cut = open.file.metadata().and_then(|now| open.file.set_len(whole.min(now.len())));
            if cut.is_err() {
                self.file = None;
            }
            return Err(error);
        }
        open.length += line.len() as u64;
        Ok(())
    }

    /// The file, opened where it is not.
    fn opened(&mut self) -> io::Result<&mut Open> {
        match self.file.take() {
            Some(open) => Ok(self.file.insert(open)),
            None => self.reopen(),
        }
    }

    /// Renames the file to `FILE.1`, and those before it up by one; the last one is removed.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        if self.keep == 0 {
            return fs::remove_file(&self.path);
        }
        for number in (1..self.keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    /// Opens the file to append to it. Half a line at its end, left by a power cut, is ended.
    fn reopen(&mut self) -> io::Result<&mut Open> {
        let refuse = |metadata: &Metadata| !metadata.is_file();
        // Opening a FIFO would wait for its reader.
        if fs::metadata(&self.path).is_ok_and(|metadata| refuse(&metadata)) {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&self.path)?;
        let length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let mut open = Open { file, length };
        if last != [b'\n'] {
            open.file.write_all(b"\n")?;
            open.length += 1;
        }
        Ok(self.file.insert(open))
    }

    /// The error of the file.
    pub(crate) fn error(&self, source: io::Error) -> Error {
        Error::Output { place: format!("{} {}", self.flag, Escaped(&self.path)), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    fn pairs(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_full_file_is_renamed_and_the_oldest_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = LineFile::open("--lines", &folder.path().join("a"), 6, 2).unwrap();
        for line in ["1\n", "2\n", "3\n", "4\n", "long long\n", "5\n", "6\n"] {
            lines.write(line.as_bytes()).unwrap();
        }
        assert_eq!(files(folder.path()), pairs(&[("a", "5\n6\n"), ("a.1", "long long\n"), ("a.2", "4\n")]));
        let mut none = LineFile::open("--lines", &folder.path().join("b"), 2, 0).unwrap();
        none.write(b"1\n").unwrap();
        none.write(b"2\n").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("b")).unwrap(), "2\n");
    }

    #[test]
    fn a_file_that_is_gone_is_begun_anew_and_half_a_line_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "half").unwrap();
        let mut lines = LineFile::open("--lines", &path, 1000, 1).unwrap();
        lines.write(b"1\n").unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        lines.look_after();
        lines.write(b"2\n").unwrap();
        fs::remove_file(&path).unwrap();
        lines.look_after();
        lines.write(b"3\n").unwrap();
        assert_eq!(files(folder.path()), pairs(&[("a", "3\n"), ("moved", "half\n1\n")]));
    }

    #[test]
    fn a_file_that_somebody_has_emptied_has_its_whole_size_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut lines = LineFile::open("--lines", &path, 6, 1).unwrap();
        lines.write(b"1\n").unwrap();
        lines.write(b"2\n").unwrap();
        fs::write(&path, "").unwrap();
        lines.look_after();
        lines.write(b"3\n").unwrap();
        lines.write(b"4\n").unwrap();
        assert_eq!(files(folder.path()), pairs(&[("a", "3\n4\n")]));
    }

    #[test]
    fn a_full_file_that_cannot_be_renamed_takes_no_further_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        // Nothing is renamed over a folder.
        fs::create_dir(folder.path().join("a.1")).unwrap();
        let mut lines = LineFile::open("--lines", &path, 2, 1).unwrap();
        lines.write(b"1\n").unwrap();
        assert!(lines.write(b"2\n").is_err() && lines.write(b"3\n").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        fs::remove_dir(folder.path().join("a.1")).unwrap();
        lines.write(b"4\n").unwrap();
        assert_eq!(files(folder.path()), pairs(&[("a", "4\n"), ("a.1", "1\n")]));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), Path::new("/dev/null"), &folder.path().join("no/folder")] {
            let error = LineFile::open("--lines", path, 1000, 1).unwrap_err();
            assert!(error.to_string().contains(&format!("--lines {}", path.display())), "{error}");
        }
    }
}
