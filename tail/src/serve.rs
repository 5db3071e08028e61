//! `narrows-tail serve`: bundles, networks, self-tests, socket; then frames until a signal; then the drain.

use std::{path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use narrows_wire::{
    identity::Identity,
    quic::{self, Tuning},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{
    Error,
    admit::ConnectionLimit,
    batcher::Limits,
    catalog::{Model, OpenedBundle, session_catalog},
    config::Serve,
    images::Decoders,
    input::ModelInput,
    listen::{Shared, listen},
    metrics::Metrics,
    net::{Runtime, Session},
    selftest,
    worker::Tail,
};

/// Serves until SIGTERM or SIGINT, then answers what was accepted and returns.
///
/// # Errors
/// What keeps the server from starting, or [`Error::Undrained`].
pub fn serve(config: &Serve) -> Result<(), Error> {
    // The cheap checks first: a wrong path should not cost the loading of networks.
    let identity = Identity::load(&config.identity)?;
    let tuning = Tuning { segmentation_offload: !config.no_gso, ..Tuning::default() };
    let max_in_flight = u16::try_from(config.in_flight).unwrap_or(u16::MAX);
    let quic = quic::server_config(&identity, max_in_flight, &tuning)?;
    let opened =
        config.bundles.iter().map(|folder| OpenedBundle::open(folder)).collect::<Result<Vec<_>, _>>()?;
    if let Some(duplicate) = (1..opened.len()).find(|&place| {
        opened[..place].iter().any(|other| other.bundle.digest() == opened[place].bundle.digest())
    }) {
        let folder = config.bundles[duplicate].clone();
        return Err(Error::Unfit { folder, reason: "the same bundle is served twice".into() });
    }
    let runtime = Runtime::open(config.runtime.as_deref())?;
    tracing::info!(library = %runtime.library().display(), version = runtime.version(), "ONNX Runtime");
    let metrics = Arc::new(Metrics::default());
    let mut loader = Loader { runtime: &runtime, config, metrics: Arc::clone(&metrics), threads: Vec::new() };
    let catalog = opened.into_iter().map(|opened| loader.load(opened)).collect::<Result<Vec<_>, _>>()?;
    let threads = loader.threads;
    let session_catalog = Arc::new(session_catalog(&catalog, max_in_flight));
    let (decoders, connections) = (Decoders::new(config.decoders), ConnectionLimit::new(config.connections));
    let shared = Arc::new(Shared { catalog, decoders, session_catalog, metrics, connections });
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let executor = executor.map_err(|source| Error::Io { what: "cannot start threads".into(), source })?;
    let unanswered = executor.block_on(async {
        let endpoint = quic::server_endpoint(config.listen, quic, &tuning)?;
        let address =
            endpoint.local_addr().map_err(|source| Error::Bind { address: config.listen, source })?;
        let drain = drain_on_signal()?;
        if let Some(file) = &config.port_file {
            write_port(file, &address.to_string())?;
        }
        tracing::info!(%address, "listening");
        Ok::<_, Error>(listen(&endpoint, Arc::clone(&shared), drain, config.drain_timeout).await)
    })?;
    shared.metrics.log();
    if unanswered > 0 {
        return Err(Error::Undrained { frames: unanswered });
    }
    for served in &shared.catalog {
        served.tails.iter().for_each(|tail| tail.close());
        served.unsplit.iter().flatten().for_each(|network| network.close());
    }
    for thread in threads {
        // A worker's panic was caught and logged where it happened.
        let _ = thread.join();
    }
    tracing::info!("drained");
    Ok(())
}

/// Loads the networks of bundles and starts their workers.
struct Loader<'a> {
    runtime: &'a Runtime,
    config: &'a Serve,
    metrics: Arc<Metrics>,
    threads: Vec<JoinHandle<()>>,
}

impl Loader<'_> {
    /// The tails of a bundle and, where images are taken, its whole networks.
    fn load(&mut self, opened: OpenedBundle) -> Result<Model, Error> {
        let bundle = &opened.bundle;
        tracing::info!(bundle = bundle.name(), digest = %bundle.digest(), folder = %bundle.dir().display(), "bundle");
        let (mut tails, mut unsplit) = (Vec::new(), Vec::new());
        for (index, task) in bundle.tasks().iter().enumerate() {
            tails.push(self.start(&opened, index, &task.tail, selftest::run)?);
            unsplit.push(match &task.reference {
                Some(reference) if self.config.offload => {
                    Some(self.start(&opened, index, &reference.file, selftest::run_unsplit)?)
                }
                _ => None,
            });
        }
        if self.config.offload && unsplit.iter().all(Option::is_none) {
            let reason = "none of its tasks has a reference network; serve it without --offload".to_owned();
            return Err(Error::Unfit { folder: bundle.dir().to_owned(), reason });
        }
        let OpenedBundle { bundle, tables, shapes } = opened;
        Ok(Model { bundle, tables, shapes, tails, unsplit })
    }

    /// Opens a network of task number `index` once per worker, tests it and starts the workers.
    fn start<I: ModelInput>(
        &mut self,
        opened: &OpenedBundle,
        index: usize,
        part: &str,
        test: fn(&OpenedBundle, usize, &mut Session) -> Result<selftest::Report, Error>,
    ) -> Result<Arc<Tail<I>>, Error> {
        let (config, bundle) = (self.config, &opened.bundle);
        let task = &bundle.tasks()[index];
        let limits = Limits {
            batch: config.batch,
            wait: config.batch_wait,
            queue: config.queue,
            workers: config.workers,
        };
        let mut sessions = Vec::with_capacity(config.workers);
        for _ in 0..config.workers {
            let mut session = Session::open(self.runtime, &bundle.path(part), config.device, config.threads)?;
            let report = test(opened, index, &mut session)?;
            tracing::info!(
                bundle = bundle.name(),
                task = task.name,
                provider = %session.provider(),
                why = session.why(),
                ms = report.took.as_secs_f64() * 1e3,
                vector = report.vector,
                difference = report.difference,
                "{} ready", I::NAME
            );
            sessions.push(session);
        }
        let started = Tail::start(task.clone(), sessions, limits, Arc::clone(&self.metrics));
        let (tail, workers) =
            started.map_err(|source| Error::Io { what: "cannot start a worker".into(), source })?;
        self.threads.extend(workers);
        Ok(tail)
    }
}

/// Signals this soon after the first belong to it: a terminal and a supervisor often send one each.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Turns true at the first SIGTERM or SIGINT; at the second the process ends at once.
fn drain_on_signal() -> Result<watch::Receiver<bool>, Error> {
    let (drain, draining) = watch::channel(false);
    let first = Signals::new()?;
    tokio::spawn(async move {
        first.any().await;
        tracing::info!("signal: draining");
        let _ = drain.send(true);
        tokio::time::sleep(SAME_SIGNAL).await;
        if let Ok(second) = Signals::new() {
            second.any().await;
            tracing::warn!("second signal: leaving without an answer to accepted frames");
            std::process::exit(1);
        }
    });
    Ok(draining)
}

/// SIGTERM and SIGINT from now on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Error> {
        let catch =
            |kind| signal(kind).map_err(|source| Error::Io { what: "cannot catch signals".into(), source });
        Ok(Signals { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    async fn any(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Writes the address in one step, so that a reader sees all of it or none.
fn write_port(file: &Path, address: &str) -> Result<(), Error> {
    let part = file.with_extension("part");
    let written = std::fs::write(&part, format!("{address}\n")).and_then(|()| std::fs::rename(&part, file));
    written.map_err(|source| Error::Io { what: format!("cannot write {}", file.display()), source })
}
