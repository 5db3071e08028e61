//! What the dashboard shows, as JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use serde::Serialize;

use super::{Served, Status, metrics::path_name};
use crate::{
    engine::{BundleState, BundleStatus, Provider},
    frontend::metrics::{DeviceMetrics, Outcome, STAGES, Series, reason, version},
};

/// The devices that a viewer has been shown.
#[derive(Default)]
pub(super) struct Shown {
    /// Of each device how often it had changed, and whether what was shown will become old by itself.
    devices: BTreeMap<Arc<str>, (u64, bool)>,
    again: bool,
}

/// The state of the server.
#[derive(Serialize)]
pub(super) struct Overview {
    version: &'static str,
    state: &'static str,
    /// Now, in seconds since 1970.
    time: f64,
    uptime_s: u64,
    /// Whether `devices` holds those that have changed since the last event, else all.
    changes: bool,
    certificates: Vec<Certificate>,
    #[serde(flatten)]
    served: Option<Figures>,
}

/// A certificate of the server.
#[derive(Serialize)]
struct Certificate {
    file: &'static str,
    /// Its end in seconds since 1970.
    until: i64,
}

/// The figures of a server that has been ready.
#[derive(Serialize)]
struct Figures {
    bundles: Vec<BundleRow>,
    networks: Vec<NetworkRow>,
    queue_limit: usize,
    connections: usize,
    connection_limit: usize,
    memory: Memory,
    frames: Frames,
    refusals: Vec<RefusalRow>,
    handshakes_failed: u64,
    hellos_refused: u64,
    device_count: usize,
    devices: Vec<DeviceRow>,
}

#[derive(Serialize)]
struct BundleRow {
    name: String,
    /// The beginning of its digest.
    version: String,
    /// The version in its manifest.
    release: String,
    tasks: Vec<String>,
    images: bool,
    /// `loaded`, `loading` or `unloaded`.
    state: &'static str,
    /// Whether it is served only as long as something uses it.
    leaving: bool,
    /// Estimated bytes of its networks in memory.
    bytes: u64,
    /// Why what is in its folder is not served.
    fault: Option<String>,
}

#[derive(Serialize)]
struct NetworkRow {
    bundle: String,
    version: String,
    task: String,
    path: &'static str,
    provider: &'static str,
    waiting: usize,
    runs: u64,
    frames: f64,
    failed: u64,
    /// The runs by the frames in them: up to 1, 2, 4 … 256.
    sizes: Vec<u64>,
}

#[derive(Serialize)]
struct Memory {
    taken: usize,
    limit: usize,
}

/// Requests from the start of the server.
#[derive(Serialize)]
struct Frames {
    accepted: u64,
    answered: u64,
    refused: u64,
    not_accepted: u64,
    abandoned: u64,
    in_flight: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// Seconds that answered frames took in all and in each stage.
    seconds: [f64; STAGES],
}

#[derive(Serialize)]
struct RefusalRow {
    reason: String,
    count: u64,
}

#[derive(Serialize)]
struct DeviceRow {
    name: String,
    connections: usize,
    remote: Option<String>,
    /// When it was seen last, in seconds since 1970.
    seen: Option<f64>,
    rate: f64,
    path: Option<&'static str>,
    level: Option<u8>,
    /// Times on the server, in milliseconds.
    p50: Option<f64>,
    p95: Option<f64>,
    /// Mean bytes of a request.
    bytes: Option<f64>,
    answered: u64,
    refused: u64,
    refusal: Option<String>,
    /// The end of its certificate in seconds since 1970.
    until: Option<i64>,
}

/// The state of the server, with the devices that are not `shown` as they are now.
pub(super) fn overview(status: &Status, shown: &mut Shown, now: Instant) -> Overview {
    let changes = std::mem::replace(&mut shown.again, status.served().is_some());
    Overview {
        version: env!("CARGO_PKG_VERSION"),
        state: status.phase().name(),
        time: status.unix(now),
        uptime_s: status.uptime(now).as_secs(),
        changes,
        certificates: status
            .certificates()
            .iter()
            .map(|own| Certificate { file: own.file, until: own.until })
            .collect(),
        served: status.served().map(|served| figures(status, served, shown, now)),
    }
}

fn figures(status: &Status, served: &Served, shown: &mut Shown, now: Instant) -> Figures {
    let Served { engine, metrics, budget, .. } = served;
    let totals = metrics.totals();
    let mut refusals = BTreeMap::<String, u64>::new();
    for (_, code, count) in totals.outcomes() {
        if let Some(code) = code {
            *refusals.entry(reason(code)).or_default() += count;
        }
    }
    let (devices, models) = (metrics.devices(), engine.models());
    let (taken, limit) = budget.taken_of();
    let changed = devices.iter().filter_map(|device| shown.device(device, now));
    let rows = changed.map(|device| row(status, device, now)).collect();
    shown.forget_all_but(&devices);
    Figures {
        bundles: engine.bundles().iter().map(bundle).collect(),
        networks: models
            .iter()
            .flat_map(|model| model.networks())
            .map(|network| {
                let sizes = network.runs.sizes();
                NetworkRow {
                    bundle: network.bundle.name().to_owned(),
                    version: version(network.bundle.digest()),
                    task: network.task.to_owned(),
                    path: if network.unsplit { "image" } else { "split" },
                    provider: match network.provider {
                        Provider::Cpu => "CPU",
                        Provider::Cuda => "CUDA",
                    },
                    waiting: network.waiting,
                    runs: sizes.count(),
                    frames: sizes.sum(),
                    failed: network.runs.failed.value(),
                    sizes: sizes.buckets().map(|(_, count)| count).collect(),
                }
            })
            .collect(),
        queue_limit: served.queue,
        connections: devices.iter().map(|device| device.connections()).sum(),
        connection_limit: (served.connections)(),
        memory: Memory { taken, limit },
        frames: frames(&totals),
        refusals: refusals.into_iter().map(|(reason, count)| RefusalRow { reason, count }).collect(),
        handshakes_failed: metrics.handshakes_failed.value(),
        hellos_refused: metrics.hellos_refused.value(),
        device_count: devices.len(),
        devices: rows,
    }
}

fn bundle(served: &BundleStatus) -> BundleRow {
    let bundle = &served.bundle;
    BundleRow {
        name: bundle.name().to_owned(),
        version: version(bundle.digest()),
        release: bundle.manifest().version().to_owned(),
        tasks: bundle.tasks().iter().map(|task| task.name.clone()).collect(),
        images: (0..bundle.tasks().len()).any(|task| served.serves_unsplit(task)),
        state: match served.state {
            BundleState::Loaded => "loaded",
            BundleState::Loading => "loading",
            BundleState::Unloaded => "unloaded",
        },
        leaving: served.is_leaving,
        bytes: served.bytes,
        fault: served.fault.clone(),
    }
}

fn frames(totals: &Series) -> Frames {
    let mut seconds = [0.0; STAGES];
    for times in totals.times() {
        seconds.iter_mut().zip(&times.stages).for_each(|(sum, stage)| *sum += stage.sum());
    }
    Frames {
        accepted: totals.accepted_in_all(),
        answered: totals.count(Outcome::Answered),
        refused: totals.count(Outcome::Refused),
        not_accepted: totals.count(Outcome::NotAccepted),
        abandoned: totals.count(Outcome::Abandoned),
        in_flight: totals.in_flight(),
        bytes_in: totals.paths().iter().map(|(_, counts)| counts.bytes_in).sum(),
        bytes_out: totals.bytes_out,
        seconds,
    }
}

impl Shown {
    /// The device, if it is to be shown anew.
    fn device<'a>(&mut self, device: &'a Arc<DeviceMetrics>, now: Instant) -> Option<&'a DeviceMetrics> {
        let changes = device.changes();
        if self.devices.get(&device.name) == Some(&(changes, false)) {
            return None;
        }
        let is_moving = device.rate(now) > 0.0;
        self.devices.insert(Arc::clone(&device.name), (changes, is_moving));
        Some(device)
    }

    /// Forgets the devices that the server has forgotten. All of `known` have been shown.
    fn forget_all_but(&mut self, known: &[Arc<DeviceMetrics>]) {
        if self.devices.len() > known.len() {
            let names: BTreeSet<&str> = known.iter().map(|device| &*device.name).collect();
            self.devices.retain(|name, _| names.contains(&**name));
        }
    }
}

fn row(status: &Status, device: &DeviceMetrics, now: Instant) -> DeviceRow {
    let (recent, (answered, refused)) = (device.recent(), device.answered_and_refused());
    let ms = |share| recent.latency(share).map(|seconds| seconds * 1000.0);
    DeviceRow {
        name: device.name.to_string(),
        connections: recent.connections,
        remote: recent.remote.map(|address| address.to_string()),
        seen: recent.seen.map(|seen| status.unix(seen)),
        rate: device.rate(now),
        path: recent.path.map(path_name),
        level: recent.level,
        p50: ms(0.5),
        p95: ms(0.95),
        bytes: recent.bytes_per_frame(),
        answered,
        refused,
        refusal: recent.refusal.map(reason),
        until: recent.certificate_until,
    }
}
