//! The server's certificates and the revocation list: read at the start, read again when a file of them changes or on request,
//! and checked every day for an end that comes near.
#![expect(clippy::disallowed_methods, reason = "certificates end at some time")]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use narrows_wire::identity::{Identity, IdentityError, RevocationList};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{Error, engine::chain};

/// How often the files are looked at. A change takes effect within a second.
const LOOK: Duration = Duration::from_millis(400);

/// How often an end that comes near, or a list that cannot be read, is said again.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The files of the server's identity and of the revocation list.
pub(crate) struct Certificates {
    folder: PathBuf,
    list: PathBuf,
    /// Whether there must be a list: one was named, or one has been read before.
    list_required: bool,
    /// The files as they were before they were read.
    read: Vec<Version>,
}

/// What tells two versions of a file apart: device, inode, size, and the times of the last change of its content and of its
/// entry. `None` where there is no file.
type Version = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

impl Certificates {
    /// The identity in `folder` and the revocation list in `list`; without one, `crl.pem` in the folder, if there is one.
    pub(crate) fn new(folder: &Path, list: Option<&Path>) -> Certificates {
        let default = || folder.join("crl.pem");
        Certificates {
            folder: folder.to_owned(),
            list: list.map_or_else(default, Path::to_owned),
            list_required: list.is_some(),
            read: Vec::new(),
        }
    }

    /// Reads the identity and the revocation list.
    ///
    /// # Errors
    /// That of the first file that is missing, damaged or of another CA.
    pub(crate) fn load(&mut self) -> Result<Identity, IdentityError> {
        self.read = self.versions();
        let identity = self.load_own()?;
        let list = self.load_list(&identity, None)?;
        Ok(identity.with_revoked(list))
    }

    /// Reads the identity alone.
    fn load_own(&self) -> Result<Identity, IdentityError> {
        let identity = Identity::load(&self.folder)?;
        identity.require_server()?;
        Ok(identity)
    }

    /// Reads the revocation list. From the first one on a missing file is an error: who removes it does not let the devices
    /// in again, and neither does who puts an older list in the place of `present`.
    fn load_list(
        &mut self,
        identity: &Identity,
        present: Option<&RevocationList>,
    ) -> Result<Option<RevocationList>, IdentityError> {
        if !self.list_required && self.list.symlink_metadata().is_err() {
            return Ok(None);
        }
        let list = RevocationList::load(&self.list, identity.ca())?;
        if let Some(present) = present {
            list.check_replaces(present, identity.ca())?;
        }
        self.list_required = true;
        Ok(Some(list))
    }

    /// Watches the files until the drain begins. When one changes, or when that is asked for by `asks`, all of them are read and
    /// given to `apply`; who asks is told when that is done.
    /// What cannot be used is logged and leaves what was read before in force: a bad certificate does not keep a revocation
    /// from taking effect, and the other way round.
    pub(super) async fn watch(
        mut self,
        mut identity: Identity,
        apply: impl Fn(&Identity) -> Result<(), Error>,
        mut asks: mpsc::Receiver<oneshot::Sender<()>>,
        mut drain: watch::Receiver<bool>,
    ) {
        let later = |period: Duration| interval_at(Instant::now() + period, period);
        let (mut look, mut hour, mut day) = (later(LOOK), later(HOUR), later(DAY));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The versions that could not be used, and whether that was said. A file that is just being written is not spoken of.
        let mut failed: Option<(Vec<Version>, bool)> = None;
        loop {
            let mut ask = None;
            tokio::select! {
                _ = look.tick() => {}
                _ = day.tick() => warn(&identity),
                _ = hour.tick() => failed = None,
                Some(done) = asks.recv() => ask = Some(done),
                _ = drain.wait_for(|draining| *draining) => return,
            }
            let (versions, asked) = (self.versions(), ask.is_some());
            if versions == self.read && !asked {
                failed = None;
                continue;
            }
            let said = failed.as_ref().filter(|(others, _)| *others == versions).map(|(_, said)| *said);
            if said == Some(true) && !asked {
                continue;
            }
            let (read, error) = self.read_again(&identity, &apply);
            identity = read;
            match error {
                None => {
                    let revoked = identity.revoked().map_or(0, |list| list.revoked().len());
                    tracing::info!(folder = %self.folder.display(), revoked, "certificates were read again");
                    (self.read, failed) = (versions, None);
                }
                Some(error) => {
                    let say = asked || said.is_some();
                    if say {
                        let reason = chain(&error);
                        tracing::error!(reason, "what was read before stays in force");
                    }
                    failed = Some((versions, say));
                }
            }
            if let Some(done) = ask {
                // Nobody waits for it where the server ends.
                let _ = done.send(());
            }
        }
    }

    /// Reads everything again and applies what can be used; returns what is in force now, and the first error.
    fn read_again(
        &mut self,
        present: &Identity,
        apply: impl Fn(&Identity) -> Result<(), Error>,
    ) -> (Identity, Option<Error>) {
        let mut error = None;
        let mut own = self.load_own().unwrap_or_else(|fault| {
            error = Some(fault.into());
            present.with_revoked(None)
        });
        let list = self.load_list(&own, present.revoked()).unwrap_or_else(|fault| {
            error.get_or_insert(fault.into());
            present.revoked().cloned()
        });
        own = own.with_revoked(list.clone());
        if let Err(fault) = apply(&own) {
            error.get_or_insert(fault);
            own = present.with_revoked(list);
            // This identity was in force before.
            if let Err(fault) = apply(&own) {
                error = Some(fault);
            }
        }
        (own, error)
    }

    fn versions(&self) -> Vec<Version> {
        let own = ["ca.pem", "cert.pem", "key.pem"].map(|file| self.folder.join(file));
        own.iter().chain([&self.list]).map(|file| version(file)).collect()
    }
}

fn version(file: &Path) -> Version {
    let meta = fs::metadata(file).ok()?;
    let changed = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    Some((meta.dev(), meta.ino(), meta.size(), changed.0, changed.1))
}

/// Logs what an operator should mend soon.
pub(super) fn warn(identity: &Identity) {
    for warning in warnings_now(identity) {
        tracing::warn!("{warning}");
    }
}

/// What an operator should mend soon.
pub(crate) fn warnings_now(identity: &Identity) -> Vec<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    warnings(identity, i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

/// What an operator should mend soon, at `now` in seconds since 1970.
fn warnings(identity: &Identity, now: i64) -> Vec<String> {
    let ends = identity.validity().unwrap_or_default();
    let remedy = |file: &str| match file {
        "ca.pem" => "make a new CA and give its certificates to all devices (docs/certificates.md)",
        _ => "renew it: narrows-tail certs server --dir certs",
    };
    let mut found: Vec<String> = ends
        .iter()
        .filter_map(|one| one.ending(now).map(|ending| format!("{ending}; {}", remedy(one.file))))
        .collect();
    if let Some(list) = identity.revoked()
        && list.until().is_some_and(|until| until < now)
    {
        found.push(format!(
            "{} is past its next update: it stays in force, and a newer one may exist; write it again: narrows-tail certs revoke",
            list.file().display()
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::certs;

    /// A CA with a server and the devices `cam` and `door`, and the number of revoked certificates that were applied.
    struct Watched {
        _folder: tempfile::TempDir,
        dir: PathBuf,
        applied: Arc<Mutex<Vec<usize>>>,
        drain: watch::Sender<bool>,
    }

    impl Watched {
        fn start() -> Watched {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path().join("certs");
            certs::init(&dir, &[]).unwrap();
            certs::device(&dir, "cam").unwrap();
            certs::device(&dir, "door").unwrap();
            let mut certificates = Certificates::new(&dir.join("server"), None);
            let identity = certificates.load().unwrap();
            let applied = Arc::new(Mutex::new(Vec::new()));
            let (drain, draining) = watch::channel(false);
            let apply = {
                let applied = Arc::clone(&applied);
                move |identity: &Identity| {
                    narrows_wire::quic::server_config(identity, &narrows_wire::quic::Tuning::default())?;
                    let revoked = identity.revoked().map_or(0, |list| list.revoked().len());
                    applied.lock().unwrap().push(revoked);
                    Ok(())
                }
            };
            let (_, asks) = mpsc::channel(1);
            tokio::spawn(certificates.watch(identity, apply, asks, draining));
            Watched { _folder: folder, dir, applied, drain }
        }

        /// Waits until this many revoked certificates were applied last.
        async fn applies(&self, revoked: usize) -> bool {
            for _ in 0..100 {
                if self.applied.lock().unwrap().last() == Some(&revoked) {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            false
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_used_keeps_nothing_else_from_taking_effect() {
        let watched = Watched::start();
        let server = watched.dir.join("server");
        certs::revoke(&watched.dir, "cam").unwrap();
        assert!(watched.applies(1).await, "a list that was not there before");
        // A damaged list, and none at all, let nobody in again.
        for damage in [true, false] {
            let list = fs::read(server.join("crl.pem")).unwrap();
            match damage {
                true => fs::write(server.join("crl.pem"), "damaged").unwrap(),
                false => fs::remove_file(server.join("crl.pem")).unwrap(),
            }
            watched.applied.lock().unwrap().clear();
            assert!(watched.applies(1).await, "damage {damage}");
            fs::write(server.join("crl.pem"), list).unwrap();
        }
        // Nor does a list from before a later revocation.
        let older = fs::read(server.join("crl.pem")).unwrap();
        certs::device(&watched.dir, "lost").unwrap();
        certs::revoke(&watched.dir, "lost").unwrap();
        assert!(watched.applies(2).await, "a later list");
        let newer = fs::read(server.join("crl.pem")).unwrap();
        watched.applied.lock().unwrap().clear();
        fs::write(server.join("crl.pem"), older).unwrap();
        assert!(watched.applies(2).await, "an older list");
        assert!(watched.applied.lock().unwrap().iter().all(|revoked| *revoked == 2));
        fs::write(server.join("crl.pem"), newer).unwrap();
        // A key that cannot be used does not keep a revocation from taking effect.
        fs::set_permissions(server.join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        certs::revoke(&watched.dir, "door").unwrap();
        assert!(watched.applies(3).await, "with a bad key");
        // Nor does a certificate that is not that of the key.
        fs::set_permissions(server.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::copy(watched.dir.join("devices/door/cert.pem"), server.join("cert.pem")).unwrap();
        certs::device(&watched.dir, "third").unwrap();
        certs::revoke(&watched.dir, "third").unwrap();
        assert!(watched.applies(4).await, "with a bad certificate");
        watched.drain.send(true).unwrap();
    }

    #[test]
    fn a_list_is_required_where_one_was_named_and_never_of_another_ca() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, other) = (folder.path().join("certs"), folder.path().join("other"));
        for dir in [&dir, &other] {
            certs::init(dir, &[]).unwrap();
            certs::device(dir, "cam").unwrap();
        }
        let (server, list) = (dir.join("server"), dir.join("named.pem"));
        assert!(Certificates::new(&server, None).load().unwrap().revoked().is_none());
        let error = Certificates::new(&server, Some(&list)).load().unwrap_err().to_string();
        assert!(error.contains("named.pem") && error.contains("certs revoke"), "{error}");
        fs::copy(certs::revoke(&other, "cam").unwrap().files[0].clone(), &list).unwrap();
        let error = Certificates::new(&server, Some(&list)).load().unwrap_err().to_string();
        assert!(error.contains("named.pem") && error.contains("another CA"), "{error}");
        fs::copy(certs::revoke(&dir, "cam").unwrap().files[0].clone(), &list).unwrap();
        let identity = Certificates::new(&server, Some(&list)).load().unwrap();
        assert_eq!(identity.revoked().unwrap().revoked().len(), 1);
    }

    #[test]
    fn ends_that_come_near_are_told_with_their_remedy() {
        let folder = tempfile::tempdir().unwrap();
        certs::init(folder.path(), &[]).unwrap();
        certs::device(folder.path(), "cam").unwrap();
        certs::revoke(folder.path(), "cam").unwrap();
        let identity = Certificates::new(&folder.path().join("server"), None).load().unwrap();
        let ends = identity.validity().unwrap();
        let before = |end: i64, days: i64| warnings(&identity, end - days * 86_400);
        assert!(before(ends[0].until, 40).is_empty());
        let found = before(ends[0].until, 20);
        assert!(found.len() == 1 && found[0].starts_with("cert.pem ends in 20 days"), "{found:?}");
        assert!(found[0].contains("certs server"), "{found:?}");
        let found = before(ends[1].until, -1);
        assert!(found.iter().any(|text| text.starts_with("ca.pem ended 1 day ago")), "{found:?}");
        assert!(found.iter().any(|text| text.contains("crl.pem is past its next update")), "{found:?}");
    }
}
