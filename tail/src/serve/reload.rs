//! Settings that are read again while the server runs: on SIGHUP, and when a file changes.

use std::{sync::Arc, time::Duration};

use narrows_service::{Notifier, Origin, Settings, ticker};
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{bundles::BundleFolders, changes::Changes, rights::RightsFile};
use crate::{
    config::Serve,
    devices::Devices,
    engine::chain,
    frontend::{peers::Limits, quic::Shared},
    settings::{describe, placed},
};

/// How often files are looked at. A change takes effect within a second.
const LOOK: Duration = Duration::from_millis(400);
/// Keys that take effect while the server runs.
const CHANGEABLE: [&str; 10] = [
    "devices",
    "next",
    "connections",
    "max-connections-per-device",
    "drain-timeout",
    "bundle",
    "bundles-memory",
    "bundles-load",
    "bundles-unload-after",
    "bundles-warm-up",
];

/// Reads settings again and has them take effect.
pub(super) struct Reload {
    /// The configuration file, if there is one.
    pub(super) file: Option<SettingsFile>,
    /// Where the rights of devices stand, if they stand anywhere.
    pub(super) rights: Option<RightsFile>,
    /// The folders of the bundles.
    pub(super) bundles: BundleFolders,
    pub(super) shared: Arc<Shared>,
    pub(super) drain_timeout: watch::Sender<Duration>,
    /// Asks for the certificates to be read again, and is answered when they have been.
    pub(super) certificates: mpsc::Sender<oneshot::Sender<()>>,
    pub(super) notifier: Arc<Notifier>,
}

/// The configuration file of a running server.
pub(super) struct SettingsFile {
    origin: Origin<Serve>,
    /// The file as it was read at the start.
    first: Settings,
    changes: Changes,
}

/// What the files give now.
struct Found {
    config: Serve,
    settings: Settings,
    /// The rights of devices, where the settings give or name some.
    rights: Option<(RightsFile, Devices)>,
}

impl SettingsFile {
    /// The file that the server was started with.
    pub(super) fn new(origin: Origin<Serve>) -> Self {
        let changes = Changes::of(origin.settings.file());
        SettingsFile { first: origin.settings.clone(), origin, changes }
    }
}

impl Reload {
    /// Looks at the files until the drain begins. What cannot be used is logged, and what was read before stays in force.
    pub(super) async fn watch(
        mut self,
        mut hangup: Signal,
        mut drain: watch::Receiver<bool>,
        status: impl Fn() -> String,
    ) {
        let mut look = ticker(LOOK);
        loop {
            let asked = tokio::select! {
                _ = look.tick() => false,
                _ = hangup.recv() => true,
                _ = drain.wait_for(|draining| *draining) => return,
            };
            if asked {
                self.notifier.reloading();
            }
            self.look(asked);
            let bundles = self.bundles.due(asked);
            let served =
                bundles.map(|(folders, options)| self.shared.engine().serve_bundles(folders, options));
            if asked {
                let (done, read) = oneshot::channel();
                // Neither fails before the drain.
                if self.certificates.send(done).await.is_ok() {
                    let _ = read.await;
                }
                if let Some(mut served) = served {
                    // Those of a change of the files are not waited for. What else changes meanwhile takes effect.
                    while timeout(LOOK, &mut served).await.is_err() && !*drain.borrow() {
                        self.look(false);
                    }
                }
                self.notifier.ready(&status());
            }
        }
    }

    /// Reads what has changed, or everything if that was `asked` for.
    fn look(&mut self, asked: bool) {
        let mut has_read_rights = false;
        if let Some(file) = &mut self.file
            && let Some(found) = file.changes.due(asked)
        {
            match read(file) {
                Ok(Found { config, settings, rights }) => {
                    tell(file, &settings);
                    self.shared.set_limits(Limits {
                        connections: config.connections,
                        per_device: config.max_connections_per_device,
                    });
                    self.shared.set_next(config.next.clone().unwrap_or_default());
                    self.drain_timeout.send_replace(config.drain_timeout);
                    self.bundles.set(&config);
                    let (source, devices) = rights.unzip();
                    self.rights = source;
                    self.shared.set_devices(devices.unwrap_or_default());
                    has_read_rights = true;
                    file.origin.settings = settings;
                    file.changes.read(found);
                }
                Err(reason) => {
                    if file.changes.failed(found, asked) {
                        tracing::error!("{reason}");
                        let name = file.origin.settings.file().display();
                        tracing::error!("{name}: not used; the settings stay as they were");
                    }
                }
            }
        }
        // A section is read with the file that it is in, or not at all.
        let own_file = self.rights.as_mut().filter(|rights| !has_read_rights && !rights.is_section());
        if let Some(rights) = own_file
            && let Some(found) = rights.changes.due(asked)
        {
            match rights.load() {
                Ok(devices) => {
                    let file = rights.path().display();
                    tracing::info!(%file, rights = %devices, "rights of devices were read again");
                    self.shared.set_devices(devices);
                    rights.changes.read(found);
                }
                Err(error) => {
                    if rights.changes.failed(found, asked) {
                        let reason = chain(&error);
                        tracing::error!(reason, "the rights that were read before stay in force");
                    }
                }
            }
        }
    }
}

/// The settings that a file gives now, with the rights of devices that it gives or names.
///
/// # Errors
/// What is wrong with them, each fault with its place.
fn read(file: &SettingsFile) -> Result<Found, String> {
    let (config, settings) = file.origin.read_again()?;
    config.check().map_err(|(flag, text)| placed(Some(&settings), flag, &text))?;
    let rights =
        RightsFile::of(&config, Some(&settings)).map_err(|error| describe(Some(&settings), &error))?;
    Ok(Found { config, settings, rights })
}

/// Says what a file changes, and what of it has to wait for the next start.
fn tell(file: &SettingsFile, settings: &Settings) {
    let is_changeable = |key: &String| CHANGEABLE.contains(&key.as_str());
    let mut changed = file.origin.settings.changes(settings);
    changed.retain(is_changeable);
    let mut fixed = file.first.changes(settings);
    fixed.retain(|key| !is_changeable(key));
    let (name, changed) = (settings.file().display().to_string(), changed.join(", "));
    tracing::info!(file = name, changed, "settings were read again");
    if !fixed.is_empty() {
        tracing::warn!("{name}: changes with the next start alone: {}", fixed.join(", "));
    }
}
