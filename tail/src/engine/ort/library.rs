//! The place of ONNX Runtime's shared library.

use std::path::{Path, PathBuf};

/// The environment variable that names ONNX Runtime's library.
pub const LIBRARY_VARIABLE: &str = "NARROWS_ORT";

/// The path at which `make runtime` puts the library, relative to the project's folder.
const UNPACKED: &str = ".runtime/libonnxruntime.so";

/// The library that [`LIBRARY_VARIABLE`] names, if the variable is set and not empty.
pub(super) fn named_by_environment() -> Option<PathBuf> {
    std::env::var_os(LIBRARY_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The library that `make runtime` unpacked. It is searched in the working folder, in the executable's folder and in all
/// folders above them, so that it is found from within the project and from `target/release`.
///
/// # Errors
/// A description of the places that were searched, when the library is in none of them.
pub(super) fn find_unpacked() -> Result<PathBuf, String> {
    let executable = std::env::current_exe().ok();
    let starts =
        [std::env::current_dir().ok(), executable.and_then(|file| file.parent().map(Path::to_owned))];
    let candidates =
        starts.iter().flatten().flat_map(|start| start.ancestors().map(|folder| folder.join(UNPACKED)));
    match { candidates }.find(|file| file.exists()) {
        Some(file) => Ok(file),
        None => {
            let first = starts.iter().flatten().map(|start| start.join(UNPACKED).display().to_string());
            Err(format!("{} (and the folders above)", first.collect::<Vec<_>>().join(" and ")))
        }
    }
}
