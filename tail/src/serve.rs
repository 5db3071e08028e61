//! `narrows-tail serve`: opens the engine and the socket, serves frames until a signal, then drains.

use std::{path::Path, sync::Arc, time::Duration};

use narrows_wire::{
    identity::Identity,
    quic::{self, Tuning},
    runtime::check_files,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{
    Error,
    config::Serve,
    engine::Engine,
    frontend::{
        peers::Limits,
        quic::{Shared, serve as serve_quic},
    },
};

/// Bytes that a client may have in flight on one connection. At a round trip of 100 ms this carries 160 Mbit/s.
const RECEIVE_WINDOW: u32 = 2 << 20;

/// Bytes of replies that a client may leave unacknowledged on one connection. A reply has 0.1 to 5 kB.
const SEND_WINDOW: u64 = 1 << 20;

/// Serves until SIGTERM or SIGINT, then answers the frames that were accepted and returns.
///
/// # Errors
/// The reason why the server cannot start, or [`Error::Undrained`].
pub fn serve(config: &Serve) -> Result<(), Error> {
    // The networks are loaded last, so that a wrong path is reported at once.
    let identity = Identity::load(&config.identity)?;
    let idle_timeout = Duration::from_millis(config.idle_timeout);
    let tuning = Tuning {
        segmentation_offload: !config.no_gso,
        // A client may have this much in flight; a request is read as it arrives, so the windows need not hold one.
        receive_window: RECEIVE_WINDOW,
        send_window: SEND_WINDOW,
        idle_timeout,
        // The tail sends no keep-alive packets of its own.
        keep_alive: idle_timeout / 3,
        ..Tuning::default()
    };
    let max_in_flight = u16::try_from(config.in_flight).unwrap_or(u16::MAX);
    let quic = quic::server_config(&identity, &tuning)?;
    let engine = Arc::new(Engine::open(&config.bundles, &config.engine_options())?);
    let limits = Limits { connections: config.connections, per_device: config.max_connections_per_device };
    let shared = Arc::new(Shared::new(
        Arc::clone(&engine),
        max_in_flight,
        limits,
        config.request_memory << 20,
        tuning.clone(),
    ));
    let executor =
        check_files().and_then(|()| tokio::runtime::Builder::new_multi_thread().enable_all().build());
    let executor = executor.map_err(|source| Error::Io { what: "cannot start threads".into(), source })?;
    let unanswered = executor.block_on(async {
        let endpoint = quic::server_endpoint(config.listen, quic, &identity, &tuning)?;
        let address =
            endpoint.local_addr().map_err(|source| Error::Bind { address: config.listen, source })?;
        let drain = drain_on_signal()?;
        if let Some(file) = &config.port_file {
            write_port(file, &address.to_string())?;
        }
        tracing::info!(%address, "listening");
        Ok::<_, Error>(serve_quic(&endpoint, Arc::clone(&shared), drain, config.drain_timeout).await)
    })?;
    shared.metrics().log(engine.metrics());
    if unanswered > 0 {
        return Err(Error::Undrained { frames: unanswered });
    }
    engine.close();
    tracing::info!("drained");
    Ok(())
}

/// A signal this soon after the first one is taken as the same: a terminal and a supervisor often send one each.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// A value that becomes true at the first SIGTERM or SIGINT. At the second the process exits.
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
            tracing::warn!("second signal: exiting without answers to accepted frames");
            std::process::exit(1);
        }
    });
    Ok(draining)
}

/// The signals SIGTERM and SIGINT from now on.
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

/// Writes the address to a file. It is renamed into place, so a reader sees all of it or nothing.
fn write_port(file: &Path, address: &str) -> Result<(), Error> {
    let part = file.with_extension("part");
    let written = std::fs::write(&part, format!("{address}\n")).and_then(|()| std::fs::rename(&part, file));
    written.map_err(|source| Error::Io { what: format!("cannot write {}", file.display()), source })
}
