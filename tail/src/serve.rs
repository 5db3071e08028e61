//! `narrows-tail serve`: bundles, networks, self-tests, socket; then frames until a signal; then the drain.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use narrows_wire::identity::Identity;
use narrows_wire::quic::{self, Tuning};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::admit::Door;
use crate::batch::Limits;
use crate::catalog::{Opened, Served, offer};
use crate::config::Serve;
use crate::listen::{Shared, listen};
use crate::metrics::Metrics;
use crate::net::{Runtime, Session};
use crate::worker::Tail;
use crate::{Error, selftest};

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
    let opened = config.bundles.iter().map(|folder| Opened::open(folder)).collect::<Result<Vec<_>, _>>()?;
    if let Some(twice) = (1..opened.len()).find(|&place| {
        opened[..place].iter().any(|other| other.bundle.digest() == opened[place].bundle.digest())
    }) {
        let folder = config.bundles[twice].clone();
        return Err(Error::Unfit { folder, reason: "the same bundle is served twice".into() });
    }
    let runtime = Runtime::open(config.runtime.as_deref())?;
    tracing::info!(library = %runtime.library().display(), version = runtime.version(), "ONNX Runtime");
    let metrics = Arc::new(Metrics::default());
    let mut threads = Vec::new();
    let catalog = opened
        .into_iter()
        .map(|opened| load(opened, &runtime, config, &metrics, &mut threads))
        .collect::<Result<Vec<_>, _>>()?;
    let offer = Arc::new(offer(&catalog, max_in_flight));
    let shared = Arc::new(Shared { catalog, offer, metrics, door: Door::new(config.connections) });
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
    shared.catalog.iter().flat_map(|served| &served.tails).for_each(|tail| tail.close());
    for thread in threads {
        // A worker's panic was caught and logged where it happened.
        let _ = thread.join();
    }
    tracing::info!("drained");
    Ok(())
}

/// Loads and tests the networks of a bundle and starts their workers.
fn load(
    opened: Opened,
    runtime: &Runtime,
    config: &Serve,
    metrics: &Arc<Metrics>,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<Served, Error> {
    let limits =
        Limits { batch: config.batch, wait: config.batch_wait, queue: config.queue, workers: config.workers };
    let bundle = &opened.bundle;
    tracing::info!(bundle = bundle.name(), digest = %bundle.digest(), folder = %bundle.dir().display(), "bundle");
    let mut tails = Vec::with_capacity(bundle.tasks().len());
    for (index, task) in bundle.tasks().iter().enumerate() {
        let mut sessions = Vec::with_capacity(config.workers);
        for _ in 0..config.workers {
            let model = bundle.path(&task.tail);
            let mut session = Session::open(runtime, &model, config.device, config.threads)?;
            let report = selftest::run(&opened, index, &mut session)?;
            tracing::info!(
                bundle = bundle.name(),
                task = task.name,
                provider = %session.provider(),
                why = session.why(),
                ms = report.took.as_secs_f64() * 1e3,
                vector = report.vector.as_deref().unwrap_or("none: zeros"),
                difference = report.difference,
                "tail ready"
            );
            sessions.push(session);
        }
        let started = Tail::start(task.clone(), sessions, limits, Arc::clone(metrics));
        let (tail, workers) =
            started.map_err(|source| Error::Io { what: "cannot start a worker".into(), source })?;
        tails.push(tail);
        threads.extend(workers);
    }
    let Opened { bundle, tables, shapes } = opened;
    Ok(Served { bundle, tables, shapes, tails })
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
