//! Loads the networks of bundles, tests and warms them up, and starts and ends their workers.

use std::{
    sync::Arc,
    thread::{JoinHandle, available_parallelism},
};

use narrows_models::{Bundle, Task};
use narrows_scheduler::NetworkLimits;

use super::{
    bundle::OpenedBundle,
    error::Error,
    input::{ModelInput, QuantizedLatent, RgbImage},
    metrics::Metrics,
    model::Model,
    options::{BatchLimits, Options},
    ort::{Runtime, Session},
    queues::Queues,
    selftest::{self, Report},
    warmup::{self, Measured},
    worker::Network,
};
use crate::limits;

/// What is needed to load the networks of any bundle.
pub(super) struct Loader {
    pub(super) runtime: Runtime,
    pub(super) options: Options,
    pub(super) queues: Arc<Queues>,
    pub(super) metrics: Arc<Metrics>,
}

/// A model, and the threads of its workers.
pub(super) struct Loaded {
    pub(super) model: Arc<Model>,
    threads: Vec<JoinHandle<()>>,
}

/// The sessions of one network, tested and warmed up.
struct Prepared {
    task: Task,
    sessions: Vec<Session>,
    measured: Vec<Measured>,
}

/// The networks of one task.
struct PreparedTask {
    split: Prepared,
    unsplit: Option<Prepared>,
}

impl Loaded {
    /// Whether anybody else has the model. Those who get it get it from here, so while this is borrowed by one who can give it
    /// away, a model that nobody has stays so.
    pub(super) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.model) > 1
    }

    /// Refuses new work.
    pub(super) fn close(&self) {
        self.model.close();
    }

    /// Ends the workers once their queues are empty, and waits for them.
    pub(super) fn end(&mut self) {
        self.model.close();
        for thread in self.threads.drain(..) {
            // A worker catches the panics of its runs and logs them.
            let _ = thread.join();
        }
    }
}

impl Loader {
    /// Loads the networks of a bundle, tests each, and starts the workers. They are warmed up as the options say, `before` being the
    /// version of the bundle that was served until now.
    ///
    /// # Errors
    /// The first [`Error`] of these steps; nothing is left of what was loaded then.
    pub(super) fn load(&self, mut opened: OpenedBundle, before: Option<&Model>) -> Result<Loaded, Error> {
        let bundle = &opened.bundle;
        tracing::info!(bundle = bundle.name(), digest = %bundle.digest(), folder = %bundle.dir().display(), "bundle");
        let mut tasks = Vec::new();
        for (index, task) in bundle.tasks().to_vec().into_iter().enumerate() {
            let split = self.prepare::<QuantizedLatent>(
                &mut opened,
                (index, &task.tail),
                before,
                selftest::run_split,
            )?;
            let unsplit = match &task.reference {
                Some(reference) if self.options.unsplit => {
                    let part = (index, reference.file.as_str());
                    Some(self.prepare::<RgbImage>(&mut opened, part, before, selftest::run_unsplit)?)
                }
                _ => None,
            };
            tasks.push(PreparedTask { split, unsplit });
        }
        opened.bundle.release();
        let bundle = &opened.bundle;
        if self.options.unsplit && tasks.iter().all(|task| task.unsplit.is_none()) {
            let reason = "none of its tasks has a reference network; serve it without --offload".to_owned();
            return Err(Error::Unfit { folder: bundle.dir().to_owned(), reason });
        }
        let OpenedBundle { bundle, tables, shapes } = opened;
        let bundle = Arc::new(bundle);
        let mut model =
            Model { bundle: Arc::clone(&bundle), tables, shapes, split: Vec::new(), unsplit: Vec::new() };
        let mut threads = Vec::new();
        for task in tasks {
            let started = self.start(&bundle, task.split, &mut threads).and_then(|split| {
                // Now, so that its workers are told to end where the next network cannot be started.
                model.split.push(split);
                let start = |unsplit| self.start(&bundle, unsplit, &mut threads);
                task.unsplit.map(start).transpose()
            });
            match started {
                Ok(unsplit) => model.unsplit.push(unsplit),
                Err(error) => {
                    Loaded { model: Arc::new(model), threads }.end();
                    return Err(error);
                }
            }
        }
        Ok(Loaded { model: Arc::new(model), threads })
    }

    /// Opens the network in a part for the task of an index once per worker, tests each and warms it up.
    fn prepare<I: ModelInput>(
        &self,
        opened: &mut OpenedBundle,
        (index, part): (usize, &str),
        before: Option<&Model>,
        test: fn(&OpenedBundle, usize, &mut Session) -> Result<Report, Error>,
    ) -> Result<Prepared, Error> {
        let folder = opened.bundle.dir().to_owned();
        // A session has a copy of its own, so the bytes are dropped once the last one is open.
        let onnx = opened.bundle.take(part).map_err(|source| Error::Bundle { folder, source })?;
        let (options, opened) = (&self.options, &*opened);
        let bundle = &opened.bundle;
        let (task, path) = (&bundle.tasks()[index], bundle.path(part));
        let workers = options.workers.max(1);
        // The threads of a session's pool, less the worker's own, and the worker.
        let pool = match options.threads {
            0 => available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        limits::check_threads(workers * pool)?;
        let used = before.map(|model| model.used_runs(&task.name, I::UNSPLIT, bundle)).unwrap_or_default();
        let mut sessions = Vec::with_capacity(workers);
        let mut measured = Vec::new();
        for _ in 0..workers {
            let mut session =
                Session::from_bytes(&self.runtime, &path, &onnx, options.device, options.threads)?;
            let report = test(opened, index, &mut session)?;
            let runs = warmup::runs(options, session.provider(), &used, bundle.geometries().len());
            let warmed = warmup::run::<I>(opened, task, &mut session, &runs)?;
            tracing::info!(
                bundle = bundle.name(),
                task = task.name,
                provider = %session.provider(),
                why = session.provider_reason(),
                ms = report.took.as_secs_f64() * 1e3,
                vector = report.vector,
                difference = report.difference,
                warm_up = warmed.len(),
                "{} ready", I::NETWORK
            );
            measured = warmed;
            sessions.push(session);
        }
        Ok(Prepared { task: task.clone(), sessions, measured })
    }

    /// Starts the workers of a network.
    fn start<I: ModelInput>(
        &self,
        bundle: &Bundle,
        Prepared { task, sessions, measured }: Prepared,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> Result<Arc<Network<I>>, Error> {
        let BatchLimits { size: batch, wait } = self.options.batch;
        let limits = NetworkLimits { batch, wait, queue: self.options.queue, workers: sessions.len() };
        let name = format!("{}/{} {}", bundle.name(), task.name, I::NETWORK);
        let started = Network::start(&name, task, sessions, limits, (&self.queues, &self.metrics));
        let (network, own) = started.map_err(Error::Thread)?;
        threads.extend(own);
        for Measured { geometry, size, took } in measured {
            self.queues.measured(network.id(), geometry, size, took);
        }
        Ok(network)
    }
}
