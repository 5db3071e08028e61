//! The folder of a bundle, opened and checked.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Digest, Error, Geometry, HeadSpec, Label, Level, LocalSpec, Manifest, Task, TaskKind, Vector, labels,
    onnx::{ExternalTensor, external_tensor},
};

/// Largest manifest in bytes.
const MANIFEST_MAX: u64 = 1 << 20;
/// Largest part in bytes, which is the largest ONNX file.
const PART_MAX: u64 = 1 << 31;

/// The parts that must be present, and those that stay in memory until they are released: the ones that a program loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// For a device: the head, the tables and the labels. The local network may be absent and is checked if it is present. Tails,
    /// references and vectors are not read: they are checked by [`Bundle::read`]. Head, tables and local network stay in memory.
    Head,
    /// For a server: every part that the manifest lists. The tables, the tails and the vectors' packets, symbols and
    /// outputs stay in memory; with `unsplit` the unsplit networks do, too.
    Tail {
        /// Whether the unsplit networks are served.
        unsplit: bool,
    },
    /// For tools: every part that the manifest lists, and all of them stay in memory.
    All,
}

/// A bundle that was checked; it is only read.
///
/// The bytes of a part that come out of it are always bytes whose SHA-256 is that of the manifest, whatever happens to the
/// files after the bundle was opened.
#[derive(Clone)]
pub struct Bundle {
    dir: PathBuf,
    digest: Digest,
    manifest: Manifest,
    /// The parts that were present, with their sizes in bytes.
    present: BTreeMap<String, u64>,
    /// Parts as they were read and digested.
    held: BTreeMap<String, Arc<Vec<u8>>>,
}

impl Bundle {
    /// Opens the bundle in `dir`: parses the manifest, compares the digest of every part that the program may use, requires those
    /// in `parts`, reads the labels and compares the sizes that must agree. Every part is read once.
    ///
    /// # Errors
    /// The first [`Error`] that is found; it names the part.
    pub fn open(dir: impl AsRef<Path>, parts: Parts) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let text = read_file(dir, "manifest.toml", MANIFEST_MAX)?;
        let text = String::from_utf8(text)
            .map_err(|source| Error::Encoding { path: dir.join("manifest.toml"), source })?;
        let manifest = Manifest::parse(&text).map_err(|e| match e {
            Error::Syntax { source, .. } => Error::Syntax { path: dir.join("manifest.toml"), source },
            other => other,
        })?;
        let digest = Digest::of(text.as_bytes());
        let (present, held) = Default::default();
        let mut bundle = Bundle { dir: dir.to_owned(), digest, manifest, present, held };
        let mut labels = vec![Vec::new(); bundle.tasks().len()];
        for (part, expected) in bundle.manifest.digests().to_vec() {
            if parts == Parts::Head && !bundle.head_needs(&part) && !bundle.is_loaded(&part, parts) {
                // A device does not use it, so it is not read; `Bundle::read` compares it if somebody does.
                if let Some(length) = length(dir, &part) {
                    bundle.present.insert(part, length);
                }
                continue;
            }
            let bytes = match read_digested(dir, &part, expected) {
                Err(Error::Missing { .. }) if parts == Parts::Head && !bundle.head_needs(&part) => continue,
                other => other?,
            };
            bundle.check_size(&part, &bytes)?;
            if bundle.networks().any(|network| network == part) {
                check_network(&part, &bytes)?;
            }
            for (task, labels) in bundle.tasks().iter().zip(&mut labels) {
                if task.labels_file == part {
                    *labels = labels::parse(&part, &bytes)?;
                }
            }
            bundle.present.insert(part.clone(), bytes.len() as u64);
            if bundle.is_loaded(&part, parts) {
                bundle.held.insert(part, Arc::new(bytes));
            }
        }
        bundle.check_outputs(&labels)?;
        bundle.manifest.set_labels(labels);
        Ok(bundle)
    }

    /// The folder it was opened from.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The identity of the bundle: the SHA-256 of the manifest, which holds the SHA-256 of every part.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Name of the bundle.
    #[must_use]
    pub fn name(&self) -> &str {
        self.manifest.name()
    }

    /// The whole manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The network on the device.
    #[must_use]
    pub fn head(&self) -> &HeadSpec {
        self.manifest.head()
    }

    /// The part that holds the probability tables.
    #[must_use]
    pub fn tables(&self) -> &str {
        self.manifest.tables()
    }

    /// The input geometries; a packet has the index of one.
    #[must_use]
    pub fn geometries(&self) -> &[Geometry] {
        self.manifest.geometries()
    }

    /// The rate levels, finest first; a packet has the index of one.
    #[must_use]
    pub fn levels(&self) -> &[Level] {
        self.manifest.levels()
    }

    /// Index of the level to use when no other is requested.
    #[must_use]
    pub fn default_level(&self) -> usize {
        self.manifest.default_level()
    }

    /// The tasks with their labels.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        self.manifest.tasks()
    }

    /// Finds the task of this name; returns its index as well.
    #[must_use]
    pub fn task(&self, name: &str) -> Option<(usize, &Task)> {
        self.tasks().iter().enumerate().find(|(_, task)| task.name == name)
    }

    /// The test vectors.
    #[must_use]
    pub fn vectors(&self) -> &[Vector] {
        self.manifest.vectors()
    }

    /// The network that runs on the device alone, if the bundle has one.
    #[must_use]
    pub fn local(&self) -> Option<&LocalSpec> {
        self.manifest.local()
    }

    /// Path of a part, for messages: its bytes come from [`Bundle::read`].
    #[must_use]
    pub fn path(&self, part: &str) -> PathBuf {
        self.dir.join(part)
    }

    /// Whether the part was present when the bundle was opened.
    #[must_use]
    pub fn has(&self, part: &str) -> bool {
        self.present.contains_key(part)
    }

    /// The bytes of a part that was present when the bundle was opened.
    #[must_use]
    pub fn size(&self, part: &str) -> Option<u64> {
        self.present.get(part).copied()
    }

    /// Returns the bytes of a part. Those of a part that is no longer in memory are read again and compared with the
    /// manifest again.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Read`], or [`Error::Tampered`] if the file has changed since.
    pub fn read(&self, part: &str) -> Result<Vec<u8>, Error> {
        if let Some(held) = self.held.get(part) {
            return Ok(held.to_vec());
        }
        let digests = self.manifest.digests();
        match digests.iter().find(|(name, _)| name == part) {
            Some((_, expected)) => {
                let bytes = read_digested(&self.dir, part, *expected)?;
                self.check_size(part, &bytes)?;
                Ok(bytes)
            }
            None => Err(Error::Missing { dir: self.dir.clone(), part: part.to_owned() }),
        }
    }

    /// Returns the bytes of a part as [`Bundle::read`] does and releases them from memory.
    ///
    /// # Errors
    /// Those of [`Bundle::read`].
    pub fn take(&mut self, part: &str) -> Result<Vec<u8>, Error> {
        match self.held.remove(part) {
            Some(held) => Ok(Arc::unwrap_or_clone(held)),
            None => self.read(part),
        }
    }

    /// Releases the bytes of all parts from memory, once they are loaded.
    pub fn release(&mut self) {
        self.held.clear();
    }

    fn head_needs(&self, part: &str) -> bool {
        part == self.head().file
            || part == self.tables()
            || self.tasks().iter().any(|task| task.labels_file == part)
    }

    /// Whether a program that asked for `parts` loads this one.
    fn is_loaded(&self, part: &str, parts: Parts) -> bool {
        match parts {
            Parts::All => true,
            Parts::Head => {
                part == self.head().file
                    || part == self.tables()
                    || self.local().is_some_and(|local| local.file == part)
            }
            Parts::Tail { unsplit } => {
                let reference = |task: &Task| task.reference.as_ref().is_some_and(|one| one.file == part);
                part == self.tables()
                    || self.tasks().iter().any(|task| task.tail == part || unsplit && reference(task))
                    || self.vectors().iter().any(|vector| {
                        vector.packet == part
                            || vector.symbols == part
                            || vector.outputs.iter().any(|output| output.file == part)
                    })
            }
        }
    }

    /// The parts that are networks.
    fn networks(&self) -> impl Iterator<Item = &str> {
        let tasks = self.tasks().iter().flat_map(|task| {
            [Some(&task.tail), task.reference.as_ref().map(|reference| &reference.file)].into_iter().flatten()
        });
        let local = self.local().into_iter().flat_map(|local| {
            [Some(&local.file), local.reference.as_ref().map(|reference| &reference.file)]
                .into_iter()
                .flatten()
        });
        [&self.head().file].into_iter().chain(tasks).chain(local).map(String::as_str)
    }

    /// Compares the size of a vector's part with the geometry that the manifest gives it.
    fn check_size(&self, part: &str, bytes: &[u8]) -> Result<(), Error> {
        for vector in self.vectors() {
            let geometry = &self.geometries()[vector.geometry];
            let (rows, columns) = geometry.latent(self.head().stride);
            if vector.symbols == part {
                expect(part, "length in bytes", bytes.len(), self.head().channels * rows * columns)?;
            }
            if vector.image == part {
                expect_png(part, bytes, geometry)?;
            }
        }
        if let Some(local) = self.local()
            && local.vectors.iter().any(|vector| vector.image == part)
        {
            expect_png(part, bytes, &local.geometry)?;
        }
        Ok(())
    }

    /// Compares the sizes of the vectors' outputs with the number of classes.
    fn check_outputs(&self, labels: &[Vec<Label>]) -> Result<(), Error> {
        for vector in self.vectors() {
            let geometry = &self.geometries()[vector.geometry];
            for output in &vector.outputs {
                let values = match self.tasks()[output.task].kind {
                    TaskKind::Classify => 1,
                    TaskKind::Segment => (geometry.height / output.stride) * (geometry.width / output.stride),
                };
                let Some(length) = self.present.get(&output.file) else { continue };
                let wanted = 4 * values as u64 * labels[output.task].len() as u64;
                expect(&output.file, "length in bytes", *length, wanted)?;
            }
        }
        if let Some(local) = self.local() {
            for vector in &local.vectors {
                let Some(length) = self.present.get(&vector.logits) else { continue };
                expect(&vector.logits, "length in bytes", *length, 4 * labels[local.task].len() as u64)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (held, digest) = (self.held.keys(), self.digest);
        f.debug_struct("Bundle")
            .field("dir", &self.dir)
            .field("digest", &digest)
            .field("held", &held)
            .finish()
    }
}

/// Refuses a network whose weights are not all in its file, since no digest covers other files.
fn check_network(part: &str, bytes: &[u8]) -> Result<(), Error> {
    match external_tensor(bytes) {
        Ok(None) => Ok(()),
        Ok(Some(ExternalTensor { tensor, file })) => {
            Err(Error::External { part: part.to_owned(), tensor, file })
        }
        Err(_) => Err(Error::Network { part: part.to_owned() }),
    }
}

fn expect<T: PartialEq + ToString>(part: &str, what: &'static str, found: T, wanted: T) -> Result<(), Error> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::Shape { part: part.to_owned(), what, found: found.to_string(), expected: wanted.to_string() })
}

fn expect_png(part: &str, bytes: &[u8], geometry: &Geometry) -> Result<(), Error> {
    let text = |size: Option<(usize, usize)>| match size {
        Some((width, height)) => format!("a PNG of {width}×{height}"),
        None => "no PNG".to_owned(),
    };
    expect(part, "the image", text(png_size(bytes)), text(Some((geometry.width, geometry.height))))
}

/// Reads width and height from the first chunk of a PNG.
fn png_size(bytes: &[u8]) -> Option<(usize, usize)> {
    let rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")?;
    let (width, rest) = rest.split_first_chunk::<4>()?;
    let (height, _) = rest.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*width) as usize, u32::from_be_bytes(*height) as usize))
}

/// The size of a part that is not read; `None` where there is none.
fn length(dir: &Path, part: &str) -> Option<u64> {
    fs::metadata(dir.join(part)).ok().filter(fs::Metadata::is_file).map(|file| file.len())
}

/// Reads a part and compares its digest.
fn read_digested(dir: &Path, part: &str, expected: Digest) -> Result<Vec<u8>, Error> {
    let bytes = read_file(dir, part, PART_MAX)?;
    let found = Digest::of(&bytes);
    match found == expected {
        true => Ok(bytes),
        false => Err(Error::Tampered { part: part.to_owned(), expected, found }),
    }
}

/// Reads a file of at most `limit` bytes. A link is followed; what it leads to must be a regular file.
pub(crate) fn read_file(dir: &Path, part: &str, limit: u64) -> Result<Vec<u8>, Error> {
    let path = dir.join(part);
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { dir: dir.to_owned(), part: part.to_owned() },
        _ => Error::Read { path: path.clone(), source },
    };
    let regular = |meta: fs::Metadata| match meta.is_file() {
        true => Ok(meta.len()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    };
    let too_long = |length: u64| Error::Shape {
        part: part.to_owned(),
        what: "length in bytes",
        found: length.to_string(),
        expected: format!("at most {limit}"),
    };
    // Before it is opened, because opening a FIFO waits for a writer.
    fs::metadata(&path).and_then(regular).map_err(fail)?;
    let file = fs::File::open(&path).map_err(fail)?;
    let length = file.metadata().and_then(regular).map_err(fail)?;
    if length > limit {
        return Err(too_long(length));
    }
    let mut bytes = Vec::new();
    // The limit was tested, so the length fits.
    bytes.try_reserve_exact(length as usize).map_err(|error| fail(error.into()))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    match bytes.len() as u64 <= limit {
        true => Ok(bytes),
        false => Err(too_long(bytes.len() as u64)),
    }
}
