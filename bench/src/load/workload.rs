//! The requests of simulated heads: packets that a real head made, and the tasks to run on them.

use anyhow::{Context, Result, ensure};
use narrows_codec::{GeometryId, LevelId};
use narrows_head::{Head, load, source};
use narrows_models::{Bundle, Parts, TaskKind};
use narrows_wire::{BundleId, Hello, Query, TaskRequest};

/// Classes per classification.
const TOP_K: u16 = 5;

/// What every head sends.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) hello: Hello,
    pub(super) bundle: BundleId,
    pub(super) task_requests: Vec<TaskRequest>,
    /// Codec packets of one geometry and rate level.
    pub(super) packets: Vec<Vec<u8>>,
}

impl Workload {
    /// A workload of `tasks` on the packets of `level` that the bundle records, or on those that the real head makes of
    /// the photos in `source`.
    ///
    /// # Errors
    /// When the bundle has no such task, level or packet, or a photo cannot be read.
    pub(super) fn new(
        bundle: &Bundle,
        tasks: &[String],
        level: Option<usize>,
        source: Option<&str>,
    ) -> Result<Self> {
        let mut task_requests = Vec::new();
        let mut geometry = None;
        for name in tasks {
            let known =
                || bundle.tasks().iter().map(|task| task.name.as_str()).collect::<Vec<_>>().join(", ");
            let found = bundle.task(name);
            let (place, task) =
                found.with_context(|| format!("--tasks: no task {name:?}; there are {}", known()))?;
            geometry.get_or_insert(task.geometry);
            let query = match task.kind {
                TaskKind::Classify => Query::Classify { top_k: TOP_K },
                TaskKind::Segment => Query::Segment { size: None },
            };
            task_requests.push(TaskRequest { task: u8::try_from(place)?, query });
        }
        let geometry = geometry.context("--tasks: names no task")?;
        let level = level.unwrap_or(bundle.default_level());
        let last = bundle.levels().len() - 1;
        ensure!(level <= last, "--level: the bundle has no level {level}; it has 0 (finest) to {last}");
        let packets = match source {
            Some(source) => {
                let (geometry, level) = (GeometryId(u8::try_from(geometry)?), LevelId(u8::try_from(level)?));
                encode(bundle, source, geometry, level)?
            }
            None => recorded(bundle, geometry, level)?,
        };
        ensure!(
            !packets.is_empty(),
            "the bundle records no packet of level {level} for {}; give photos with --source",
            tasks[0]
        );
        let id = BundleId(*bundle.digest().bytes());
        Ok(Workload { hello: Hello::new(vec![id], tasks.to_vec()), bundle: id, task_requests, packets })
    }

    /// Mean bytes of the packets.
    pub(super) fn mean_bytes(&self) -> f64 {
        self.packets.iter().map(Vec::len).sum::<usize>() as f64 / self.packets.len() as f64
    }
}

fn recorded(bundle: &Bundle, geometry: usize, level: usize) -> Result<Vec<Vec<u8>>> {
    let matching =
        bundle.vectors().iter().filter(|vector| vector.geometry == geometry && vector.level == level);
    Ok(matching.map(|vector| bundle.read(&vector.packet)).collect::<Result<_, _>>()?)
}

fn encode(bundle: &Bundle, source: &str, geometry: GeometryId, level: LevelId) -> Result<Vec<Vec<u8>>> {
    let mut head = Head::open(Bundle::open(bundle.dir(), Parts::Head)?)?;
    let files = source::list(source)?;
    let packets = files.iter().map(|file| Ok(head.encode_image(&load(file)?, geometry, level)?.packet));
    packets.collect()
}
