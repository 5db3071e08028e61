//! `narrows-tail serve`: opens the engine and the socket, serves frames until a signal, then drains.
#![expect(clippy::disallowed_methods, reason = "the status says when the server started")]

mod bundles;
mod certificates;
mod changes;
mod enrol;
mod listen;
mod port_file;
mod reload;
mod rights;
mod service;
mod signals;

use std::{
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, Instant, SystemTime},
};

use narrows_service::{Notifier, Origin};
use narrows_wire::{
    identity::Identity,
    quic::{self, ClientVerifier, Tuning},
    text::Quoted,
};
use quinn::Endpoint;
use rustls_pki_types::CertificateDer;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
    time::timeout,
};

use self::{
    bundles::BundleFolders,
    reload::{Reload, SettingsFile},
};
pub(crate) use self::{
    certificates::{Certificates, warnings_now},
    enrol::Enrolment,
    listen::{bind_tcp, resolve},
    port_file::PortFile,
    rights::RightsFile,
};
use crate::{
    Error,
    config::Serve,
    engine::Engine,
    frontend::{
        enrol::Enrolments,
        oip::{self, Oip},
        peers::{Limits, NotAccepted},
        quic::{Shared, serve as serve_quic},
    },
    limits,
    status::{self, Served, Status},
};

/// Bytes that a client may have in flight on one connection. At a round trip of 100 ms this carries 160 Mbit/s.
const RECEIVE_WINDOW: u32 = 2 << 20;

/// Bytes of replies that a client may leave unacknowledged on one connection. A reply has 0.1 to 5 kB.
const SEND_WINDOW: u64 = 1 << 20;

/// Serves until SIGTERM or SIGINT, then answers the frames that were accepted and returns. With an `origin` of the settings they
/// are read again on SIGHUP and when their file changes; what cannot be used leaves those before in force.
///
/// # Errors
/// The reason why the server cannot start, or [`Error::Undrained`].
pub fn serve(config: &Serve, origin: Option<Origin<Serve>>) -> Result<(), Error> {
    // The networks are loaded last, so that whatever else is wrong is reported at once.
    let mut certificates = Certificates::new(&config.identity, config.crl.as_deref());
    let identity = certificates.load()?;
    let settings = origin.as_ref().map(|origin| &origin.settings);
    let (rights, devices) = RightsFile::of(config, settings)?.unzip();
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
    let port_file = config.port_file.as_deref().map(PortFile::open).transpose()?;
    let address = resolve(&config.listen)?;
    let enrolment = Enrolment::open(config, &identity)?;
    let listener = config.status.listen.as_ref().map(bind_tcp).transpose()?;
    let oip_listener = config.oip.http.as_ref().map(bind_tcp).transpose()?;
    // Threads for blocking work: one per image that is decoded, and one in the place of each worker that computes a mask.
    let workers = available_parallelism().map_or(1, usize::from);
    let blocking = config.decoders + workers;
    let executor = executor(workers, blocking)?;
    let hangup = {
        let _context = executor.enter();
        signals::hangup()?
    };
    certificates::warn(&identity);
    let status = Arc::new(Status::new(config.status.devices, Instant::now(), SystemTime::now()));
    status.show_certificates(&identity);
    if let Some((address, listener)) = listener {
        status::announce(address);
        executor.spawn(status::serve(listener, Arc::clone(&status)));
    }
    if let Some(list) = identity.revoked() {
        tracing::info!(file = %list.file().display(), revoked = list.revoked().len(), "revocation list");
    }
    // Before they are read, so that what changes meanwhile is read again.
    let folders = BundleFolders::of(config);
    let engine = Arc::new(Engine::open(&config.bundles.folders, &config.engine_options())?);
    // They are started when they are needed. By now the networks have theirs.
    limits::check_threads(blocking)?;
    let limits = Limits { connections: config.connections, per_device: config.max_connections_per_device };
    let shared = Arc::new(Shared::new(
        Arc::clone(&engine),
        max_in_flight,
        limits,
        Arc::new(devices.unwrap_or_default()),
        config.request_memory << 20,
        tuning.clone(),
        config.next.clone().unwrap_or_default(),
    ));
    let notifier = Arc::new(Notifier::default());
    let (drain_timeout, drain_for) = watch::channel(config.drain_timeout);
    let unanswered = executor.block_on(async {
        let endpoint = quic::server_endpoint(address, quic, &identity, &tuning)?;
        let address = endpoint.local_addr().map_err(|source| Error::Bind { address, source })?;
        let drain = signals::drain()?;
        let enrolments = enrolment.map(|enrolment| enrolment.begin(&identity, drain.clone())).transpose()?;
        let renewal = Renewal {
            endpoint: endpoint.clone(),
            enrolments,
            shared: Arc::clone(&shared),
            status: Arc::clone(&status),
            tuning,
            drain: drain.clone(),
        };
        renewal.apply(&identity)?;
        let apply = move |identity: &Identity| renewal.apply(identity);
        let (asks, asked) = mpsc::channel(1);
        tokio::spawn(certificates.watch(identity, apply, asked, drain.clone()));
        status.ready(Served {
            engine: Arc::clone(&engine),
            metrics: Arc::clone(shared.metrics()),
            budget: Arc::clone(shared.budget()),
            connections: {
                let peers = Arc::clone(shared.peers());
                Box::new(move || peers.limits().connections)
            },
            queue: config.queue,
            drain: drain.clone(),
        });
        let oip = Oip::new(Arc::clone(&shared), config.oip.anonymous, config.batch, drain.clone());
        if let Some((address, listener)) = oip_listener {
            oip::announce(address, config.oip.anonymous);
            tokio::spawn(Arc::clone(&oip).serve(listener, config.oip.connections));
        }
        if let Some(file) = port_file {
            file.write(&address.to_string())?;
        }
        tracing::info!(%address, "listening");
        notifier.ready(&service::words(&shared));
        let engine = Arc::clone(&engine);
        tokio::spawn(service::report(Arc::clone(&notifier), Arc::clone(&shared), engine, drain.clone()));
        let status = {
            let shared = Arc::clone(&shared);
            move || service::words(&shared)
        };
        let reload = Reload {
            file: origin.map(SettingsFile::new),
            rights,
            shared: Arc::clone(&shared),
            drain_timeout,
            certificates: asks,
            bundles: folders,
            notifier,
        };
        tokio::spawn(reload.watch(hangup, drain.clone(), status));
        let for_others = drain_for.clone();
        let mut began = drain.clone();
        let others = async {
            // Neither fails before the server ends.
            let _ = began.wait_for(|draining| *draining).await;
            let time = *for_others.borrow();
            let _ = timeout(time, oip.drained()).await;
        };
        let (unanswered, ()) =
            tokio::join!(serve_quic(&endpoint, Arc::clone(&shared), drain, drain_for), others);
        Ok::<_, Error>(unanswered)
    })?;
    shared.metrics().log(&engine);
    if unanswered > 0 {
        return Err(Error::Undrained { frames: unanswered });
    }
    engine.close();
    tracing::info!("drained");
    Ok(())
}

/// The threads on which connections are served, and at most `blocking` for blocking work.
fn executor(workers: usize, blocking: usize) -> Result<Runtime, Error> {
    limits::check_files()?;
    limits::check_threads(workers + blocking)?;
    let mut executor = tokio::runtime::Builder::new_multi_thread();
    let executor = executor.worker_threads(workers).max_blocking_threads(blocking).enable_all();
    executor.build().map_err(|source| Error::Io { what: "cannot start threads".into(), source })
}

/// The parts of a running server that new certificates and a new revocation list are given to.
struct Renewal {
    endpoint: Endpoint,
    enrolments: Option<Enrolments>,
    shared: Arc<Shared>,
    status: Arc<Status>,
    tuning: Tuning,
    drain: watch::Receiver<bool>,
}

impl Renewal {
    /// Lets the server show this certificate and refuse the certificates that are revoked, have ended or are of another CA,
    /// and closes the connections of those.
    ///
    /// # Errors
    /// [`Error::Identity`] or [`Error::Quic`]; then nothing has changed.
    fn apply(&self, identity: &Identity) -> Result<(), Error> {
        let settings = quic::server_config(identity, &self.tuning)?;
        let verifier = ClientVerifier::new(identity)?;
        {
            // From the drain on there are no settings, so that QUIC refuses new connections. While this is borrowed the drain
            // does not begin, so what it sets then is not replaced here.
            let draining = self.drain.borrow();
            if !*draining {
                self.endpoint.set_server_config(Some(settings));
                self.enrolments.as_ref().map_or(Ok(()), |enrolments| enrolments.apply(identity))?;
            }
        }
        self.status.show_certificates(identity);
        let refusal = move |chain: &[CertificateDer<'static>]| {
            verifier.verify(chain).err().map(|error| error.to_string())
        };
        for (device, NotAccepted(reason)) in self.shared.peers().recheck(refusal) {
            let peer = device.name.unwrap_or_default();
            tracing::warn!(peer = %Quoted(&peer), reason, "closed, its certificate is no longer accepted");
        }
        Ok(())
    }
}
