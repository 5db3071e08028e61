//! The table `[local]` of a manifest (BUNDLE.md, section 9).

use serde::Deserialize;

use super::{
    entries::{RawGeometry, RawReference},
    rules::{Parts, VECTORS_MAX, each, rule, unique},
};
use crate::{Error, LocalSpec, LocalVector, Task, TaskKind};

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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLocalVector {
    name: String,
    image: String,
    logits: String,
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
        })
    }
}
