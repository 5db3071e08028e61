//! The table `[local]` of a manifest (BUNDLE.md, sections 9 and 10).

use serde::Deserialize;

use super::{
    entries::{RawGeometry, RawReference},
    rules::{Parts, VECTORS_MAX, each, rule, unique},
};
use crate::{Error, ExitPoint, ExitSpec, LocalSpec, LocalVector, Task, TaskKind};

/// Most thresholds of a curve.
const CURVE_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLocal {
    file: String,
    input: String,
    output: String,
    task: String,
    backbone: String,
    width: usize,
    height: usize,
    short_side: Option<usize>,
    filter: String,
    macs: u64,
    parameters: u64,
    reference: Option<RawReference>,
    #[serde(default)]
    vector: Vec<RawLocalVector>,
    exit: Option<RawExit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLocalVector {
    name: String,
    image: String,
    logits: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExit {
    threshold: f64,
    photos: u32,
    judge: String,
    curve: Vec<RawExitPoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExitPoint {
    threshold: f64,
    kept: f64,
    agreement: f64,
    bytes: f64,
}

impl RawLocal {
    pub(super) fn check(self, parts: &Parts<'_>, tasks: &[Task]) -> Result<LocalSpec, Error> {
        let task = tasks.iter().position(|task| task.name == self.task);
        let task = task.ok_or_else(|| Error::field("local.task", "no such task"))?;
        rule(tasks[task].kind == TaskKind::Classify, "local.task", "a task of kind classify")?;
        rule(self.vector.len() <= VECTORS_MAX, "local.vector", "at most 256 entries")?;
        let geometry = RawGeometry {
            name: "local".to_owned(),
            width: self.width,
            height: self.height,
            short_side: self.short_side,
            filter: self.filter,
        };
        let vectors = each("local.vector", self.vector, |at, raw: RawLocalVector| {
            Ok(LocalVector {
                image: parts.part(&format!("{at}.image"), raw.image)?,
                logits: parts.part(&format!("{at}.logits"), raw.logits)?,
                name: raw.name,
            })
        })?;
        unique("local.vector", vectors.iter().map(|vector| &vector.name))?;
        Ok(LocalSpec {
            file: parts.part("local.file", self.file)?,
            input: self.input,
            output: self.output,
            task,
            backbone: self.backbone,
            geometry: geometry.check("local", 1)?,
            macs: self.macs,
            parameters: self.parameters,
            reference: self.reference.map(|raw| raw.check("local.reference", parts)).transpose()?,
            vectors,
            exit: self.exit.map(RawExit::check).transpose()?,
        })
    }
}

impl RawExit {
    fn check(self) -> Result<ExitSpec, Error> {
        let field = |name: &str| format!("local.exit.{name}");
        rule(self.photos > 0, field("photos"), "at least 1")?;
        rule((2..=CURVE_MAX).contains(&self.curve.len()), field("curve"), "2 to 256 entries")?;
        let RawExit { threshold, photos, judge, curve } = self;
        let curve = each("local.exit.curve", curve, |at, raw: RawExitPoint| raw.check(at))?;
        for pair in curve.windows(2) {
            rule(pair[0].threshold < pair[1].threshold, field("curve"), "thresholds must rise")?;
            rule(pair[0].kept >= pair[1].kept, field("curve"), "a higher threshold cannot keep more photos")?;
            rule(
                pair[0].bytes <= pair[1].bytes,
                field("curve"),
                "a higher threshold cannot cost fewer bytes",
            )?;
        }
        let known = curve.iter().any(|point| point.threshold == threshold);
        rule(known, field("threshold"), "one of the thresholds of local.exit.curve")?;
        Ok(ExitSpec { threshold, photos, judge, curve })
    }
}

impl RawExitPoint {
    fn check(self, at: &str) -> Result<ExitPoint, Error> {
        let shares = [("threshold", self.threshold), ("kept", self.kept), ("agreement", self.agreement)];
        for (name, share) in shares {
            rule((0.0..=1.0).contains(&share), format!("{at}.{name}"), "a number from 0 to 1")?;
        }
        rule(self.bytes >= 0.0 && self.bytes.is_finite(), format!("{at}.bytes"), "a number of bytes")?;
        let RawExitPoint { threshold, kept, agreement, bytes } = self;
        Ok(ExitPoint { threshold, kept, agreement, bytes })
    }
}
