//! The file with the devices' rights: read at the start, and again when it changes or on SIGHUP.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{signal::unix::Signal, sync::watch, time::interval};

use crate::{Error, devices::Devices, engine::chain};

/// How often the file is looked at. A change takes effect within a second.
const LOOK: Duration = Duration::from_millis(400);

/// The file with the devices' rights.
pub(crate) struct RightsFile {
    path: PathBuf,
    read: Version,
}

/// What tells two versions of a file apart. `None` where there is no file.
type Version = Option<(u64, u64, u64, i64, i64)>;

impl RightsFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Devices`].
    pub(crate) fn open(path: &Path) -> Result<(RightsFile, Devices), Error> {
        let file = RightsFile { path: path.to_owned(), read: version(path) };
        let devices = file.load()?;
        Ok((file, devices))
    }

    fn load(&self) -> Result<Devices, Error> {
        let text = fs::read_to_string(&self.path).map_err(|source| {
            let what = format!("cannot read {} (--devices)", self.path.display());
            Error::Io { what, source }
        })?;
        Devices::parse(&text).map_err(|source| Error::Devices { file: self.path.clone(), source })
    }

    /// Watches the file until the drain begins, and gives what it holds to `apply`. What cannot be used is logged and leaves
    /// what was read before in force. A file that is just being written is looked at once more before its fault is logged.
    pub(super) async fn watch(
        mut self,
        apply: impl Fn(Devices),
        mut hangup: Signal,
        mut drain: watch::Receiver<bool>,
    ) {
        let mut look = interval(LOOK);
        let mut failed: Option<(Version, bool)> = None;
        loop {
            let mut asked = false;
            tokio::select! {
                _ = look.tick() => {}
                _ = hangup.recv() => asked = true,
                _ = drain.wait_for(|draining| *draining) => return,
            }
            let found = version(&self.path);
            let said = failed.as_ref().filter(|(version, _)| *version == found).map(|(_, said)| *said);
            if !asked && (found == self.read || said == Some(true)) {
                continue;
            }
            match self.load() {
                Ok(devices) => {
                    tracing::info!(file = %self.path.display(), rights = %devices, "rights of devices were read again");
                    apply(devices);
                    (self.read, failed) = (found, None);
                }
                Err(error) => {
                    let say = asked || said.is_some();
                    if say {
                        tracing::error!(
                            reason = chain(&error),
                            "the rights that were read before stay in force"
                        );
                    }
                    failed = Some((found, say));
                }
            }
        }
    }
}

fn version(path: &Path) -> Version {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}
