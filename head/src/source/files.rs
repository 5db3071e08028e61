//! Image files as a source of frames, and a FIFO that receives one image file after the other.
#![expect(clippy::disallowed_methods, reason = "captures are timestamped and decoding is timed here")]

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::Instant,
};

use image::RgbImage;
use tokio::{io::AsyncReadExt, net::unix::pipe};

use super::{
    FrameSource,
    listing::{SourceError, list},
};
use crate::{
    Error,
    frame::Capture,
    image::{FILE_MAX, ImageFault, decode},
    shutdown::StopSignal,
};

/// Reads image files in order, as often as wanted.
#[derive(Debug)]
pub(crate) struct FileSource {
    files: Vec<PathBuf>,
    /// Name of each file's pictures.
    names: Vec<String>,
    /// How often to read all files; `None` for no end.
    passes: Option<u64>,
    /// Whether the only file is a FIFO, which is opened anew for every frame.
    is_fifo: bool,
    next: usize,
    pass: u64,
}

impl FileSource {
    /// Finds the files that `source` names, to be read `passes` times or, with `None`, without end.
    ///
    /// # Errors
    /// [`SourceError`] if there is none.
    pub(crate) fn open(source: &str, passes: Option<u64>) -> Result<Self, SourceError> {
        let files = list(source)?;
        // A folder and a pattern list regular files only.
        let is_fifo = fs::metadata(&files[0]).is_ok_and(|meta| meta.file_type().is_fifo());
        let names = unique_stems(&files);
        Ok(FileSource { files, names, passes, is_fifo, next: 0, pass: 0 })
    }
}

impl FrameSource for FileSource {
    fn total(&self) -> Option<u64> {
        self.passes.map(|passes| passes.saturating_mul(self.files.len() as u64))
    }

    fn next_frame(&mut self, stop: &StopSignal) -> Option<Capture> {
        if self.passes.is_some_and(|passes| self.pass >= passes) {
            return None;
        }
        let file = self.files[self.next].clone();
        let picture_name = (self.pass == 0).then(|| self.names[self.next].clone());
        self.next = (self.next + 1) % self.files.len();
        self.pass += u64::from(self.next == 0);
        let (captured_at, pixels) = match self.is_fifo {
            true => stop.block_on(load_from_fifo(&file))?,
            false => (Instant::now(), load(&file)),
        };
        let decode = captured_at.elapsed();
        Some(Capture { file, picture_name, captured_at, decode, pixels, can_reload: !self.is_fifo })
    }
}

/// Reads and decodes an image file.
///
/// # Errors
/// [`Error::File`] if it cannot be read, [`Error::Image`] if it holds no usable image; both name the file.
pub fn load(path: &Path) -> Result<RgbImage, Error> {
    let mut bytes = Vec::new();
    // One byte more than allowed shows that a file is too large even where its size is not known in advance.
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    decode_file(path, read.map(|_| bytes))
}

/// Waits until somebody writes into a FIFO, then reads and decodes what is written until its last writer closes it.
///
/// The frame counts as captured when its first bytes are there, so that waiting for a writer is no latency.
async fn load_from_fifo(path: &Path) -> (Instant, Result<RgbImage, Error>) {
    let mut captured_at = Instant::now();
    let read = async {
        let pipe = pipe::OpenOptions::new().open_receiver(path)?;
        pipe.readable().await?;
        captured_at = Instant::now();
        let mut bytes = Vec::new();
        pipe.take(FILE_MAX + 1).read_to_end(&mut bytes).await?;
        io::Result::Ok(bytes)
    };
    let bytes = read.await;
    (captured_at, decode_file(path, bytes))
}

fn decode_file(path: &Path, bytes: io::Result<Vec<u8>>) -> Result<RgbImage, Error> {
    let bytes = bytes.map_err(|source| Error::File { file: path.to_owned(), source })?;
    decode(&bytes).map_err(|source| Error::Image {
        file: path.to_owned(),
        source: match source {
            // Only as much as is allowed was read; the message gives the size of the whole file.
            ImageFault::File(read) => {
                ImageFault::File(fs::metadata(path).map_or(read, |meta| meta.len().max(read)))
            }
            other => other,
        },
    })
}

/// File stems, numbered where two would be the same on a file system that ignores case.
fn unique_stems(files: &[PathBuf]) -> Vec<String> {
    let stem =
        |file: &PathBuf| file.file_stem().map_or("frame".into(), |stem| stem.to_string_lossy().into_owned());
    let stems: Vec<String> = files.iter().map(stem).collect();
    let natural: HashSet<String> = stems.iter().map(|stem| stem.to_lowercase()).collect();
    let mut used = HashSet::new();
    let names = stems.into_iter().map(|stem| {
        if used.insert(stem.to_lowercase()) {
            return stem;
        }
        // A numbered name must not equal the stem of another file either.
        let numbered = (2u32..).map(|number| format!("{stem}-{number}"));
        let mut free = numbered.filter(|name| !natural.contains(&name.to_lowercase()));
        free.find(|name| used.insert(name.to_lowercase())).unwrap_or(stem)
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use tokio::runtime;

    use super::*;
    use crate::{error::Chain, shutdown::Shutdown};

    fn png() -> Vec<u8> {
        let mut bytes = io::Cursor::new(Vec::new());
        RgbImage::new(8, 8).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn stop_signal() -> (runtime::Runtime, Shutdown, StopSignal) {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shutdown = Shutdown::new();
        let signal = shutdown.signal(runtime.handle().clone());
        (runtime, shutdown, signal)
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = load(&dir.path().join("none.jpg")).unwrap_err();
        assert!(
            matches!(&missing, Error::File { .. }) && missing.to_string().contains("none.jpg"),
            "{missing}"
        );
        let empty = dir.path().join("empty.png");
        fs::write(&empty, b"").unwrap();
        let error = Chain(&load(&empty).unwrap_err()).to_string();
        assert!(error.ends_with("empty.png: the file is empty"), "{error}");
        assert!(load(dir.path()).is_err());
    }

    #[test]
    fn names_of_pictures_are_unique_and_given_in_the_first_pass_only() {
        let files = ["a/cat.jpg", "b/cat.png", "c/Cat.jpg", "cat-2.jpg", "dog.jpg"].map(PathBuf::from);
        assert_eq!(unique_stems(&files), ["cat", "cat-3", "Cat-4", "cat-2", "dog"]);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.png"), png()).unwrap();
        fs::write(dir.path().join("b.png"), b"no image").unwrap();
        let mut source = FileSource::open(dir.path().to_str().unwrap(), Some(2)).unwrap();
        assert_eq!(source.total(), Some(4));
        let (_runtime, _shutdown, stop) = stop_signal();
        let captures: Vec<_> = std::iter::from_fn(|| source.next_frame(&stop)).collect();
        let names: Vec<_> = captures.iter().map(|capture| capture.picture_name.as_deref()).collect();
        assert_eq!(names, [Some("a"), Some("b"), None, None]);
        let usable: Vec<bool> = captures.iter().map(|capture| capture.pixels.is_ok()).collect();
        assert_eq!(usable, [true, false, true, false]);
    }

    #[test]
    fn a_fifo_delivers_a_frame_for_every_writer_and_is_left_when_the_run_drains() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut source = FileSource::open(path.to_str().unwrap(), None).unwrap();
        assert_eq!(source.total(), None);
        let (_runtime, shutdown, stop) = stop_signal();
        for _ in 0..3 {
            let writer = std::thread::spawn({
                let path = path.clone();
                move || fs::write(path, png()).unwrap()
            });
            let capture = source.next_frame(&stop).unwrap();
            writer.join().unwrap();
            assert!(capture.pixels.is_ok() && !capture.can_reload, "{capture:?}");
        }
        shutdown.drain();
        assert!(source.next_frame(&stop).is_none());
    }
}
