//! The server's counters of connections, devices, frames and stages. They are exposed while it runs and logged when it has
//! drained.

mod device;
mod series;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use narrows_wire::Path;

pub(crate) use self::{
    device::{Arrival, DeviceMetrics},
    series::{Asked, Outcome, PathCounts, STAGES, Series, StageTimes, reason, version},
};
use crate::engine::{Counter, Engine, Histogram};

/// Devices that are remembered one by one, each in about 3 kB.
const KNOWN_DEVICES: usize = 10_000;

/// The name that stands in metrics for the devices without metrics of their own.
pub(crate) const OTHERS: &str = "other";

/// Counters of the front ends, from their start.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Connections whose handshake and hello succeeded.
    pub(crate) connections: Counter,
    /// Handshakes that succeeded.
    pub(crate) handshakes: Counter,
    /// Handshakes that failed: no certificate, a foreign one, a timeout.
    pub(crate) handshakes_failed: Counter,
    /// First packets that were answered with the demand to validate the source address (QUIC Retry).
    pub(crate) handshakes_retried: Counter,
    /// First packets of validated addresses that were dropped because too many connections were in memory.
    pub(crate) handshakes_ignored: Counter,
    /// Handshakes given up in favour of newer ones; they are among the failed.
    pub(crate) handshakes_evicted: Counter,
    /// Authenticated connections that were closed because their certificate is no longer accepted.
    pub(crate) revoked: Counter,
    /// Authenticated connections that ended without a hello.
    pub(crate) without_hello: Counter,
    /// Hellos refused because the limit of connections was reached.
    pub(crate) server_full: Counter,
    /// Hellos refused because the device had as many connections as it may have.
    pub(crate) device_full: Counter,
    /// Silent connections closed in favour of a newer one of the same device.
    pub(crate) connections_replaced: Counter,
    /// Hellos refused because the device's name has no rights.
    pub(crate) not_permitted: Counter,
    /// Hellos refused, for these and other reasons.
    pub(crate) hellos_refused: Counter,
    /// Connections closed because the peer broke the protocol.
    pub(crate) violations: Counter,
    /// Requests and replies refused because the budget of memory was used up.
    pub(crate) no_memory: Counter,
    /// Replies and refusals dropped because the peer did not read them in time.
    pub(crate) unread: Counter,
    started: Instant,
    devices: Mutex<Devices>,
}

#[derive(Debug, Default)]
struct Devices {
    known: BTreeMap<Arc<str>, Arc<DeviceMetrics>>,
    next: u64,
    /// What was counted of devices that are no longer known.
    forgotten: Series,
}

impl Metrics {
    /// Counters that begin at `started`.
    pub(crate) fn new(started: Instant) -> Metrics {
        let zero = Counter::default;
        Metrics {
            connections: zero(),
            handshakes: zero(),
            handshakes_failed: zero(),
            handshakes_retried: zero(),
            handshakes_ignored: zero(),
            handshakes_evicted: zero(),
            revoked: zero(),
            without_hello: zero(),
            server_full: zero(),
            device_full: zero(),
            not_permitted: zero(),
            connections_replaced: zero(),
            hellos_refused: zero(),
            violations: zero(),
            no_memory: zero(),
            unread: zero(),
            started,
            devices: Mutex::default(),
        }
    }

    /// The counts of the device of this name. Of too many devices the one that has been away longest is forgotten; its counts
    /// stay in the totals.
    pub(crate) fn device(&self, name: &str) -> Arc<DeviceMetrics> {
        let mut devices = self.lock();
        if let Some(device) = devices.known.get(name) {
            return Arc::clone(device);
        }
        if devices.known.len() >= KNOWN_DEVICES {
            devices.forget_one();
        }
        let device = Arc::new(DeviceMetrics::new(name.into(), devices.next, self.started));
        devices.next += 1;
        devices.known.insert(Arc::clone(&device.name), Arc::clone(&device));
        device
    }

    /// The known devices, by their names.
    pub(crate) fn devices(&self) -> Vec<Arc<DeviceMetrics>> {
        self.lock().known.values().cloned().collect()
    }

    /// The first `named` devices that were known, and what was counted of all others.
    pub(crate) fn named_and_others(&self, named: usize) -> (Vec<Arc<DeviceMetrics>>, Series) {
        let devices = self.lock();
        let mut others = devices.forgotten.clone();
        let mut own = Vec::new();
        for device in devices.known.values() {
            match usize::try_from(device.number) {
                // A device may have the name of the others.
                Ok(number) if number < named && *device.name != *OTHERS => own.push(Arc::clone(device)),
                _ => device.add_to(&mut others),
            }
        }
        (own, others)
    }

    /// What was counted of all devices.
    pub(crate) fn totals(&self) -> Series {
        self.named_and_others(0).1
    }

    fn lock(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all counters, those of the engine included, to the log.
    pub(crate) fn log(&self, engine: &Engine) {
        tracing::info!(
            connections = self.connections.value(),
            replaced = self.connections_replaced.value(),
            without_hello = self.without_hello.value(),
            revoked = self.revoked.value(),
            hellos_refused = self.hellos_refused.value(),
            server_full = self.server_full.value(),
            device_full = self.device_full.value(),
            not_permitted = self.not_permitted.value(),
            violations = self.violations.value(),
            "connections"
        );
        tracing::info!(
            failed = self.handshakes_failed.value(),
            evicted = self.handshakes_evicted.value(),
            retried = self.handshakes_retried.value(),
            ignored = self.handshakes_ignored.value(),
            "handshakes"
        );
        let frames = self.totals();
        tracing::info!(
            accepted = frames.accepted_in_all(),
            answered = frames.count(Outcome::Answered),
            refused = frames.count(Outcome::Refused),
            not_accepted = frames.count(Outcome::NotAccepted),
            abandoned = frames.count(Outcome::Abandoned),
            no_memory = self.no_memory.value(),
            unread = self.unread.value(),
            images_busy = engine.metrics().images_busy.value(),
            decode_failures = engine.metrics().decode_failures.value(),
            expired = engine.metrics().expired.value(),
            hopeless = engine.metrics().hopeless.value(),
            displaced = engine.metrics().displaced.value(),
            queue_full = engine.metrics().queue_full.value(),
            backlog_too_long = engine.metrics().backlog_too_long.value(),
            frame_quota = engine.metrics().frame_quota.value(),
            time_quota = engine.metrics().time_quota.value(),
            bytes_out = frames.bytes_out,
            "frames"
        );
        let mut sizes = Histogram::default();
        let models = engine.models();
        let networks = || models.iter().flat_map(|model| model.networks());
        networks().for_each(|network| sizes.merge(&network.runs.sizes()));
        tracing::info!(
            runs = sizes.count(),
            // A sum of whole numbers.
            frames = sizes.sum() as u64,
            largest = networks().map(|network| network.runs.largest.value()).max().unwrap_or_default(),
            failed = networks().map(|network| network.runs.failed.value()).sum::<u64>(),
            "runs of the networks in memory"
        );
        for (path, counts) in frames.paths() {
            log_path(path, counts, frames.times());
        }
    }
}

impl Devices {
    fn forget_one(&mut self) {
        // Those that nobody else holds have no connection.
        let gone = self.known.values().filter(|device| Arc::strong_count(device) == 1);
        let Some(oldest) = gone.min_by_key(|device| device.recent().seen) else { return };
        let name = Arc::clone(&oldest.name);
        if let Some(device) = self.known.remove(&name) {
            device.add_to(&mut self.forgotten);
        }
    }
}

fn log_path(path: Path, counts: PathCounts, times: &[StageTimes]) {
    if counts.accepted == 0 {
        return;
    }
    let times: Vec<&StageTimes> = times.iter().filter(|times| times.path == path).collect();
    let sum = |stage: usize| times.iter().map(|times| times.stages[stage].sum()).sum::<f64>();
    let answered: u64 = times.iter().map(|times| times.stages[0].count()).sum();
    let mean_ms = |stage: usize| sum(stage) * 1000.0 / answered.max(1) as f64;
    tracing::info!(
        %path,
        accepted = counts.accepted,
        bytes_in = counts.bytes_in,
        answered,
        decode_ms = mean_ms(1),
        queue_ms = mean_ms(2),
        infer_ms = mean_ms(3),
        answer_ms = mean_ms(4),
        "frames of a path, mean stages of the answered"
    );
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
mod tests {
    use narrows_wire::RefusalCode;

    use super::*;

    fn arrival(path: Path, bytes: usize) -> Arrival {
        Arrival { path, level: Some(2), bytes }
    }

    #[test]
    fn what_is_counted_of_devices_adds_up() {
        let now = Instant::now();
        let metrics = Metrics::new(now);
        let (first, second) = (metrics.device("a"), metrics.device("b"));
        assert_eq!(metrics.device("a").name, first.name);
        first.accepted(now, arrival(Path::Image, 900));
        first.accepted(now, arrival(Path::Split, 40));
        second.accepted(now, arrival(Path::Split, 50));
        second.refused(Outcome::Refused, RefusalCode::Busy);
        second.refused(Outcome::NotAccepted, RefusalCode::Expired);
        first.abandoned(1);
        first.sent(7);
        let totals = metrics.totals();
        assert_eq!((totals.accepted_in_all(), totals.in_flight(), totals.bytes_out), (3, 1, 7));
        let [(_, split), (_, image)] = totals.paths();
        assert_eq!((split.bytes_in, image.bytes_in, split.accepted), (90, 900, 2));
        let outcomes: Vec<_> = totals.outcomes().collect();
        assert_eq!(
            outcomes,
            [
                (Outcome::Refused, Some(RefusalCode::Busy), 1),
                (Outcome::NotAccepted, Some(RefusalCode::Expired), 1),
                (Outcome::Abandoned, None, 1),
            ]
        );
        let (named, others) = metrics.named_and_others(1);
        assert_eq!((named.len(), &*named[0].name, others.accepted_in_all()), (1, "a", 1));
    }

    #[test]
    fn connections_count_until_they_end() {
        let now = Instant::now();
        let metrics = Metrics::new(now);
        let device = metrics.device("a");
        let remote = "127.0.0.1:1".parse().unwrap();
        let open = [1, 2].map(|until| device.connected(now, remote, Some(until)));
        assert_eq!((device.recent().connections, device.recent().certificate_until), (2, Some(2)));
        drop(open);
        assert_eq!((device.recent().connections, device.recent().seen), (0, Some(now)));
    }

    #[test]
    fn of_too_many_devices_the_one_longest_away_is_forgotten_and_stays_in_the_totals() {
        let now = Instant::now();
        let metrics = Metrics::new(now);
        let open: Vec<_> = (0..2)
            .map(|number| {
                metrics.device(&number.to_string()).connected(now, "127.0.0.1:1".parse().unwrap(), None)
            })
            .collect();
        (2..KNOWN_DEVICES as u64).for_each(|number| {
            let at = now + std::time::Duration::from_secs(if number == 700 { 1 } else { number });
            metrics.device(&number.to_string()).accepted(at, arrival(Path::Split, 1));
        });
        metrics.device("late").accepted(now, arrival(Path::Split, 1));
        let names: Vec<_> = metrics.devices().iter().map(|device| device.name.to_string()).collect();
        assert_eq!(names.len(), KNOWN_DEVICES);
        assert!(!names.contains(&"700".to_owned()) && names.contains(&"0".to_owned()));
        assert_eq!(metrics.totals().accepted_in_all(), KNOWN_DEVICES as u64 - 1);
        drop(open);
    }
}
