//! What a run is doing, for those who ask while it runs.
#![expect(clippy::disallowed_methods, reason = "states have their time")]

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use narrows_power::thermal::Thermal;

use super::{BoardStatus, DeviceStatus, ServerStatus, SettingsStatus, Totals};

/// How old the sign of life of the thread that sends frames may be.
const PULSE: Duration = Duration::from_secs(10);
/// How long the work on one frame may take beside twice its budget.
const WORK: Duration = Duration::from_secs(20);

/// The state of a run, shared by those who change it and those who report it.
#[derive(Default)]
pub(crate) struct RunState {
    totals: Arc<Totals>,
    inner: Mutex<Inner>,
    /// What tells the state of cameras and sinks, while sinks are open.
    teller: Mutex<Option<Teller>>,
}

/// Tells the state of a device.
type Teller = Box<dyn Fn() -> DeviceStatus + Send>;

#[derive(Default)]
struct Inner {
    /// Where the network runs and the level, as the settings have them.
    plan: (String, Option<String>),
    budget: Duration,
    server: Option<Server>,
    board: Option<BoardStatus>,
    settings: Option<SettingsStatus>,
    /// Since when a frame is worked on; `None` while one is waited for.
    working_since: Option<Instant>,
    /// When the thread that sends frames last gave a sign of life.
    pulse: Option<Instant>,
}

struct Server {
    address: String,
    is_connected: bool,
    since: Instant,
    cause: Option<String>,
}

impl RunState {
    /// The state of a run that counts in `totals`.
    pub(crate) fn new(totals: Arc<Totals>) -> Self {
        RunState { totals, ..RunState::default() }
    }

    /// The counts of the run.
    pub(crate) fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    /// Has `tell` tell the state of cameras and sinks from now on.
    pub(crate) fn tell_by(&self, tell: impl Fn() -> DeviceStatus + Send + 'static) {
        *self.teller.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(tell));
    }

    /// The state of the device as JSON; nothing before its sinks are open.
    pub(crate) fn json(&self) -> Vec<u8> {
        let teller = self.teller.lock().unwrap_or_else(PoisonError::into_inner);
        let status = teller.as_ref().map(|tell| tell());
        status.and_then(|status| serde_json::to_vec(&status).ok()).unwrap_or_default()
    }

    /// Takes note of the settings that count from now on.
    pub(crate) fn note_plan(&self, path: &str, level: Option<String>, budget: Duration) {
        let mut inner = self.lock();
        inner.plan = (path.to_owned(), level);
        (inner.budget, inner.server) = (budget, None);
    }

    /// Takes note of a connection to a server.
    pub(crate) fn note_connected(&self, address: &str) {
        let server =
            Server { address: address.to_owned(), is_connected: true, since: Instant::now(), cause: None };
        self.lock().server = Some(server);
    }

    /// Takes note that no server can be used, and why.
    pub(crate) fn note_away(&self, address: &str, cause: &str) {
        let mut inner = self.lock();
        let since = inner.server.as_ref().filter(|server| !server.is_connected).map(|server| server.since);
        let since = since.unwrap_or_else(Instant::now);
        let cause = Some(cause.to_owned());
        inner.server = Some(Server { address: address.to_owned(), is_connected: false, since, cause });
    }

    /// Takes note of temperature and throttling; returns whether throttling has begun or ended.
    pub(crate) fn note_board(&self, thermal: Thermal) -> bool {
        let mut inner = self.lock();
        let before = inner.board.as_ref().is_some_and(|board| !board.throttled.is_empty());
        let now = !thermal.throttled.is_empty();
        let times = inner.board.as_ref().map_or(0, |board| board.throttled_times);
        inner.board = Some(BoardStatus {
            zone: thermal.zone.as_ref().map(|zone| zone.name.clone()),
            celsius: thermal.zone.as_ref().map(|zone| (zone.celsius * 10.0).round() / 10.0),
            limit_celsius: thermal.zone.as_ref().map(|zone| zone.limit),
            throttled: thermal.throttled,
            throttled_times: times + u64::from(now && !before),
        });
        before != now
    }

    /// Whether the board tells its temperature.
    pub(crate) fn tells_temperature(&self) -> bool {
        self.lock().board.as_ref().is_some_and(|board| board.celsius.is_some())
    }

    /// Takes note of a configuration file that was read, why not all of it is used, and whether it is used at all.
    pub(crate) fn note_settings(&self, file: PathBuf, error: Option<String>, is_used: bool) {
        let mut inner = self.lock();
        let used = inner.settings.as_ref().map_or(0, |settings| settings.used);
        inner.settings = Some(SettingsStatus { file, used: used + u64::from(is_used), error });
    }

    /// Takes note that a frame is waited for.
    pub(crate) fn note_waiting(&self) {
        self.lock().working_since = None;
    }

    /// Takes note that a frame is worked on.
    pub(crate) fn note_working(&self) {
        self.lock().working_since = Some(Instant::now());
    }

    /// Takes note that the thread which sends frames is alive.
    pub(crate) fn note_pulse(&self) {
        self.lock().pulse = Some(Instant::now());
    }

    /// Whether frames go on: none is worked on for longer than its time allows, and the thread that sends them is alive.
    pub(crate) fn makes_progress(&self) -> bool {
        let inner = self.lock();
        let allowed = 2 * inner.budget + WORK;
        inner.working_since.is_none_or(|since| since.elapsed() < allowed)
            && inner.pulse.is_none_or(|pulse| pulse.elapsed() < PULSE)
    }

    /// In a few words what the run is doing, for a service manager.
    pub(crate) fn words(&self) -> String {
        let frames = self.totals.frames();
        let inner = self.lock();
        let server = match &inner.server {
            Some(Server { address, is_connected: true, .. }) => format!("connected to {address}"),
            Some(Server { address, cause, .. }) => {
                format!("no server at {address}: {}", cause.as_deref().unwrap_or_default())
            }
            None if inner.plan.0 == "local" => "answering on this device".to_owned(),
            None => "starting".to_owned(),
        };
        let throttled = inner.board.as_ref().is_some_and(|board| !board.throttled.is_empty());
        let throttled = if throttled { "; throttled" } else { "" };
        format!(
            "{server}; {} frames answered, {} not{throttled}",
            frames.answered,
            frames.refused + frames.failed
        )
    }

    /// Completes the state of a device.
    pub(crate) fn complete(&self, status: &mut DeviceStatus) {
        status.frames = Some(self.totals.frames());
        status.sources = self.totals.sources();
        let inner = self.lock();
        (status.path, status.level) = (Some(inner.plan.0.clone()), inner.plan.1.clone());
        status.server = inner.server.as_ref().map(|server| ServerStatus {
            address: server.address.clone(),
            connected: server.is_connected,
            since_s: (server.since.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            cause: server.cause.clone(),
        });
        status.board.clone_from(&inner.board);
        status.settings.clone_from(&inner.settings);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunState").field("words", &self.words()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_makes_progress_while_it_waits_and_not_while_a_frame_hangs() {
        let state = RunState::default();
        assert!(state.makes_progress());
        state.note_working();
        state.note_pulse();
        assert!(state.makes_progress());
        let long_ago = Instant::now().checked_sub(2 * WORK).unwrap();
        state.lock().working_since = Some(long_ago);
        assert!(!state.makes_progress());
        state.note_waiting();
        assert!(state.makes_progress());
        state.lock().pulse = Some(long_ago);
        assert!(!state.makes_progress());
    }

    #[test]
    fn throttling_is_told_when_it_begins_and_ends() {
        let state = RunState::default();
        let thermal = |causes: &[&str]| Thermal {
            zone: None,
            throttled: causes.iter().map(|cause| (*cause).to_owned()).collect(),
        };
        let told = [&[][..], &["heat"], &["heat", "supply"], &[], &["heat"]];
        assert_eq!(told.map(|causes| state.note_board(thermal(causes))), [false, true, false, true, true]);
        assert_eq!(state.lock().board.as_ref().unwrap().throttled_times, 2);
    }
}
