//! Files that are written whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A file that is written beside its place and removed again unless it gets there.
pub(crate) struct Draft {
    path: PathBuf,
    pub(crate) target: PathBuf,
    is_published: bool,
}

impl Draft {
    /// Writes `bytes` beside `target`; it is there under another name then.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn write(target: &Path, bytes: &[u8]) -> io::Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        // Hidden, so that no search for images takes it.
        let path = target.with_file_name(format!(".{name}.part"));
        // One that was left behind by a run that was killed. Creating it anew follows no link.
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = File::create_new(&path)?;
        let draft = Draft { path, target: target.to_owned(), is_published: false };
        file.write_all(bytes)?;
        // Network file systems tell only now that there is no room; and after a power cut the file must not be empty.
        file.sync_data()?;
        Ok(draft)
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// Those of renaming.
    pub(crate) fn publish(mut self) -> io::Result<()> {
        fs::rename(&self.path, &self.target)?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = fs::remove_file(&self.path);
        }
    }
}
