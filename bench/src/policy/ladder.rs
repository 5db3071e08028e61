//! What the rate levels of a bundle cost and are worth.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use narrows_models::{Bundle, LevelValues, Parts, Task};
use narrows_policy::{CutPoint, Ladder, Rung};

/// The task of this name of the bundle in `folder`, with what its levels are worth.
pub(super) fn task(folder: &Path, name: &str) -> Result<Task> {
    let bundle = Bundle::open(folder, Parts::Head)?;
    let task = bundle.tasks().iter().find(|task| task.name == name).cloned();
    let task = task.with_context(|| format!("the bundle has no task {name:?}"))?;
    ensure!(!task.ladder.is_empty(), "the bundle does not say what its levels are worth for {name}");
    Ok(task)
}

/// The levels as the bundle states them.
pub(super) fn stated(task: &Task) -> Result<Ladder> {
    with_sizes(task, |level| task.ladder[level].bytes.clone())
}

/// The levels with the values that the bundle states and other sizes: those of each cut point, by level.
pub(super) fn with_sizes(task: &Task, bytes: impl Fn(usize) -> Vec<u32>) -> Result<Ladder> {
    let rung = |(level, stated): (usize, &LevelValues)| {
        let cuts = bytes(level).into_iter().zip(&stated.value);
        let cuts = cuts.map(|(bytes, &value)| CutPoint { bytes, value });
        Ok(Rung::new(u8::try_from(level)?, cuts.collect())?)
    };
    Ok(Ladder::new(task.ladder.iter().enumerate().map(rung).collect::<Result<_>>()?)?)
}
