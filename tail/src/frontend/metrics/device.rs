//! What is counted and remembered of one device.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use narrows_wire::{Path, RefusalCode};

use super::series::{Asked, Outcome, Series, total};
use crate::engine::{Groups, Timings};

/// Frames of a device whose latencies and sizes are remembered.
const RECENT: usize = 128;

/// Seconds of which a device's answers are remembered: those that its rate is taken over, and the one that has just begun.
const RATE_SECONDS: usize = 10;

/// One device. Its counts stay when it disconnects.
#[derive(Debug)]
pub(crate) struct DeviceMetrics {
    /// The name of its certificate.
    pub(crate) name: Arc<str>,
    /// How many devices were known before it.
    pub(super) number: u64,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    series: Series,
    now: Recent,
    changes: u64,
}

/// The state of a device for people to look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    /// Its open connections.
    pub(crate) connections: usize,
    /// The address of its newest connection.
    pub(crate) remote: Option<SocketAddr>,
    /// The end of its certificate, in seconds since 1970.
    pub(crate) certificate_until: Option<i64>,
    /// When it connected or sent a request last.
    pub(crate) seen: Option<Instant>,
    /// The path and the rate level of its newest request.
    pub(crate) path: Option<Path>,
    pub(crate) level: Option<u8>,
    /// Why its newest refused request was refused.
    pub(crate) refusal: Option<RefusalCode>,
    /// The times of the newest answers, in seconds.
    latencies: VecDeque<f32>,
    /// The bytes of the newest requests.
    sizes: VecDeque<u32>,
    /// Answers in the seconds from the start, each second in the place of its number modulo the length.
    seconds: [(u64, u32); RATE_SECONDS],
}

/// A request that was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) path: Path,
    /// The rate level of a packet.
    pub(crate) level: Option<u8>,
    /// The bytes of the request.
    pub(crate) bytes: usize,
}

/// An open connection of a device, which counts until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<DeviceMetrics>);

impl DeviceMetrics {
    pub(super) fn new(name: Arc<str>, number: u64, started: Instant) -> DeviceMetrics {
        DeviceMetrics { name, number, started, state: Mutex::default() }
    }

    /// Counts a connection that is open from now on, with the end of the certificate in seconds since 1970.
    pub(crate) fn connected(
        self: &Arc<Self>,
        now: Instant,
        remote: SocketAddr,
        certificate_until: Option<i64>,
    ) -> OpenConnection {
        let mut state = self.change();
        let Recent { connections, remote: last, certificate_until: until, seen, .. } = &mut state.now;
        *connections += 1;
        (*last, *until, *seen) = (Some(remote), certificate_until, Some(now));
        OpenConnection(Arc::clone(self))
    }

    /// Counts an accepted request.
    pub(crate) fn accepted(&self, now: Instant, Arrival { path, level, bytes }: Arrival) {
        let mut state = self.change();
        state.series.accepted(path, bytes as u64);
        let recent = &mut state.now;
        (recent.seen, recent.path, recent.level) = (Some(now), Some(path), level);
        push(&mut recent.sizes, u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Counts the answer to a request that arrived at `arrived`.
    pub(crate) fn answered(
        &self,
        arrived: Instant,
        asked: &Asked,
        timings: &Timings,
        groups: Option<Groups>,
    ) {
        let total = total(timings);
        let second = (arrived + total).saturating_duration_since(self.started).as_secs();
        let mut state = self.change();
        state.series.answered(asked, timings, groups);
        push(&mut state.now.latencies, total.as_secs_f32());
        let place = &mut state.now.seconds[(second % RATE_SECONDS as u64) as usize];
        if place.0 != second {
            *place = (second, 0);
        }
        place.1 += 1;
    }

    /// Counts a request that was refused, after it was accepted or before.
    pub(crate) fn refused(&self, outcome: Outcome, code: RefusalCode) {
        let mut state = self.change();
        state.series.ended(outcome, Some(code), 1);
        state.now.refusal = Some(code);
    }

    /// Counts accepted requests that the peer gave up or left behind.
    pub(crate) fn abandoned(&self, count: usize) {
        self.lock().series.ended(Outcome::Abandoned, None, count as u64);
    }

    /// Counts the bytes of a reply or refusal.
    pub(crate) fn sent(&self, bytes: usize) {
        self.lock().series.bytes_out += bytes as u64;
    }

    /// What was counted.
    pub(crate) fn series(&self) -> Series {
        self.lock().series.clone()
    }

    /// Adds what was counted to `sum`.
    pub(super) fn add_to(&self, sum: &mut Series) {
        sum.merge(&self.lock().series);
    }

    /// How often it has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Its open connections.
    pub(crate) fn connections(&self) -> usize {
        self.lock().now.connections
    }

    /// What is to be shown of it.
    pub(crate) fn recent(&self) -> Recent {
        self.lock().now.clone()
    }

    /// The number of its requests by outcome: answered, and refused before or after they were accepted.
    pub(crate) fn answered_and_refused(&self) -> (u64, u64) {
        let series = &self.lock().series;
        (series.count(Outcome::Answered), series.count(Outcome::Refused) + series.count(Outcome::NotAccepted))
    }

    /// Answers a second in the last nine whole seconds before `now`.
    pub(crate) fn rate(&self, now: Instant) -> f64 {
        self.lock().now.rate(now.saturating_duration_since(self.started))
    }

    /// The state, which is about to be changed.
    fn change(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.changes += 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.change().now.connections -= 1;
    }
}

impl Recent {
    /// The time within which this share of the newest answers came, in seconds; `None` before the first.
    pub(crate) fn latency(&self, share: f64) -> Option<f64> {
        let mut sorted: Vec<f32> = self.latencies.iter().copied().collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        Some(sorted[(share * last as f64).round() as usize].into())
    }

    /// The mean bytes of the newest requests; `None` before the first.
    pub(crate) fn bytes_per_frame(&self) -> Option<f64> {
        let sum: f64 = self.sizes.iter().map(|size| f64::from(*size)).sum();
        (!self.sizes.is_empty()).then(|| sum / self.sizes.len() as f64)
    }

    /// Answers a second in the whole seconds before `time` from the start.
    fn rate(&self, time: Duration) -> f64 {
        let now = time.as_secs();
        // The second that has just begun is left out, and with it the one whose place it takes.
        let window = (RATE_SECONDS as u64 - 1).min(now);
        let counted = self.seconds.iter().filter(|(second, _)| (now - window..now).contains(second));
        let answers: u32 = counted.map(|(_, count)| count).sum();
        f64::from(answers) / window.max(1) as f64
    }
}

fn push<T>(values: &mut VecDeque<T>, value: T) {
    if values.len() >= RECENT {
        values.pop_front();
    }
    values.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_whole_seconds() {
        let mut recent = Recent::default();
        assert_eq!(recent.rate(Duration::ZERO), 0.0);
        for second in 0..30 {
            recent.seconds[second % RATE_SECONDS] = (second as u64, 4);
        }
        assert_eq!(recent.rate(Duration::from_secs(30)), 4.0);
        // The device has been silent for five of nine seconds.
        assert!((recent.rate(Duration::from_millis(35_900)) - 16.0 / 9.0).abs() < 1e-9);
        assert_eq!(recent.rate(Duration::from_secs(40)), 0.0);
    }

    #[test]
    fn latencies_and_sizes_are_those_of_the_newest_frames() {
        let mut recent = Recent::default();
        assert_eq!((recent.latency(0.5), recent.bytes_per_frame()), (None, None));
        (0..1000u16).for_each(|value| {
            push(&mut recent.latencies, f32::from(value));
            push(&mut recent.sizes, u32::from(value));
        });
        assert_eq!((recent.latency(0.0), recent.latency(1.0)), (Some(872.0), Some(999.0)));
        assert_eq!((recent.latency(0.5), recent.bytes_per_frame()), (Some(936.0), Some(935.5)));
    }
}
