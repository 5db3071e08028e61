//! ONNX Runtime, loaded from its shared library.

use std::{
    error::Error as StdError,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    error::Error,
    library::{find_unpacked, named_by_environment},
};

/// A loaded ONNX Runtime. A process loads one; clones share it.
#[derive(Clone)]
pub struct Runtime {
    environment: ort::environment::Environment,
    library: PathBuf,
}

impl Runtime {
    /// Loads ONNX Runtime from `library` if given, otherwise from the file that
    /// [`LIBRARY_VARIABLE`](super::LIBRARY_VARIABLE) names, otherwise from `.runtime/libonnxruntime.so` in the working
    /// folder, in the executable's folder or in a folder above either.
    ///
    /// # Errors
    /// [`Error::Missing`] when no library was named and none was found; [`Error::Library`] when the library cannot be
    /// loaded or is too old.
    pub fn open(library: Option<&Path>) -> Result<Runtime, Error> {
        let library = match library.map(Path::to_owned).or_else(named_by_environment) {
            Some(library) => library,
            None => find_unpacked().map_err(|places| Error::Missing { places })?,
        };
        let unusable =
            |source: Box<dyn StdError + Send + Sync>| Error::Library { library: library.clone(), source };
        // The loader would search a relative path in the executable's folder first.
        let file = library.canonicalize().map_err(|error| unusable(error.into()))?;
        let environment = ort::init_from(&file)
            .map_err(|error| unusable(error.into()))?
            .with_name("narrows")
            .with_telemetry(false)
            .build()
            .map_err(|error| unusable(error.into()))?;
        Ok(Runtime { environment, library: file })
    }

    /// The path of the library.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// The version that the library reports, for example `1.24`, or `unknown`.
    #[must_use]
    pub fn version(&self) -> String {
        match ort::util::probe(&self.library) {
            Some(minor) => format!("1.{minor}"),
            None => "unknown".to_owned(),
        }
    }

    /// The environment in which sessions are created.
    pub(super) fn environment(&self) -> &ort::environment::Environment {
        &self.environment
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("library", &self.library).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ErrorKind, *};

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libonnxruntime.so");
        let error = Runtime::open(Some(&file)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Library);
        let text = error.to_string();
        assert!(text.contains(&file.display().to_string()) && text.contains("make runtime"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_library_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libonnxruntime.so");
        std::fs::write(&file, "not a library").unwrap();
        let text = Runtime::open(Some(&file)).unwrap_err().to_string();
        assert!(text.contains(&file.display().to_string()) && text.contains("unusable"), "{text}");
    }
}
