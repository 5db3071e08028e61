//! The tables of a manifest: raw TOML to the checked types of `spec.rs`.

use serde::Deserialize;

use super::rules::{NAME, Parts, each, is_name, rule};
use crate::{
    Error, Filter, Fit, Geometry, HeadSpec, Level, LevelValues, Reference, Task, TaskKind, Vector,
    VectorOutput,
};

/// Longest side of a geometry in pixels.
const SIDE_MAX: usize = 8192;
/// Most channels of a latent.
const CHANNELS_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHead {
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
pub(super) struct RawCodec {
    pub(super) tables: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGeometry {
    pub(super) name: String,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) short_side: Option<usize>,
    pub(super) filter: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLevel {
    gain: f32,
    step: f32,
    bytes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTask {
    name: String,
    kind: String,
    tail: String,
    latent: String,
    step: String,
    output: String,
    geometry: String,
    labels: String,
    reference: Option<RawReference>,
    #[serde(default)]
    ladder: Vec<RawLevelValues>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLevelValues {
    bytes: Vec<u32>,
    value: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReference {
    file: String,
    input: String,
    output: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVector {
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
pub(super) struct RawOutput {
    task: String,
    file: String,
    stride: usize,
}

impl RawHead {
    pub(super) fn check(self, parts: &Parts<'_>) -> Result<HeadSpec, Error> {
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
    pub(super) fn check(self, at: &str, stride: usize) -> Result<Geometry, Error> {
        rule(is_name(&self.name), format!("{at}.name"), NAME)?;
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
    pub(super) fn check(self, at: &str) -> Result<Level, Error> {
        rule(self.gain > 0.0 && self.gain <= 1.0, format!("{at}.gain"), "above 0, at most 1")?;
        rule(self.step > 0.0 && self.step.is_finite(), format!("{at}.step"), "above 0 and finite")?;
        Ok(Level { gain: self.gain, step: self.step, bytes: self.bytes })
    }
}

impl RawTask {
    pub(super) fn check(
        self,
        at: &str,
        parts: &Parts<'_>,
        geometries: &[Geometry],
        levels: usize,
    ) -> Result<Task, Error> {
        rule(is_name(&self.name), format!("{at}.name"), NAME)?;
        let kind = match self.kind.as_str() {
            "classify" => TaskKind::Classify,
            "segment" => TaskKind::Segment,
            _ => return Err(Error::field(format!("{at}.kind"), "classify or segment")),
        };
        let measured = self.ladder.is_empty() || self.ladder.len() == levels;
        rule(measured, format!("{at}.ladder"), "one entry for each level, or none")?;
        let ladder = each(&format!("{at}.ladder"), self.ladder, |at, raw| raw.check(at))?;
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
            ladder,
            name: self.name,
        })
    }
}

impl RawLevelValues {
    fn check(self, at: &str) -> Result<LevelValues, Error> {
        let ascending = self.bytes.is_sorted_by(|before, after| before < after);
        rule(
            self.bytes.first().is_some_and(|&first| first > 0) && ascending,
            format!("{at}.bytes"),
            "must ascend from 1",
        )?;
        let rising = self.value.is_sorted() && self.value.iter().all(|value| (0.0..=1.0).contains(value));
        rule(rising, format!("{at}.value"), "0 to 1, not descending")?;
        rule(self.bytes.len() == self.value.len(), format!("{at}.value"), "as many as bytes")?;
        Ok(LevelValues { bytes: self.bytes, value: self.value })
    }
}

impl RawReference {
    pub(super) fn check(self, at: &str, parts: &Parts<'_>) -> Result<Reference, Error> {
        let file = parts.part(&format!("{at}.file"), self.file)?;
        Ok(Reference { file, input: self.input, output: self.output })
    }
}

impl RawVector {
    pub(super) fn check(
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

/// Index of the geometry called `name`.
fn geometry(at: &str, geometries: &[Geometry], name: &str) -> Result<usize, Error> {
    let index = geometries.iter().position(|geometry| geometry.name == name);
    index.ok_or_else(|| Error::field(format!("{at}.geometry"), format!("no geometry is called {name:?}")))
}
