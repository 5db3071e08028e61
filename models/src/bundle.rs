//! The folder of a bundle, opened and checked.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    Digest, Error, Geometry, HeadSpec, Label, Level, LocalSpec, Manifest, Task, TaskKind, Vector, labels,
};

/// Largest manifest in bytes.
const MANIFEST_MAX: u64 = 1 << 20;

/// The parts that must be present: a device has no use for the networks of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// The head, the tables and the labels. Tails, references, vectors and the local network may be absent and are checked
    /// if they are present.
    Head,
    /// Every part that the manifest lists.
    All,
}

/// A bundle that was checked; it is only read.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    digest: Digest,
    manifest: Manifest,
}

impl Bundle {
    /// Opens the bundle in `dir`: parses the manifest, compares the digest of every part that is present, requires those
    /// in `parts`, reads the labels and compares the sizes that must agree.
    ///
    /// # Errors
    /// The first [`Error`] that is found; it names the part.
    pub fn open(dir: impl AsRef<Path>, parts: Parts) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let text = read(dir, "manifest.toml", Some(MANIFEST_MAX))?;
        let text = String::from_utf8(text)
            .map_err(|source| Error::Encoding { path: dir.join("manifest.toml"), source })?;
        let manifest = Manifest::parse(&text).map_err(|e| match e {
            Error::Syntax { source, .. } => Error::Syntax { path: dir.join("manifest.toml"), source },
            other => other,
        })?;
        let digest = Digest::of(text.as_bytes());
        let mut bundle = Bundle { dir: dir.to_owned(), digest, manifest };
        let mut labels = vec![Vec::new(); bundle.tasks().len()];
        for (part, expected) in bundle.manifest.digests() {
            let bytes = match read(dir, part, None) {
                Err(Error::Missing { .. }) if parts == Parts::Head && !bundle.head_needs(part) => continue,
                other => other?,
            };
            let found = Digest::of(&bytes);
            if found != *expected {
                return Err(Error::Tampered { part: part.clone(), expected: *expected, found });
            }
            bundle.check_size(part, &bytes)?;
            for (task, labels) in bundle.tasks().iter().zip(&mut labels) {
                if task.labels_file == *part {
                    *labels = labels::parse(part, &bytes)?;
                }
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

    /// Path of a part.
    #[must_use]
    pub fn path(&self, part: &str) -> PathBuf {
        self.dir.join(part)
    }

    /// Reads the bytes of a part.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Read`].
    pub fn read(&self, part: &str) -> Result<Vec<u8>, Error> {
        read(&self.dir, part, None)
    }

    fn head_needs(&self, part: &str) -> bool {
        part == self.head().file
            || part == self.tables()
            || self.tasks().iter().any(|task| task.labels_file == part)
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
                let Ok(meta) = fs::metadata(self.path(&output.file)) else { continue };
                let wanted = 4 * values as u64 * labels[output.task].len() as u64;
                expect(&output.file, "length in bytes", meta.len(), wanted)?;
            }
        }
        if let Some(local) = self.local() {
            for vector in &local.vectors {
                let Ok(meta) = fs::metadata(self.path(&vector.logits)) else { continue };
                expect(&vector.logits, "length in bytes", meta.len(), 4 * labels[local.task].len() as u64)?;
            }
        }
        Ok(())
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

fn read(dir: &Path, part: &str, limit: Option<u64>) -> Result<Vec<u8>, Error> {
    let path = dir.join(part);
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { dir: dir.to_owned(), part: part.to_owned() },
        _ => Error::Read { path: path.clone(), source },
    };
    if let Some(limit) = limit {
        let len = fs::metadata(&path).map_err(fail)?.len();
        if len > limit {
            return Err(Error::Shape {
                part: part.to_owned(),
                what: "length in bytes",
                found: len.to_string(),
                expected: format!("at most {limit}"),
            });
        }
    }
    fs::read(&path).map_err(fail)
}
