//! The manifest of a bundle, manifest.toml: raw TOML to a checked manifest (BUNDLE.md, section 2).

mod entries;
mod local;
mod rules;

use std::collections::BTreeMap;

use entries::{RawCodec, RawGeometry, RawHead, RawLevel, RawTask, RawVector};
use rules::{NAME, Parts, VECTORS_MAX, each, is_name, is_part, rule, unique};
use serde::Deserialize;

use crate::{Digest, Error, Geometry, HeadSpec, Label, Level, LocalSpec, Task, Vector};

/// The newest format number that this build reads.
pub const FORMAT: u32 = 3;
/// The oldest format number that this build reads.
pub const OLDEST_FORMAT: u32 = 2;

/// The first format with an early exit and ladders.
const MEASURED_FORMAT: i64 = 3;
/// The rule for these, as errors state it.
const FROM_FORMAT_3: &str = "only bundles from format 3 on have it";

/// Most geometries, levels and tasks: their indices are sent in four bits or more.
const LIST_MAX: usize = 16;

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
    /// Parses and checks the text of a manifest. Its tasks have no labels yet: those are parts of the bundle.
    ///
    /// # Errors
    /// [`Error::Syntax`], [`Error::Version`], or [`Error::Field`] for the first field that breaks a rule.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let syntax = |e: toml::de::Error| Error::Syntax { path: "manifest.toml".into(), source: e.into() };
        let found = toml::from_str::<Version>(text).map_err(syntax)?.format;
        if !(i64::from(OLDEST_FORMAT)..=i64::from(FORMAT)).contains(&found) {
            return Err(Error::Version { found, oldest: OLDEST_FORMAT, newest: FORMAT });
        }
        toml::from_str::<Raw>(text).map_err(syntax)?.check()
    }

    /// The bundle's name: 1 to 64 characters out of a-z 0-9 . _ -
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bundle's own version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Description in one line.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Name of the network that was split.
    #[must_use]
    pub fn backbone(&self) -> &str {
        &self.backbone
    }

    /// Licence of the weights.
    #[must_use]
    pub fn licence(&self) -> &str {
        &self.licence
    }

    /// Index of the level to use when no other is requested.
    #[must_use]
    pub fn default_level(&self) -> usize {
        self.default_level
    }

    /// The network on the device.
    #[must_use]
    pub fn head(&self) -> &HeadSpec {
        &self.head
    }

    /// The part that holds the probability tables.
    #[must_use]
    pub fn tables(&self) -> &str {
        &self.tables
    }

    /// The input geometries.
    #[must_use]
    pub fn geometries(&self) -> &[Geometry] {
        &self.geometries
    }

    /// The rate levels, finest first.
    #[must_use]
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The tasks.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The test vectors.
    #[must_use]
    pub fn vectors(&self) -> &[Vector] {
        &self.vectors
    }

    /// The network that runs on the device alone, if the bundle has one.
    #[must_use]
    pub fn local(&self) -> Option<&LocalSpec> {
        self.local.as_ref()
    }

    /// Every part with its digest, sorted by name.
    #[must_use]
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
    format: i64,
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

impl Raw {
    fn check(self) -> Result<Manifest, Error> {
        rule(is_name(&self.name), "name", NAME)?;
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
        let tasks = each("task", self.task, |at, raw| raw.check(at, &parts, &geometries, levels.len()))?;
        unique("task", tasks.iter().map(|task| &task.name))?;
        let newer = self.format >= MEASURED_FORMAT;
        let ladder = tasks.iter().position(|task| !task.ladder.is_empty());
        rule(newer || ladder.is_none(), format!("task[{}].ladder", ladder.unwrap_or(0)), FROM_FORMAT_3)?;
        let mut groups = tasks.iter().flat_map(|task| &task.ladder).map(|level| level.bytes.len());
        let first = groups.next();
        rule(
            groups.all(|count| Some(count) == first),
            "task.ladder",
            "as many groups at every level of every task",
        )?;
        let vectors =
            each("vector", self.vector, |at, raw| raw.check(at, &parts, &geometries, levels.len(), &tasks))?;
        let local = self.local.map(|raw| raw.check(&parts, &tasks)).transpose()?;
        let has_exit = local.as_ref().is_some_and(|local| local.exit.is_some());
        rule(newer || !has_exit, "local.exit", FROM_FORMAT_3)?;
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

#[cfg(test)]
mod tests;
