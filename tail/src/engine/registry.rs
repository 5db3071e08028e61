//! The models that an engine serves: bundles whose networks are loaded, tested and have their workers.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::{JoinHandle, available_parallelism},
};

use narrows_codec::{Shape, Tables};
use narrows_models::{Bundle, TaskKind};
use narrows_scheduler::NetworkLimits;

use super::{
    bundle::OpenedBundle,
    error::Error,
    input::{ModelInput, QuantizedLatent, RgbImage},
    metrics::{Metrics, NetworkStatus},
    options::{BatchLimits, Options},
    ort::{Runtime, Session},
    query::{Query, TaskQuery},
    queues::Queues,
    refusal::{Refusal, RefusalReason},
    selftest::{self, Report},
    worker::Network,
};
use crate::limits;

/// A bundle that is served: its tables, and the networks of its tasks.
pub struct Model {
    bundle: Bundle,
    tables: Tables,
    shapes: Vec<Shape>,
    /// The split network of each task, in the manifest's order.
    split: Vec<Arc<Network<QuantizedLatent>>>,
    /// The unsplit network of each task, where it is served.
    unsplit: Vec<Option<Arc<Network<RgbImage>>>>,
}

/// The models of an engine, and the threads of their workers.
pub(super) struct Registry {
    models: Vec<Arc<Model>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
    pub(super) fn networks(&self) -> impl Iterator<Item = NetworkStatus<'_>> {
        let split = self.split.iter().map(|network| self.status(network));
        split.chain(self.unsplit.iter().flatten().map(|network| self.status(network)))
    }

    fn status<'a, I: ModelInput>(&'a self, network: &'a Network<I>) -> NetworkStatus<'a> {
        NetworkStatus {
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
            (Query::Classify { .. }, TaskKind::Classify) | (Query::Segment { .. }, TaskKind::Segment) => {
                Ok(())
            }
            _ => {
                let text = format!("{} does not answer queries of this kind", task.name);
                Err(Refusal::new(RefusalReason::WrongQuery, text))
            }
        }
    }

    /// Refuses new work; the workers end once their queues are empty.
    fn close(&self) {
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

impl Registry {
    /// Opens bundles, loads ONNX Runtime and the bundles' networks, tests each network and starts its workers.
    ///
    /// # Errors
    /// The first [`Error`] of these steps. All bundles are checked before the first network is loaded.
    pub(super) fn open(
        folders: &[PathBuf],
        options: &Options,
        (queues, metrics): (&Arc<Queues>, &Arc<Metrics>),
    ) -> Result<Registry, Error> {
        let bundles = folders.iter().map(|folder| OpenedBundle::open(folder, options.unsplit));
        let bundles = bundles.collect::<Result<Vec<_>, _>>()?;
        let digest = |index: usize| bundles[index].bundle.digest();
        let repeated =
            (1..bundles.len()).find(|&index| (0..index).any(|other| digest(other) == digest(index)));
        if let Some(index) = repeated {
            let folder = folders[index].clone();
            return Err(Error::Unfit { folder, reason: "the same bundle is served twice".into() });
        }
        let runtime = Runtime::open(options.library.as_deref())?;
        tracing::info!(library = %runtime.library().display(), version = runtime.version(), "ONNX Runtime");
        let mut loader = Loader { runtime, options, queues, metrics, threads: Vec::new() };
        let models = bundles.into_iter().map(|bundle| loader.load(bundle).map(Arc::new));
        let models = models.collect::<Result<Vec<_>, _>>()?;
        Ok(Registry { models, threads: Mutex::new(loader.threads) })
    }

    /// The models, in the order of their folders.
    pub(super) fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// Ends all workers once their queues are empty, and waits for them.
    pub(super) fn close(&self) {
        self.models.iter().for_each(|model| model.close());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A worker catches the panics of its runs and logs them.
            let _ = thread.join();
        }
    }
}

/// Loads the networks of bundles and starts their workers.
struct Loader<'a> {
    runtime: Runtime,
    options: &'a Options,
    queues: &'a Arc<Queues>,
    metrics: &'a Arc<Metrics>,
    threads: Vec<JoinHandle<()>>,
}

impl Loader<'_> {
    fn load(&mut self, mut opened: OpenedBundle) -> Result<Model, Error> {
        let bundle = &opened.bundle;
        tracing::info!(bundle = bundle.name(), digest = %bundle.digest(), folder = %bundle.dir().display(), "bundle");
        let (mut split, mut unsplit) = (Vec::new(), Vec::new());
        for (index, task) in bundle.tasks().to_vec().into_iter().enumerate() {
            split.push(self.start(&mut opened, index, &task.tail, selftest::run_split)?);
            unsplit.push(match &task.reference {
                Some(reference) if self.options.unsplit => {
                    Some(self.start(&mut opened, index, &reference.file, selftest::run_unsplit)?)
                }
                _ => None,
            });
        }
        opened.bundle.release();
        let bundle = &opened.bundle;
        if self.options.unsplit && unsplit.iter().all(Option::is_none) {
            let reason = "none of its tasks has a reference network; serve it without --offload".to_owned();
            return Err(Error::Unfit { folder: bundle.dir().to_owned(), reason });
        }
        let OpenedBundle { bundle, tables, shapes } = opened;
        Ok(Model { bundle, tables, shapes, split, unsplit })
    }

    /// Opens the network in `part` for the task of this index once per worker, tests each, and starts the workers.
    fn start<I: ModelInput>(
        &mut self,
        opened: &mut OpenedBundle,
        index: usize,
        part: &str,
        test: fn(&OpenedBundle, usize, &mut Session) -> Result<Report, Error>,
    ) -> Result<Arc<Network<I>>, Error> {
        let fail =
            |opened: &OpenedBundle, source| Error::Bundle { folder: opened.bundle.dir().to_owned(), source };
        // A session has a copy of its own, so the bytes are dropped once the last one is open.
        let onnx = opened.bundle.take(part).map_err(|source| fail(opened, source))?;
        let (options, opened) = (self.options, &*opened);
        let bundle = &opened.bundle;
        let (task, path) = (&bundle.tasks()[index], bundle.path(part));
        let workers = options.workers.max(1);
        // The threads of a session's pool, less the worker's own, and the worker.
        let pool = match options.threads {
            0 => available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        limits::check_threads(workers * pool)?;
        let mut sessions = Vec::with_capacity(workers);
        for _ in 0..workers {
            let mut session =
                Session::from_bytes(&self.runtime, &path, &onnx, options.device, options.threads)?;
            let report = test(opened, index, &mut session)?;
            tracing::info!(
                bundle = bundle.name(),
                task = task.name,
                provider = %session.provider(),
                why = session.provider_reason(),
                ms = report.took.as_secs_f64() * 1e3,
                vector = report.vector,
                difference = report.difference,
                "{} ready", I::NETWORK
            );
            sessions.push(session);
        }
        drop(onnx);
        let BatchLimits { size: batch, wait } = options.batch;
        let limits = NetworkLimits { batch, wait, queue: options.queue, workers };
        let name = format!("{}/{} {}", bundle.name(), task.name, I::NETWORK);
        let started = Network::start(&name, task.clone(), sessions, limits, (self.queues, self.metrics));
        let (network, threads) = started.map_err(Error::Thread)?;
        self.threads.extend(threads);
        Ok(network)
    }
}
