//! What a run does for its service manager: messages to systemd, the watchdog, settings that are read again on SIGHUP, and the
//! board's temperature.

use std::{future::pending, path::PathBuf, sync::Arc, time::Duration};

use narrows_power::{
    Places,
    thermal::{Thermal, ThermalReader},
};
use narrows_service::{Notifier, Origin, Settings, next_tick, ticker};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
};

use super::{parts::Parts, pipeline::Change, shared::Shared};
use crate::{
    Error,
    config::{Flags, SpoolFlags},
    report::RunState,
    settings::describe,
    sink,
};

/// How often the service manager is told the state, where it has changed.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// Time between two readings of the board's temperature.
const BOARD_EVERY: Duration = Duration::from_secs(5);
/// Settings that only a new start changes: what holds files that must not be let go, and what was set up before.
const FIXED: [&str; 7] =
    ["status-socket", "sys", "verbose", "spool", "spool-bytes", "spool-age", "spool-drop"];

/// The service that runs beside the work.
pub(super) struct Service {
    shared: Arc<Shared>,
    origin: Option<Origin<Flags>>,
    changes: mpsc::Sender<Box<Change>>,
    notifier: Arc<Notifier>,
    hangup: Option<Signal>,
    /// The configuration file as it was read at the start.
    first: Option<Settings>,
    /// What a new start alone changes.
    spool: SpoolFlags,
    sys: PathBuf,
}

/// What came of reading the settings again: the new ones, and what part of them cannot be used.
type Reread = Result<(Settings, Option<String>), String>;

impl Service {
    /// A service that gives new settings to `changes`; needs the context of a tokio runtime. SIGHUP keeps its usual meaning where
    /// there is no file to read again.
    ///
    /// # Errors
    /// [`Error::Device`] if signals cannot be watched.
    pub(super) fn new(
        flags: &Flags,
        shared: Arc<Shared>,
        origin: Option<Origin<Flags>>,
        changes: mpsc::Sender<Box<Change>>,
        notifier: Arc<Notifier>,
    ) -> Result<Self, Error> {
        let problem = "signals cannot be watched";
        let hangup = origin.as_ref().map(|_| signal(SignalKind::hangup()));
        let hangup = hangup.transpose().map_err(|source| Error::Device { problem, source })?;
        if let Some(origin) = &origin {
            shared.state.note_settings(origin.settings.file().to_owned(), None, true);
        }
        let first = origin.as_ref().map(|origin| origin.settings.clone());
        let (spool, sys) = (flags.spool.clone(), flags.sys.clone());
        Ok(Service { shared, origin, changes, notifier, hangup, first, spool, sys })
    }

    /// Works until it is dropped.
    pub(super) async fn run(mut self) {
        let mut ping = Notifier::watchdog().map(ticker);
        let (mut status, mut look) = (ticker(STATUS_EVERY), ticker(BOARD_EVERY));
        let places = Places { sys: self.sys.clone(), ..Places::default() };
        let mut board = Some(ThermalReader::new(places));
        let mut reading: Option<JoinHandle<(ThermalReader, Thermal)>> = None;
        let mut reread: Option<JoinHandle<Reread>> = None;
        loop {
            let state = &self.shared.state;
            tokio::select! {
                () = next_tick(&mut ping) => if state.makes_progress() {
                    self.notifier.alive();
                },
                _ = status.tick() => if self.shared.is_ready() && reread.is_none() {
                    self.notifier.status(&state.words());
                },
                // A sensor that hangs is not asked again.
                _ = look.tick() => if let Some(mut board) = board.take() {
                    reading = Some(spawn_blocking(move || {
                        let thermal = board.read();
                        (board, thermal)
                    }));
                },
                read = finished(&mut reading) => if let Some((reader, thermal)) = read {
                    board = Some(reader);
                    tell_throttling(thermal, state);
                },
                // Settings are read again one time after the other.
                () = hung_up(&mut self.hangup), if reread.is_none() && self.shared.is_ready() => {
                    self.notifier.reloading();
                    reread = self.read_again();
                }
                found = finished(&mut reread) => {
                    self.finish(found.unwrap_or_else(|| Err("the settings cannot be read again".to_owned())));
                    self.notifier.ready(&self.shared.state.words());
                }
            }
        }
    }

    /// Reads the settings again, opens what they name and has it take effect, in a task of its own.
    fn read_again(&self) -> Option<JoinHandle<Reread>> {
        let origin = self.origin.clone()?;
        let (shared, changes, spool) = (Arc::clone(&self.shared), self.changes.clone(), self.spool.clone());
        Some(tokio::spawn(async move {
            // Opening a bundle takes its time.
            let opened = spawn_blocking(move || {
                let (flags, settings) = origin.read_again()?;
                let parts = Parts::open(&Flags { spool, ..flags }, &shared).and_then(|parts| {
                    sink::check(&parts.config.outputs, shared.outputs().as_ref())?;
                    Ok(parts)
                });
                let parts = parts.map_err(|error| describe(Some(&settings), &error))?;
                Ok::<_, String>((parts, settings))
            });
            let (parts, settings) = opened.await.unwrap_or_else(|error| Err(error.to_string()))?;
            let (done, changed) = oneshot::channel();
            // Both fail only where the run is over.
            let over = || "the run was ending".to_owned();
            changes.send(Box::new(Change { parts, done })).await.map_err(|_| over())?;
            let left = changed.await.map_err(|_| over())?;
            let left = left.err().map(|error| describe(Some(&settings), &error));
            Ok((settings, left))
        }))
    }

    /// Tells what came of reading the settings again.
    fn finish(&mut self, found: Reread) {
        let Some(origin) = &mut self.origin else { return };
        let file = origin.settings.file().to_owned();
        let name = file.display().to_string();
        match found {
            Err(reason) => {
                tracing::error!("{reason}");
                tracing::error!("{name}: not used; the settings stay as they were");
                self.shared.state.note_settings(file, Some(reason), false);
            }
            Ok((settings, left)) => {
                let is_fixed = |key: &String| FIXED.contains(&key.as_str());
                let mut changed = origin.settings.changes(&settings);
                changed.retain(|key| !is_fixed(key));
                let mut fixed = self.first.as_ref().map_or_else(Vec::new, |first| first.changes(&settings));
                fixed.retain(is_fixed);
                let list = match changed.is_empty() {
                    true => "nothing has changed".to_owned(),
                    false => format!("changed: {}", changed.join(", ")),
                };
                tracing::warn!("{name}: read again; {list}");
                let fixed = (!fixed.is_empty())
                    .then(|| format!("changes with the next start alone: {}", fixed.join(", ")));
                if let Some(fixed) = &fixed {
                    tracing::warn!("{name}: {fixed}");
                }
                if let Some(left) = &left {
                    tracing::error!("{left}");
                    tracing::error!("{name}: answers go where they went before");
                }
                self.shared.state.note_settings(file, left.or(fixed), true);
                origin.settings = settings;
            }
        }
    }
}

/// Waits for SIGHUP, for ever where it is not watched.
async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}

/// Waits for the end of a task and returns what it did, `None` where it panicked; for ever where there is no task.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let Some(running) = task else { return pending().await };
    let result = running.await.ok();
    *task = None;
    result
}

/// Takes note of the board's temperature, and says when throttling begins and ends.
fn tell_throttling(thermal: Thermal, state: &RunState) {
    let zone = thermal.zone.as_ref();
    let heat = zone.map_or_else(String::new, |zone| format!(" ({} at {:.0} °C)", zone.name, zone.celsius));
    let causes = thermal.throttled.join(", ");
    if state.note_board(thermal) {
        match causes.is_empty() {
            false => tracing::warn!("this board is throttled{heat}: {causes}"),
            true => tracing::warn!("this board is not throttled any more{heat}"),
        }
    }
}
