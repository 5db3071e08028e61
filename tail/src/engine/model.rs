//! Bundles whose networks are in memory.

use std::{fmt, sync::Arc};

use narrows_codec::{Shape, Tables};
use narrows_models::{Bundle, TaskKind};

use super::{
    input::{ModelInput, QuantizedLatent, RgbImage},
    metrics::{NetworkStatus, Runs},
    query::{Query, TaskQuery},
    refusal::{Refusal, RefusalReason},
    worker::Network,
};

/// A bundle whose networks are in memory: its tables, and the networks of its tasks. It stays in memory as long as anybody has
/// it.
pub struct Model {
    pub(super) bundle: Arc<Bundle>,
    pub(super) tables: Tables,
    pub(super) shapes: Vec<Shape>,
    /// The split network of each task, in the manifest's order.
    pub(super) split: Vec<Arc<Network<QuantizedLatent>>>,
    /// The unsplit network of each task, where it is served.
    pub(super) unsplit: Vec<Option<Arc<Network<RgbImage>>>>,
}

impl Model {
    /// The bundle.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Whether the task of this index has an unsplit network that is served, so that it answers images.
    #[must_use]
    pub fn serves_unsplit(&self, task: usize) -> bool {
        self.unsplit.get(task).is_some_and(Option::is_some)
    }

    /// The state of each network, the split ones first.
    pub fn networks(&self) -> impl Iterator<Item = NetworkStatus<'_>> {
        let split = self.split.iter().map(|network| self.status(network));
        split.chain(self.unsplit.iter().flatten().map(|network| self.status(network)))
    }

    fn status<'a, I: ModelInput>(&'a self, network: &'a Network<I>) -> NetworkStatus<'a> {
        NetworkStatus {
            number: network.id().index(),
            bundle: &self.bundle,
            task: &network.task().name,
            unsplit: I::UNSPLIT,
            provider: network.provider(),
            waiting: network.waiting(),
            runs: network.runs(),
        }
    }

    /// The probability tables that decode the bundle's packets.
    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The latent's shape in each geometry.
    pub(super) fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// The split network that answers a query.
    ///
    /// # Errors
    /// [`RefusalReason::NoSuchTask`] or [`RefusalReason::WrongQuery`].
    pub(super) fn split_network(&self, query: &TaskQuery) -> Result<&Network<QuantizedLatent>, Refusal> {
        self.check(query)?;
        Ok(&self.split[query.task])
    }

    /// The unsplit network that answers a query.
    ///
    /// # Errors
    /// [`RefusalReason::NoSuchTask`], [`RefusalReason::WrongQuery`] or [`RefusalReason::UnsplitNotServed`].
    pub(super) fn unsplit_network(&self, query: &TaskQuery) -> Result<&Network<RgbImage>, Refusal> {
        self.check(query)?;
        self.unsplit[query.task].as_deref().ok_or_else(|| {
            let text = format!("{} takes packets only", self.bundle.tasks()[query.task].name);
            Refusal::new(RefusalReason::UnsplitNotServed, text)
        })
    }

    fn check(&self, TaskQuery { task: index, query }: &TaskQuery) -> Result<(), Refusal> {
        let tasks = self.bundle.tasks();
        let Some(task) = tasks.get(*index) else {
            let text = format!("index {index}, the bundle has {}", tasks.len());
            return Err(Refusal::new(RefusalReason::NoSuchTask, text));
        };
        match (query, task.kind) {
            (Query::Scores, _)
            | (Query::Classify { .. }, TaskKind::Classify)
            | (Query::Segment { .. }, TaskKind::Segment) => Ok(()),
            _ => {
                let text = format!("{} does not answer queries of this kind", task.name);
                Err(Refusal::new(RefusalReason::WrongQuery, text))
            }
        }
    }

    /// The geometries and sizes of the runs of a task's network, the geometries as `bundle` counts them; empty where `bundle`
    /// has none of the same name.
    pub(super) fn used_runs(&self, task: &str, unsplit: bool, bundle: &Bundle) -> Vec<(usize, usize)> {
        let Some((index, _)) = self.bundle.task(task) else { return Vec::new() };
        let runs = match unsplit {
            false => Some(self.split[index].runs()),
            true => self.unsplit[index].as_ref().map(|network| network.runs()),
        };
        let geometry = |index: usize| {
            let name = &self.bundle.geometries().get(index)?.name;
            bundle.geometries().iter().position(|geometry| geometry.name == *name)
        };
        let used = runs.map(Runs::used).unwrap_or_default();
        used.into_iter().filter_map(|(index, size)| Some((geometry(index)?, size))).collect()
    }

    /// Refuses new work; the workers end once their queues are empty.
    pub(super) fn close(&self) {
        self.split.iter().for_each(|network| network.close());
        self.unsplit.iter().flatten().for_each(|network| network.close());
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.bundle.name())
            .field("digest", &self.bundle.digest())
            .finish_non_exhaustive()
    }
}
