//! Image files as a source of frames, and a FIFO that receives one image file after the other.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use image::RgbImage;
use narrows_models::Digest;

use super::{
    FrameSource,
    listing::{SourceError, list},
    reader::{Patience, Reader, Reading, read_file},
};
use crate::{
    Error, artifact,
    frame::{Capture, Origin},
    image::{ImageFault, decode},
    picture::Picture,
    shutdown::StopSignal,
};

/// Longest name in bytes that file systems take.
const NAME_MAX: usize = 255;
/// Bytes of a picture's name beside its stem: the kind, the extension, what a file in the making has, and a number.
const NAME_REST: usize = 32;

/// Reads image files in order, as often as wanted.
#[derive(Debug)]
pub(crate) struct FileSource {
    files: Vec<PathBuf>,
    /// Name of each file's pictures.
    names: Vec<String>,
    /// How often to read all files; `None` for no end.
    passes: Option<u64>,
    /// How long a file is waited for: without end where the only one is a FIFO or a device, which is opened anew for every
    /// frame.
    patience: Patience,
    reader: Reader,
    /// The name of the source, if it was given one.
    source: Option<Arc<str>>,
    next: usize,
    pass: u64,
}

impl FileSource {
    /// Finds the files that `source` names, to be read `passes` times or, with `None`, without end. Each of them may take
    /// `budget` to be read.
    ///
    /// # Errors
    /// [`SourceError`] if there is none.
    pub(crate) fn open(source: &Path, passes: Option<u64>, budget: Duration) -> Result<Self, SourceError> {
        let files = list(source)?;
        let is_stream = files.len() == 1 && fs::metadata(&files[0]).is_ok_and(|meta| !meta.is_file());
        let patience = if is_stream { Patience::Endless } else { Patience::Budget };
        let (names, reader) = (unique_stems(&files), Reader::new(budget));
        Ok(FileSource { files, names, passes, patience, reader, source: None, next: 0, pass: 0 })
    }

    /// The same source with a name for its lines.
    pub(crate) fn named(self, name: Option<&str>) -> Self {
        FileSource { source: name.map(Arc::from), ..self }
    }

    /// The name of the source, if it was given one.
    pub(super) fn name(&self) -> Option<Arc<str>> {
        self.source.clone()
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
        // A file that is being read is not given up where only the settings change; a FIFO may have a frame much later.
        let stop = if self.patience == Patience::Budget { &stop.of_run() } else { stop };
        let reading = stop.block_on(self.reader.read(&file, self.patience))?;
        self.next = (self.next + 1) % self.files.len();
        self.pass += u64::from(self.next == 0);
        let Reading { captured_at, captured_on, is_regular: can_reload, .. } = reading;
        let picture = decode_file(&file, reading).map(Picture::Image);
        let decode = captured_at.elapsed();
        let origin = Origin::File { file, source: self.source.clone() };
        Some(Capture { origin, picture_name, captured_at, captured_on, decode, picture, can_reload })
    }
}

/// Reads and decodes an image file.
///
/// # Errors
/// [`Error::File`] if it cannot be read, [`Error::Image`] if it holds no usable image; both name the file.
pub fn load(path: &Path) -> Result<RgbImage, Error> {
    decode_file(path, read_file(path, Patience::Endless, Duration::MAX))
}

/// Reads image files again, each within a given time.
#[derive(Debug)]
pub(crate) struct Reloader(Reader);

impl Reloader {
    /// A reloader that gives each file `budget` to be read.
    pub(crate) fn new(budget: Duration) -> Self {
        Reloader(Reader::new(budget))
    }

    /// Reads and decodes an image file.
    ///
    /// # Errors
    /// Those of [`load`], and [`Error::File`] if it takes too long.
    pub(crate) fn load(&mut self, path: &Path) -> Result<RgbImage, Error> {
        decode_file(path, self.0.read_blocking(path))
    }
}

fn decode_file(path: &Path, reading: Reading) -> Result<RgbImage, Error> {
    let bytes = reading.bytes.map_err(|source| Error::File { file: path.to_owned(), source })?;
    decode(&bytes).map_err(|source| Error::Image {
        file: path.to_owned(),
        source: match source {
            // Only as much as is allowed was read; the message gives the size of the whole file.
            ImageFault::File(_) => ImageFault::File(reading.size),
            other => other,
        },
    })
}

/// Names the pictures of sources of files anew, so that no two of them, nor those of a camera, are written to one place.
pub(super) fn name_pictures<'a>(cameras: impl Iterator<Item = &'a str>, sources: Vec<&mut FileSource>) {
    let mut all: Vec<PathBuf> = cameras.map(PathBuf::from).collect();
    let count = all.len();
    all.extend(sources.iter().flat_map(|source| source.files.iter().cloned()));
    let mut names = unique_stems(&all).into_iter().skip(count);
    for source in sources {
        source.names = names.by_ref().take(source.files.len()).collect();
    }
}

/// File stems, short enough for the names of pictures, and numbered where two would be the same on a file system that
/// ignores case or a picture would have the name of a source.
fn unique_stems(files: &[PathBuf]) -> Vec<String> {
    let stem =
        |file: &PathBuf| file.file_stem().map_or("frame".into(), |stem| shortened(&stem.to_string_lossy()));
    let stems: Vec<String> = files.iter().map(stem).collect();
    let natural: HashSet<String> = stems.iter().map(|stem| stem.to_lowercase()).collect();
    let is_source = |name: &str| {
        artifact::KINDS.iter().any(|kind| natural.contains(&format!("{}.{kind}", name.to_lowercase())))
    };
    let mut used = HashSet::new();
    // The first number that is not tried yet, for each stem: a camera's folders all have the same names.
    let mut next: HashMap<String, u32> = HashMap::new();
    let names = stems.into_iter().map(|stem| {
        if !is_source(&stem) && used.insert(stem.to_lowercase()) {
            return stem;
        }
        let number = next.entry(stem.to_lowercase()).or_insert(2);
        loop {
            let name = format!("{stem}-{number}");
            *number += 1;
            // A numbered name must not equal the stem of another file either.
            let key = name.to_lowercase();
            if !natural.contains(&key) && !is_source(&name) && used.insert(key) {
                return name;
            }
        }
    });
    names.collect()
}

/// The stem, or where it is too long for the name of a picture, its beginning and a digest of all of it.
fn shortened(stem: &str) -> String {
    if stem.len() <= NAME_MAX - NAME_REST {
        return stem.to_owned();
    }
    let digest = Digest::of(stem.as_bytes()).short();
    let mut end = NAME_MAX - NAME_REST - digest.len() - 1;
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{digest}", &stem[..end])
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::runtime;

    use super::*;
    use crate::{error::Chain, shutdown::Shutdown};

    const BUDGET: Duration = Duration::from_secs(30);

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
        let mut source = FileSource::open(dir.path(), Some(2), BUDGET).unwrap();
        assert_eq!(source.total(), Some(4));
        let (_runtime, _shutdown, stop) = stop_signal();
        let captures: Vec<_> = std::iter::from_fn(|| source.next_frame(&stop)).collect();
        let names: Vec<_> = captures.iter().map(|capture| capture.picture_name.as_deref()).collect();
        assert_eq!(names, [Some("a"), Some("b"), None, None]);
        let usable: Vec<bool> = captures.iter().map(|capture| capture.picture.is_ok()).collect();
        assert_eq!(usable, [true, false, true, false]);
    }

    #[test]
    fn pictures_of_several_sources_have_names_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut sources: Vec<FileSource> = ["a", "b"]
            .map(|folder| {
                fs::create_dir(dir.path().join(folder)).unwrap();
                for name in ["cat.png", "yard.png"] {
                    fs::write(dir.path().join(folder).join(name), png()).unwrap();
                }
                FileSource::open(&dir.path().join(folder), Some(1), BUDGET).unwrap()
            })
            .into();
        name_pictures(["yard"].into_iter(), sources.iter_mut().collect());
        assert_eq!(sources[0].names, ["cat", "yard-2"]);
        assert_eq!(sources[1].names, ["cat-2", "yard-3"]);
    }

    #[test]
    fn pictures_have_names_that_are_short_and_no_source_has() {
        let files = ["cat.jpg", "cat.overlay.png", "Dog.png", "dog.MASK.bmp"].map(PathBuf::from);
        assert_eq!(unique_stems(&files), ["cat-2", "cat.overlay", "Dog-2", "dog.MASK"]);
        let long = ["ü".repeat(125), "ü".repeat(124) + "x", "y".repeat(251)];
        let names = unique_stems(&long.clone().map(|stem| PathBuf::from(stem + ".jpg")));
        for (name, stem) in names.iter().zip(&long) {
            assert!(name.len() + ".overlay.png".len() <= 255 - 10, "{name}");
            assert_eq!(name.chars().next(), stem.chars().next());
        }
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 3, "{names:?}");
    }

    #[test]
    fn a_file_that_nobody_writes_costs_its_budget_and_not_the_others() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.png"), png()).unwrap();
        assert!(
            std::process::Command::new("mkfifo").arg(dir.path().join("b.png")).status().unwrap().success()
        );
        fs::write(dir.path().join("c.png"), png()).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("d.png")).unwrap();
        let budget = Duration::from_millis(200);
        let mut source = FileSource::open(dir.path(), Some(1), budget).unwrap();
        let (_runtime, _shutdown, stop) = stop_signal();
        let captures: Vec<_> = std::iter::from_fn(|| source.next_frame(&stop)).collect();
        let errors: Vec<_> = captures
            .iter()
            .map(|capture| capture.picture.as_ref().map_err(|e| Chain(e).to_string()).err())
            .collect();
        assert!(errors[0].is_none() && errors[2].is_none(), "{errors:?}");
        assert!(errors[1].as_ref().unwrap().contains("budget of 200 ms"), "{errors:?}");
        assert!(errors[3].as_ref().unwrap().contains("No such device or address"), "{errors:?}");
    }

    #[test]
    fn a_fifo_delivers_a_frame_for_every_writer_and_is_left_when_the_run_drains() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut source = FileSource::open(&path, None, BUDGET).unwrap();
        assert_eq!(source.total(), None);
        let (_runtime, shutdown, stop) = stop_signal();
        for _ in 0..3 {
            let writer = std::thread::spawn({
                let path = path.clone();
                move || fs::write(path, png()).unwrap()
            });
            let capture = source.next_frame(&stop).unwrap();
            writer.join().unwrap();
            assert!(capture.picture.is_ok() && !capture.can_reload, "{capture:?}");
        }
        let writer = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut jpeg = io::Cursor::new(Vec::new());
                RgbImage::new(8, 8).write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
                // The reader may leave before all of it is written.
                let _ = fs::write(path, jpeg.into_inner().repeat(9));
            }
        });
        let error = source.next_frame(&stop).unwrap().picture.unwrap_err();
        let words = format!("it carries a stream of pictures: give pipe:{}", path.display());
        assert!(Chain(&error).to_string().ends_with(&words), "{}", Chain(&error));
        writer.join().unwrap();
        shutdown.drain();
        assert!(source.next_frame(&stop).is_none());
    }
}
