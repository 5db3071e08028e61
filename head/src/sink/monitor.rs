//! Figures of each camera, from its lines.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::report::{
    CameraStatus, ClassScore, DeviceStatus, Latency, Line, RunState, SpoolTally, Status, Tally,
};

/// The time that rates and latencies are taken over.
const WINDOW: Duration = Duration::from_secs(10);
/// Most frames that rates and latencies are taken over.
const MOST: usize = 600;

/// What never changes about a device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// Name of the device.
    pub(crate) name: String,
    /// The first digits of the bundle's identity.
    pub(crate) bundle: String,
}

/// Keeps the figures of every camera.
#[derive(Debug)]
pub(super) struct Monitor {
    device: Device,
    state: Arc<RunState>,
    begun: Instant,
    spool: Option<Arc<SpoolTally>>,
    cameras: Mutex<BTreeMap<String, Camera>>,
}

#[derive(Debug, Clone)]
struct Camera {
    status: CameraStatus,
    seen: Instant,
    /// When each frame of the window had its outcome, and the milliseconds of its answer.
    recent: VecDeque<(Instant, Option<f64>)>,
}

impl Monitor {
    /// No cameras yet, at `now`, of a run in `state`.
    pub(super) fn new(
        device: Device,
        state: Arc<RunState>,
        spool: Option<Arc<SpoolTally>>,
        now: Instant,
    ) -> Self {
        Monitor { device, state, begun: now, spool, cameras: Mutex::default() }
    }

    /// The same figures under what the device is called now.
    pub(super) fn renamed(&self, device: Device) -> Self {
        let cameras = Mutex::new(self.lock().clone());
        Monitor {
            device,
            state: Arc::clone(&self.state),
            begun: self.begun,
            spool: self.spool.clone(),
            cameras,
        }
    }

    /// What never changes about the device.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the board tells its temperature.
    pub(super) fn tells_temperature(&self) -> bool {
        self.state.tells_temperature()
    }

    /// Counts a line of a camera.
    pub(super) fn add(&self, camera: &str, line: &Line, now: Instant) {
        let mut cameras = self.lock();
        if !cameras.contains_key(camera) {
            cameras.insert(camera.to_owned(), Camera::new(line, now));
        }
        if let Some(camera) = cameras.get_mut(camera) {
            camera.add(line, now);
        }
    }

    /// The state of the device at `now`.
    pub(super) fn status(&self, tallies: &[Arc<Tally>], now: Instant) -> DeviceStatus {
        let mut status = DeviceStatus {
            device: self.device.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            bundle: self.device.bundle.clone(),
            uptime_s: round(now.saturating_duration_since(self.begun).as_secs_f64()),
            cameras: self
                .lock()
                .iter_mut()
                .map(|(name, camera)| (name.clone(), camera.status(now)))
                .collect(),
            sinks: tallies.iter().map(|tally| tally.status()).collect(),
            spool: self.spool.as_ref().map(|tally| tally.lock().clone()),
            path: None,
            level: None,
            server: None,
            frames: None,
            sources: Vec::new(),
            board: None,
            settings: None,
        };
        self.state.complete(&mut status);
        status
    }

    /// The state of one camera at `now`.
    pub(super) fn camera(&self, camera: &str, now: Instant) -> Option<CameraStatus> {
        self.lock().get_mut(camera).map(|camera| camera.status(now))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Camera>> {
        // Figures that a panic left half counted are still figures.
        self.cameras.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Camera {
    fn new(line: &Line, now: Instant) -> Self {
        let status = CameraStatus {
            frames: 0,
            answered: 0,
            refused: 0,
            failed: 0,
            dropped: 0,
            spooled: 0,
            fallback: 0,
            fps: 0.0,
            age_s: 0.0,
            status: line.status,
            path: None,
            level: None,
            class: None,
            latency_ms: None,
            bytes: None,
            sent_total: 0,
            received_total: 0,
            error: None,
        };
        Camera { status, seen: now, recent: VecDeque::new() }
    }

    fn add(&mut self, line: &Line, now: Instant) {
        let status = &mut self.status;
        status.frames += 1;
        let counted = match line.status {
            Status::Answered => &mut status.answered,
            Status::Refused => &mut status.refused,
            Status::Failed => &mut status.failed,
            Status::Dropped => &mut status.dropped,
            Status::Spooled => &mut status.spooled,
        };
        *counted += 1;
        status.fallback += u64::from(line.fallback.is_some());
        // How the camera is doing is told by the frame that took a dropped one's place.
        if line.status != Status::Dropped {
            (status.status, status.level, status.error) = (line.status, line.level, line.error.clone());
            status.bytes = line.bytes;
        }
        if let Some(bytes) = line.bytes {
            status.sent_total += bytes.sent as u64;
            status.received_total += bytes.received as u64;
        }
        let answered = line.status == Status::Answered;
        if answered {
            status.path.clone_from(&line.path);
            status.class = best_class(line);
        }
        let total = line.ms.filter(|_| answered).map(|ms| ms.total);
        if self.recent.len() == MOST {
            self.recent.pop_front();
        }
        self.recent.push_back((now, total));
        self.seen = now;
    }

    fn status(&mut self, now: Instant) -> CameraStatus {
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW) {
            self.recent.pop_front();
        }
        let last = self.recent.iter().rev().find_map(|(_, total)| *total);
        let mut totals: Vec<f64> = self.recent.iter().filter_map(|(_, total)| *total).collect();
        totals.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            let rank = (share * totals.len() as f64).ceil() as usize;
            totals[rank.clamp(1, totals.len()) - 1]
        };
        let span = self.recent.front().map(|(at, _)| now.saturating_duration_since(*at).as_secs_f64());
        CameraStatus {
            fps: span
                .filter(|span| *span > 0.0)
                .map_or(0.0, |span| round((self.recent.len() - 1) as f64 / span)),
            age_s: round(now.saturating_duration_since(self.seen).as_secs_f64()),
            latency_ms: last.map(|last| Latency { last, p50: quantile(0.5), p95: quantile(0.95) }),
            ..self.status.clone()
        }
    }
}

/// The best class of an answer; of a class map, the class with the largest share.
pub(super) fn best_class(line: &Line) -> Option<ClassScore> {
    let classes = line.classify.as_ref().and_then(|classes| classes.first());
    let shares = line.segment.as_ref().and_then(|segment| segment.classes.first());
    classes.cloned().or_else(|| {
        let share = shares?;
        Some(ClassScore { index: share.index, label: share.label.clone(), probability: share.share })
    })
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame::Outcome, report::Millis};

    fn line() -> Line {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/lite2");
        let bundle = narrows_models::Bundle::open(folder, narrows_models::Parts::Head).unwrap();
        let frame = crate::frame::tests::frame().finish(Outcome::Failed("x".into()), None);
        super::super::line::failed_line(&frame, &bundle, "pi")
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn figures_are_those_of_the_last_ten_seconds() {
        let begun = Instant::now();
        let device = Device { name: "pi".into(), bundle: "ab".into() };
        let monitor = Monitor::new(device, Arc::default(), None, begun);
        let mut answered = line();
        (answered.status, answered.path, answered.error) = (Status::Answered, Some("local".into()), None);
        for frame in 0..=20u32 {
            answered.ms = Some(Millis { total: f64::from(frame), ..Millis::default() });
            monitor.add(
                "front",
                &answered,
                begun + Duration::from_secs(5) + Duration::from_millis(500) * frame,
            );
        }
        monitor.add("back", &line(), begun);
        let status = monitor.status(&[], begun + Duration::from_secs(15));
        let (front, back) = (&status.cameras["front"], &status.cameras["back"]);
        assert_eq!((front.frames, front.answered, front.fps, front.age_s), (21, 21, 2.0, 0.0));
        let latency = front.latency_ms.unwrap();
        assert_eq!((latency.last, latency.p50, latency.p95), (20.0, 10.0, 19.0));
        assert_eq!((back.failed, back.fps, back.age_s, back.latency_ms), (1, 0.0, 15.0, None));
        assert_eq!(monitor.camera("front", begun + Duration::from_secs(60)).unwrap().fps, 0.0);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn a_dropped_frame_is_counted_and_changes_nothing_else() {
        let begun = Instant::now();
        let monitor =
            Monitor::new(Device { name: "pi".into(), bundle: "ab".into() }, Arc::default(), None, begun);
        let (mut answered, mut dropped) = (line(), line());
        (answered.status, answered.level, answered.error) = (Status::Answered, Some(2), None);
        (dropped.status, dropped.level, dropped.error) = (Status::Dropped, Some(0), Some("newer".into()));
        monitor.add("front", &answered, begun);
        monitor.add("front", &dropped, begun);
        let front = monitor.camera("front", begun).unwrap();
        assert_eq!((front.frames, front.answered, front.dropped), (2, 1, 1));
        assert_eq!((front.status, front.level, front.error), (Status::Answered, Some(2), None));
    }
}
