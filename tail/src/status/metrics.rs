//! The metrics in Prometheus' text form.

use std::{
    fmt::{self, Debug, Formatter},
    sync::Arc,
    time::UNIX_EPOCH,
};

use narrows_wire::Path;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, prometheus_text},
    metrics::MetricType,
    registry::Registry,
};
pub(super) use prometheus_text::CONTENT_TYPE;

use super::{
    Phase, Served, Status,
    names::{self, Definition, Kind},
    process::Process,
};
use crate::{
    engine::{BundleState, BundleStatus, Counter, Histogram, NetworkStatus},
    frontend::metrics::{DeviceMetrics, Metrics, OTHERS, Outcome, STAGES, Series, reason, version},
};

/// All metrics, now.
pub(super) fn text(status: &Arc<Status>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(Arc::clone(status))));
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

/// Encodes the metrics at the time of a scrape.
struct Snapshot(Arc<Status>);

impl Debug for Snapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

/// The labels of a sample.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// The value of a sample.
enum Value<'a> {
    Count(u64),
    Number(f64),
    Distribution(&'a Histogram),
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (status, mut to) = (&*self.0, Writer(encoder));
        to.one(&names::READY, f64::from(u8::from(status.phase() == Phase::Ready)))?;
        to.samples(&names::BUILD, [(vec![("version", env!("CARGO_PKG_VERSION"))], Value::Number(1.0))])?;
        if let Some(served) = status.served() {
            to.bundles(served)?;
            to.connections(served)?;
            let (named, others) = served.metrics.named_and_others(status.named);
            to.devices(status, &named)?;
            to.frames(&named, others)?;
            to.engine(served)?;
        }
        let certificates = status.certificates();
        let ends = certificates.iter().map(|own| (vec![("file", own.file)], Value::Number(own.until as f64)));
        to.samples(&names::CERTIFICATE, ends)?;
        let started = status.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        to.one(&names::PROCESS_START, started.as_secs_f64())?;
        let process = Process::read();
        to.samples(&names::PROCESS_CPU, process.cpu_seconds.map(|own| (vec![], Value::Number(own))))?;
        to.samples(&names::PROCESS_MEMORY, process.resident.map(|own| (vec![], Value::Number(own as f64))))?;
        to.samples(&names::PROCESS_FILES, process.open_files.map(|own| (vec![], Value::Number(own as f64))))
    }
}

/// A figure of a bundle.
type BundleFigure = fn(&BundleStatus) -> f64;

/// Writes metrics one after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    /// Writes a metric with its samples.
    fn samples<'a>(
        &mut self,
        definition: &Definition,
        samples: impl IntoIterator<Item = (Labels<'a>, Value<'a>)>,
    ) -> fmt::Result {
        let kind = match definition.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let mut metric = self.0.encode_descriptor(definition.name, definition.help, None, kind)?;
        for (labels, value) in samples {
            debug_assert!(labels.iter().map(|(name, _)| name).eq(definition.labels), "{}", definition.name);
            let mut sample = metric.encode_family(&labels)?;
            match (definition.kind, value) {
                (Kind::Counter, Value::Count(count)) => {
                    sample.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
                }
                (Kind::Counter, Value::Number(number)) => {
                    sample.encode_counter::<NoLabelSet, _, f64>(&number, None)?;
                }
                (_, Value::Count(count)) => sample.encode_gauge(&count)?,
                (_, Value::Number(number)) => sample.encode_gauge(&number)?,
                (_, Value::Distribution(values)) => {
                    let buckets: Vec<(f64, u64)> = values.buckets().collect();
                    sample.encode_histogram::<NoLabelSet>(values.sum(), values.count(), &buckets, None)?;
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, definition: &Definition, value: f64) -> fmt::Result {
        self.samples(definition, [(vec![], Value::Number(value))])
    }

    fn count(&mut self, definition: &Definition, counter: &Counter) -> fmt::Result {
        self.samples(definition, [(vec![], Value::Count(counter.value()))])
    }

    fn by(
        &mut self,
        definition: &Definition,
        label: &'static str,
        counts: &[(&'static str, u64)],
    ) -> fmt::Result {
        self.samples(
            definition,
            counts.iter().map(|(name, count)| (vec![(label, *name)], Value::Count(*count))),
        )
    }

    fn bundles(&mut self, served: &Served) -> fmt::Result {
        let bundles: Vec<_> = served
            .engine
            .bundles()
            .into_iter()
            .map(|own| (version(own.bundle.digest()), own.bundle.digest().to_string(), own))
            .collect();
        let labels = bundles.iter().map(|(version, digest, own)| {
            vec![("bundle", own.bundle.name()), ("version", version.as_str()), ("digest", digest.as_str())]
        });
        self.samples(&names::BUNDLE, labels.map(|labels| (labels, Value::Number(1.0))))?;
        let figures: [(&Definition, BundleFigure); 4] = [
            (&names::BUNDLE_LOADED, |own| f64::from(u8::from(own.state == BundleState::Loaded))),
            (&names::BUNDLE_LEAVING, |own| f64::from(u8::from(own.is_leaving))),
            (&names::BUNDLE_FAULT, |own| f64::from(u8::from(own.fault.is_some()))),
            (&names::BUNDLE_MEMORY, |own| own.bytes as f64),
        ];
        for (definition, figure) in figures {
            let samples = bundles.iter().map(|(version, _, own)| {
                let labels = vec![("bundle", own.bundle.name()), ("version", version.as_str())];
                (labels, Value::Number(figure(own)))
            });
            self.samples(definition, samples)?;
        }
        let counts = served.engine.metrics();
        let loads = [("loaded", &counts.bundles_loaded), ("failed", &counts.bundles_failed)];
        self.by(&names::BUNDLE_LOADS, "outcome", &loads.map(|(name, count)| (name, count.value())))?;
        let unloads = [("left", &counts.bundles_left), ("evicted", &counts.bundles_evicted)];
        self.by(&names::BUNDLE_UNLOADS, "reason", &unloads.map(|(name, count)| (name, count.value())))
    }

    fn connections(&mut self, served: &Served) -> fmt::Result {
        let metrics: &Metrics = &served.metrics;
        let devices = metrics.devices();
        let open: usize = devices.iter().map(|device| device.connections()).sum();
        self.one(&names::CONNECTIONS, open as f64)?;
        self.one(&names::CONNECTION_LIMIT, (served.connections)() as f64)?;
        self.count(&names::CONNECTIONS_OPENED, &metrics.connections)?;
        let (server_full, device_full) = (metrics.server_full.value(), metrics.device_full.value());
        let no_rights = metrics.not_permitted.value();
        let other = metrics.hellos_refused.value().saturating_sub(server_full + device_full + no_rights);
        let refused = [
            ("server_full", server_full),
            ("device_full", device_full),
            ("no_rights", no_rights),
            ("other", other),
        ];
        self.by(&names::CONNECTIONS_REFUSED, "reason", &refused)?;
        let closed = [
            ("replaced", metrics.connections_replaced.value()),
            ("no_hello", metrics.without_hello.value()),
            ("revoked", metrics.revoked.value()),
            ("violation", metrics.violations.value()),
        ];
        self.by(&names::CONNECTIONS_CLOSED, "reason", &closed)?;
        let evicted = metrics.handshakes_evicted.value();
        let handshakes = [
            ("completed", metrics.handshakes.value()),
            ("failed", metrics.handshakes_failed.value().saturating_sub(evicted)),
            ("evicted", evicted),
            ("retried", metrics.handshakes_retried.value()),
            ("ignored", metrics.handshakes_ignored.value()),
        ];
        self.by(&names::HANDSHAKES, "outcome", &handshakes)?;
        self.one(&names::DEVICES, devices.len() as f64)
    }

    fn devices(&mut self, status: &Status, named: &[Arc<DeviceMetrics>]) -> fmt::Result {
        let recent: Vec<_> = named.iter().map(|device| (&*device.name, device.recent())).collect();
        let label = |name| vec![("device", name)];
        let connections =
            recent.iter().map(|(name, own)| (label(*name), Value::Number(own.connections as f64)));
        self.samples(&names::DEVICE_CONNECTIONS, connections)?;
        let seen = recent
            .iter()
            .filter_map(|(name, own)| Some((label(*name), Value::Number(status.unix(own.seen?)))));
        self.samples(&names::DEVICE_SEEN, seen)?;
        let ends = recent
            .iter()
            .filter_map(|(name, own)| Some((label(*name), Value::Number(own.certificate_until? as f64))));
        self.samples(&names::DEVICE_CERTIFICATE, ends)
    }

    fn frames(&mut self, named: &[Arc<DeviceMetrics>], others: Series) -> fmt::Result {
        let mut devices: Vec<(&str, Series)> =
            named.iter().map(|device| (&*device.name, device.series())).collect();
        let in_flight =
            devices.iter().map(|(_, series)| series.in_flight()).sum::<u64>() + others.in_flight();
        devices.push((OTHERS, others));
        let paths = |value: fn(&Series) -> [(Path, u64); 2]| {
            devices.iter().flat_map(move |(device, series)| {
                let used = value(series).into_iter().filter(|(_, count)| *count > 0);
                used.map(|(path, count)| {
                    (vec![("path", path_name(path)), ("device", *device)], Value::Count(count))
                })
            })
        };
        let accepted = paths(|series| series.paths().map(|(path, counts)| (path, counts.accepted)));
        self.samples(&names::ACCEPTED, accepted)?;
        let outcomes: Vec<_> = devices
            .iter()
            .flat_map(|(device, series)| series.outcomes().map(move |outcome| (*device, outcome)))
            .map(|(device, (outcome, code, count))| {
                (device, outcome, code.map_or(String::new(), reason), count)
            })
            .collect();
        let outcomes = outcomes.iter().map(|(device, outcome, reason, count)| {
            let labels = vec![("outcome", Outcome::name(*outcome)), ("reason", reason), ("device", *device)];
            (labels, Value::Count(*count))
        });
        self.samples(&names::REQUESTS, outcomes)?;
        self.one(&names::IN_FLIGHT, in_flight as f64)?;
        let bytes = paths(|series| series.paths().map(|(path, counts)| (path, counts.bytes_in)));
        self.samples(&names::REQUEST_BYTES, bytes)?;
        let sent = devices.iter().filter(|(_, series)| series.bytes_out > 0);
        let sent = sent.map(|(device, series)| (vec![("device", *device)], Value::Count(series.bytes_out)));
        self.samples(&names::RESPONSE_BYTES, sent)?;
        self.stages(&devices)?;
        self.packets(&devices)
    }

    fn stages(&mut self, devices: &[(&str, Series)]) -> fmt::Result {
        let times: Vec<_> = devices
            .iter()
            .flat_map(|(device, series)| {
                series.times().iter().map(move |times| (*device, times, times.version()))
            })
            .collect();
        let definitions = [
            names::REQUEST_DURATION,
            names::DECODE_DURATION,
            names::QUEUE_DURATION,
            names::INFER_DURATION,
            names::ANSWER_DURATION,
        ];
        debug_assert_eq!(definitions.len(), STAGES);
        for (stage, definition) in definitions.iter().enumerate() {
            let samples = times.iter().map(|(device, times, version)| {
                let mut labels = network(&times.bundle, version, &times.task, path_name(times.path));
                labels.push(("device", device));
                (labels, Value::Distribution(&times.stages[stage]))
            });
            self.samples(definition, samples)?;
        }
        Ok(())
    }

    fn packets(&mut self, devices: &[(&str, Series)]) -> fmt::Result {
        // Tasks and devices apart, the counts of a bundle.
        let mut packets: Vec<(&str, String, &str, [u64; 3])> = Vec::new();
        for (device, series) in devices {
            for times in series.times().iter().filter(|times| times.groups.1 > 0) {
                let counts = [times.truncated, times.groups.0, times.groups.1];
                let version = times.version();
                let same = packets.iter_mut().find(|(bundle, own, of, _)| {
                    (*bundle, own, *of) == (times.bundle.as_str(), &version, *device)
                });
                match same {
                    Some((.., sum)) => sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
                    None => packets.push((&times.bundle, version, device, counts)),
                }
            }
        }
        let definitions = [names::PACKETS_TRUNCATED, names::GROUPS_ANSWERED, names::GROUPS_ENCODED];
        for (which, definition) in definitions.iter().enumerate() {
            let samples = packets.iter().map(|(bundle, version, device, counts)| {
                let labels = vec![("bundle", *bundle), ("version", version.as_str()), ("device", *device)];
                (labels, Value::Count(counts[which]))
            });
            self.samples(definition, samples)?;
        }
        Ok(())
    }

    fn engine(&mut self, served: &Served) -> fmt::Result {
        let Served { engine, metrics, budget, .. } = served;
        let models = engine.models();
        let networks: Vec<_> = models
            .iter()
            .flat_map(|model| model.networks())
            .map(|own| (own, version(own.bundle.digest()), own.runs.sizes()))
            .collect();
        let sizes = networks.iter().map(|own| (of_network(own), Value::Distribution(&own.2)));
        self.samples(&names::BATCH_SIZE, sizes)?;
        let failed = networks.iter().map(|own| (of_network(own), Value::Count(own.0.runs.failed.value())));
        self.samples(&names::RUN_FAILURES, failed)?;
        let waiting = networks.iter().map(|own| (of_network(own), Value::Number(own.0.waiting as f64)));
        self.samples(&names::PENDING, waiting)?;
        self.one(&names::QUEUE_LIMIT, served.queue as f64)?;
        self.count(&names::EXPIRED, &engine.metrics().expired)?;
        let engine_counts = engine.metrics();
        let refusals = [
            ("queue_full", &engine_counts.queue_full),
            ("backlog_too_long", &engine_counts.backlog_too_long),
            ("frame_quota", &engine_counts.frame_quota),
            ("time_quota", &engine_counts.time_quota),
            ("displaced", &engine_counts.displaced),
            ("no_time_left", &engine_counts.hopeless),
        ];
        let refusals = refusals.map(|(reason, count)| (reason, count.value()));
        self.by(&names::SCHEDULER_REFUSALS, "reason", &refusals)?;
        self.count(&names::DECODE_FAILURES, &engine.metrics().decode_failures)?;
        self.count(&names::IMAGES_BUSY, &engine.metrics().images_busy)?;
        let (taken, limit) = budget.taken_of();
        self.one(&names::MEMORY, taken as f64)?;
        self.one(&names::MEMORY_LIMIT, limit as f64)?;
        self.count(&names::MEMORY_REFUSALS, &metrics.no_memory)?;
        self.count(&names::UNREAD, &metrics.unread)
    }
}

/// The labels of a network.
fn network<'a>(bundle: &'a str, version: &'a str, task: &'a str, path: &'a str) -> Labels<'a> {
    vec![("bundle", bundle), ("version", version), ("task", task), ("path", path)]
}

/// The labels of a network of the engine.
fn of_network<'a>((own, version, _): &'a (NetworkStatus<'_>, String, Histogram)) -> Labels<'a> {
    let path = if own.unsplit { Path::Image } else { Path::Split };
    network(own.bundle.name(), version, own.task, path_name(path))
}

/// The name of a path in metrics.
pub(super) fn path_name(path: Path) -> &'static str {
    if path == Path::Image { "image" } else { "split" }
}
