//! A bundle's folder, opened and checked.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    Digest, Error, Geometry, HeadSpec, Label, Level, LocalSpec, Manifest, Task, TaskKind, Vector, labels,
};

/// Largest manifest in bytes.
const MANIFEST_MAX: u64 = 1 << 20;

/// Which parts must be present: a device has no use for the server's networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// The head, tables and labels; tails, references, vectors and the local network may be absent but are checked
    /// if present.
    Head,
    /// Every part that the manifest lists.
    All,
}

/// A checked, read-only bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    digest: Digest,
    manifest: Manifest,
}

impl Bundle {
    /// Opens the bundle in `dir`: parses the manifest, compares the digest of every part that is present, demands
    /// those in `parts`, reads the labels and compares sizes that must fit together.
    ///
    /// # Errors
    /// One [`Error`] for the first thing that is wrong, naming the part.
    pub fn open(dir: impl AsRef<Path>, parts: Parts) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let text = read(dir, "manifest.toml", Some(MANIFEST_MAX))?;
        let text = String::from_utf8(text)
            .map_err(|e| Error::Syntax { path: dir.join("manifest.toml"), message: e.to_string() })?;
        let manifest = Manifest::parse(&text).map_err(|e| match e {
            Error::Syntax { message, .. } => Error::Syntax { path: dir.join("manifest.toml"), message },
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
            bundle.measure(part, &bytes)?;
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
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its identity: the SHA-256 of the manifest, which holds the SHA-256 of every part.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bundle's name.
    pub fn name(&self) -> &str {
        self.manifest.name()
    }

    /// The whole manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The network on the device.
    pub fn head(&self) -> &HeadSpec {
        self.manifest.head()
    }

    /// The part that holds the probability tables.
    pub fn tables(&self) -> &str {
        self.manifest.tables()
    }

    /// The input geometries; a packet carries the index.
    pub fn geometries(&self) -> &[Geometry] {
        self.manifest.geometries()
    }

    /// The rate levels, finest first; a packet carries the index.
    pub fn levels(&self) -> &[Level] {
        self.manifest.levels()
    }

    /// The level to use when nobody asks for another.
    pub fn default_level(&self) -> usize {
        self.manifest.default_level()
    }

    /// The tasks, by index, with their labels.
    pub fn tasks(&self) -> &[Task] {
        self.manifest.tasks()
    }

    /// The task of this name and its index.
    pub fn task(&self, name: &str) -> Option<(usize, &Task)> {
        self.tasks().iter().enumerate().find(|(_, task)| task.name == name)
    }

    /// The test vectors.
    pub fn vectors(&self) -> &[Vector] {
        self.manifest.vectors()
    }

    /// The device's own network, if the bundle brings one.
    pub fn local(&self) -> Option<&LocalSpec> {
        self.manifest.local()
    }

    /// Where a part lies.
    pub fn path(&self, part: &str) -> PathBuf {
        self.dir.join(part)
    }

    /// The bytes of a part.
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

    /// Compares the size of the bytes of `part` with what the manifest says of it.
    fn measure(&self, part: &str, bytes: &[u8]) -> Result<(), Error> {
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

    /// Compares the vectors' outputs with the number of classes.
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

/// Width and height from a PNG's first chunk.
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
