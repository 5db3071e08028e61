//! manifest.toml: raw TOML to a checked manifest (BUNDLE.md, section 2).

mod local;

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    Digest, Error, Filter, Fit, Geometry, HeadSpec, Label, Level, LocalSpec, Reference, Task, TaskKind,
    Vector, VectorOutput,
};

/// The format number this build reads.
pub const FORMAT: u32 = 2;

/// Most geometries, levels and tasks: their indices travel in four bits or more.
const LIST_MAX: usize = 16;
/// Most vectors.
const VECTORS_MAX: usize = 256;
/// Longest side of a geometry in pixels.
const SIDE_MAX: usize = 8192;
/// Most channels of a latent.
const CHANNELS_MAX: usize = 1024;

/// A checked manifest: every index is in range, every part has a digest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    name: String,
    version: String,
    description: String,
    backbone: String,
    licence: String,
    default_level: usize,
    head: HeadSpec,
    tables: String,
    geometries: Vec<Geometry>,
    levels: Vec<Level>,
    tasks: Vec<Task>,
    vectors: Vec<Vector>,
    local: Option<LocalSpec>,
    digests: Vec<(String, Digest)>,
}

impl Manifest {
    /// Parses and checks the text of a manifest. The tasks have no labels yet: those are a part of their own.
    ///
    /// # Errors
    /// [`Error::Syntax`], [`Error::Version`] or [`Error::Field`] naming the field.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let syntax =
            |e: toml::de::Error| Error::Syntax { path: "manifest.toml".into(), message: e.to_string() };
        let found = toml::from_str::<Version>(text).map_err(syntax)?.format;
        if found != i64::from(FORMAT) {
            return Err(Error::Version { found, supported: FORMAT });
        }
        toml::from_str::<Raw>(text).map_err(syntax)?.check()
    }

    /// The bundle's name: 1 to 64 characters out of a-z 0-9 . _ -
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bundle's own version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What it is, in a line.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The network that was cut.
    pub fn backbone(&self) -> &str {
        &self.backbone
    }

    /// Licence of the weights.
    pub fn licence(&self) -> &str {
        &self.licence
    }

    /// Index of the level to use when nobody asks for another.
    pub fn default_level(&self) -> usize {
        self.default_level
    }

    /// The network on the device.
    pub fn head(&self) -> &HeadSpec {
        &self.head
    }

    /// The part that holds the probability tables.
    pub fn tables(&self) -> &str {
        &self.tables
    }

    /// The input geometries.
    pub fn geometries(&self) -> &[Geometry] {
        &self.geometries
    }

    /// The rate levels, finest first.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The tasks.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The test vectors.
    pub fn vectors(&self) -> &[Vector] {
        &self.vectors
    }

    /// The device's own network, if the bundle brings one.
    pub fn local(&self) -> Option<&LocalSpec> {
        self.local.as_ref()
    }

    /// Every part with its digest, by name.
    pub fn digests(&self) -> &[(String, Digest)] {
        &self.digests
    }

    pub(crate) fn set_labels(&mut self, labels: Vec<Vec<Label>>) {
        for (task, labels) in self.tasks.iter_mut().zip(labels) {
            task.labels = labels;
        }
    }
}

#[derive(Deserialize)]
struct Version {
    format: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(rename = "format")]
    _format: i64,
    name: String,
    version: String,
    description: String,
    backbone: String,
    licence: String,
    default_level: usize,
    head: RawHead,
    codec: RawCodec,
    geometry: Vec<RawGeometry>,
    level: Vec<RawLevel>,
    task: Vec<RawTask>,
    #[serde(default)]
    vector: Vec<RawVector>,
    local: Option<local::RawLocal>,
    digests: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHead {
    file: String,
    input: String,
    output: String,
    channels: usize,
    stride: usize,
    macs: u64,
    parameters: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCodec {
    tables: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGeometry {
    name: String,
    width: usize,
    height: usize,
    short_side: Option<usize>,
    filter: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLevel {
    gain: f32,
    step: f32,
    bytes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTask {
    name: String,
    kind: String,
    tail: String,
    latent: String,
    step: String,
    output: String,
    geometry: String,
    labels: String,
    reference: Option<RawReference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReference {
    file: String,
    input: String,
    output: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVector {
    name: String,
    geometry: String,
    level: usize,
    image: String,
    symbols: String,
    packet: String,
    #[serde(default)]
    output: Vec<RawOutput>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutput {
    task: String,
    file: String,
    stride: usize,
}

impl Raw {
    fn check(self) -> Result<Manifest, Error> {
        rule(is_name(&self.name), "name", "1 to 64 characters out of a-z 0-9 . _ -")?;
        for (field, list) in
            [("geometry", self.geometry.len()), ("level", self.level.len()), ("task", self.task.len())]
        {
            rule((1..=LIST_MAX).contains(&list), field, "1 to 16 entries")?;
        }
        rule(self.vector.len() <= VECTORS_MAX, "vector", "at most 256 entries")?;
        rule(self.default_level < self.level.len(), "default_level", "no such level")?;
        let digests = digests(self.digests)?;
        let parts = Parts(&digests);
        let head = self.head.check(&parts)?;
        let geometries = each("geometry", self.geometry, |at, raw| raw.check(at, head.stride))?;
        unique("geometry", geometries.iter().map(|geometry| &geometry.name))?;
        let levels = each("level", self.level, |at, raw| raw.check(at))?;
        rule(
            levels.is_sorted_by(|finer, coarser| finer.gain >= coarser.gain),
            "level",
            "gains must fall from the first level on",
        )?;
        let tasks = each("task", self.task, |at, raw| raw.check(at, &parts, &geometries))?;
        unique("task", tasks.iter().map(|task| &task.name))?;
        let vectors =
            each("vector", self.vector, |at, raw| raw.check(at, &parts, &geometries, levels.len(), &tasks))?;
        let local = self.local.map(|raw| raw.check(&parts, &tasks)).transpose()?;
        let tables = parts.part("codec.tables", self.codec.tables)?;
        Ok(Manifest {
            name: self.name,
            version: self.version,
            description: self.description,
            backbone: self.backbone,
            licence: self.licence,
            default_level: self.default_level,
            head,
            tables,
            geometries,
            levels,
            tasks,
            vectors,
            local,
            digests,
        })
    }
}

impl RawHead {
    fn check(self, parts: &Parts<'_>) -> Result<HeadSpec, Error> {
        rule((1..=CHANNELS_MAX).contains(&self.channels), "head.channels", "1 to 1024")?;
        rule((1..=64).contains(&self.stride), "head.stride", "1 to 64")?;
        Ok(HeadSpec {
            file: parts.part("head.file", self.file)?,
            input: self.input,
            output: self.output,
            channels: self.channels,
            stride: self.stride,
            macs: self.macs,
            parameters: self.parameters,
        })
    }
}

impl RawGeometry {
    fn check(self, at: &str, stride: usize) -> Result<Geometry, Error> {
        rule(is_name(&self.name), format!("{at}.name"), "1 to 64 characters out of a-z 0-9 . _ -")?;
        for (field, side) in [("width", self.width), ("height", self.height)] {
            let fits = (1..=SIDE_MAX).contains(&side) && side.is_multiple_of(stride);
            rule(fits, format!("{at}.{field}"), "a multiple of head.stride, at most 8192")?;
        }
        let fit = match self.short_side {
            Some(short_side) => {
                let fits = (self.width.max(self.height)..=SIDE_MAX).contains(&short_side);
                rule(fits, format!("{at}.short_side"), "at least the longer of width and height")?;
                Fit::Crop { short_side }
            }
            None => Fit::Stretch,
        };
        let filter = match self.filter.as_str() {
            "bicubic" => Filter::Bicubic,
            "bilinear" => Filter::Bilinear,
            "box" => Filter::Box,
            _ => return Err(Error::field(format!("{at}.filter"), "bicubic, bilinear or box")),
        };
        Ok(Geometry { name: self.name, width: self.width, height: self.height, fit, filter })
    }
}

impl RawLevel {
    fn check(self, at: &str) -> Result<Level, Error> {
        rule(self.gain > 0.0 && self.gain <= 1.0, format!("{at}.gain"), "above 0, at most 1")?;
        rule(self.step > 0.0 && self.step.is_finite(), format!("{at}.step"), "above 0 and finite")?;
        Ok(Level { gain: self.gain, step: self.step, bytes: self.bytes })
    }
}

impl RawTask {
    fn check(self, at: &str, parts: &Parts<'_>, geometries: &[Geometry]) -> Result<Task, Error> {
        rule(is_name(&self.name), format!("{at}.name"), "1 to 64 characters out of a-z 0-9 . _ -")?;
        let kind = match self.kind.as_str() {
            "classify" => TaskKind::Classify,
            "segment" => TaskKind::Segment,
            _ => return Err(Error::field(format!("{at}.kind"), "classify or segment")),
        };
        let reference = self.reference.map(|raw| raw.check(&format!("{at}.reference"), parts));
        Ok(Task {
            kind,
            tail: parts.part(&format!("{at}.tail"), self.tail)?,
            latent: self.latent,
            step: self.step,
            output: self.output,
            geometry: geometry(at, geometries, &self.geometry)?,
            labels_file: parts.part(&format!("{at}.labels"), self.labels)?,
            labels: Vec::new(),
            reference: reference.transpose()?,
            name: self.name,
        })
    }
}

impl RawReference {
    fn check(self, at: &str, parts: &Parts<'_>) -> Result<Reference, Error> {
        let file = parts.part(&format!("{at}.file"), self.file)?;
        Ok(Reference { file, input: self.input, output: self.output })
    }
}

impl RawVector {
    fn check(
        self,
        at: &str,
        parts: &Parts<'_>,
        geometries: &[Geometry],
        levels: usize,
        tasks: &[Task],
    ) -> Result<Vector, Error> {
        rule(self.level < levels, format!("{at}.level"), "no such level")?;
        let geometry = geometry(at, geometries, &self.geometry)?;
        let size = geometries[geometry].width.min(geometries[geometry].height);
        let outputs = each(&format!("{at}.output"), self.output, |at, raw: RawOutput| {
            let task = tasks.iter().position(|task| task.name == raw.task);
            let task = task.ok_or_else(|| Error::field(format!("{at}.task"), "no such task"))?;
            rule((1..=size).contains(&raw.stride), format!("{at}.stride"), "1 to the geometry's size")?;
            Ok(VectorOutput { task, file: parts.part(&format!("{at}.file"), raw.file)?, stride: raw.stride })
        })?;
        Ok(Vector {
            name: self.name,
            geometry,
            level: self.level,
            image: parts.part(&format!("{at}.image"), self.image)?,
            symbols: parts.part(&format!("{at}.symbols"), self.symbols)?,
            packet: parts.part(&format!("{at}.packet"), self.packet)?,
            outputs,
        })
    }
}

/// The parts that have a digest.
struct Parts<'a>(&'a [(String, Digest)]);

impl Parts<'_> {
    fn part(&self, field: &str, part: String) -> Result<String, Error> {
        let known = self.0.iter().any(|(name, _)| *name == part);
        rule(known, field, format!("`{part}` has no entry in [digests]"))?;
        Ok(part)
    }
}

fn digests(raw: BTreeMap<String, String>) -> Result<Vec<(String, Digest)>, Error> {
    raw.into_iter()
        .map(|(part, text)| {
            let field = || format!("digests.{part:?}");
            rule(is_part(&part), field(), "a relative path without `..`, other than manifest.toml")?;
            let digest =
                text.parse().map_err(|_| Error::field(field(), "64 lower-case hexadecimal digits"))?;
            Ok((part, digest))
        })
        .collect()
}

fn geometry(at: &str, geometries: &[Geometry], name: &str) -> Result<usize, Error> {
    let index = geometries.iter().position(|geometry| geometry.name == name);
    index.ok_or_else(|| Error::field(format!("{at}.geometry"), format!("no geometry is called {name:?}")))
}

/// Checks every entry of a list; `at` is `name[index]`.
fn each<R, T>(
    name: &str,
    raw: Vec<R>,
    mut check: impl FnMut(&str, R) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    raw.into_iter().enumerate().map(|(index, raw)| check(&format!("{name}[{index}]"), raw)).collect()
}

fn unique<'a>(field: &str, names: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    let mut names: Vec<_> = names.collect();
    names.sort();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    twice.map_or(Ok(()), |pair| Err(Error::field(field, format!("{:?} stands twice", pair[0]))))
}

fn rule(holds: bool, field: impl Into<String>, reason: impl Into<String>) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::field(field, reason)) }
}

fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(good)
}

fn is_part(part: &str) -> bool {
    let good = |piece: &str| !piece.is_empty() && piece != "." && piece != "..";
    part != "manifest.toml"
        && part.len() <= 255
        && !part.contains(['\\', ':', '\0'])
        && part.split('/').all(good)
}

#[cfg(test)]
mod tests;
