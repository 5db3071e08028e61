//! Files that are written aside and renamed into place.

use std::{fs::Permissions, io, os::unix::fs::PermissionsExt, path::Path};

use tempfile::NamedTempFile;

/// A new file beside `file`, which is removed unless it is renamed. It has the permissions in `mode` that the umask allows.
///
/// # Errors
/// The operating system's error if the folder does not take a file.
pub(crate) fn aside(file: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let permissions = Permissions::from_mode(mode);
    tempfile::Builder::new().prefix(".narrows-tail-").permissions(permissions).tempfile_in(folder_of(file))
}

/// The folder that a file lies in.
pub(crate) fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
