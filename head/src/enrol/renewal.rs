//! Renews this device's certificate while frames are answered: the new one is used from the next connection on.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use narrows_wire::{
    enrol::{EnrolmentReply, EnrolmentRequest},
    identity::{CertificateInfo, Identity},
    quic::{Tuning, renewal_client},
};
use tokio::{task::spawn_blocking, time::sleep};

use super::{
    clock,
    exchange::ask,
    folder::{Key, check, due, is_early, probe, renew_at, replace, settle, versions},
};
use crate::{
    Chain, Error,
    config::{RenewAt, Server},
    identity,
    name::Escaped,
    policy::jitter,
    uplink::Access,
};

/// Longest time between two looks at the files of the identity and at the clock, which may be set at any time.
const LOOK: Duration = Duration::from_secs(20);
/// Shortest and longest time between two attempts.
const LEAST_PAUSE: i64 = 2;
const MOST_PAUSE: i64 = 3600;

/// Keeps the identity of a run up to date.
pub(crate) struct Renewal {
    /// The run's access to servers; when it is gone, so is the run.
    access: Weak<Access>,
    folder: PathBuf,
    /// Where it is renewed; `None` where it is only read again when its files change.
    server: Option<Server>,
    /// A share of the time for attempts, so that devices that were enrolled together do not all renew at once.
    spread: f64,
}

impl Renewal {
    /// Of the identity in `folder`, which `access` shows to servers.
    ///
    /// # Errors
    /// The file in the folder that says where to renew cannot be used.
    pub(crate) fn new(folder: &Path, at: &RenewAt, access: &Arc<Access>) -> Result<Renewal, Error> {
        let server = match at {
            RenewAt::Enrolled => renew_at(folder)?,
            RenewAt::Server(server) => Some(server.clone()),
            RenewAt::Never => None,
        };
        Ok(Renewal { access: Arc::downgrade(access), folder: folder.to_owned(), server, spread: jitter() })
    }

    /// Works until the run is over.
    pub(crate) async fn run(self) {
        let mut read = versions(&self.folder);
        let mut told = String::new();
        let mut not_before = i64::MIN;
        loop {
            let Some(access) = self.access.upgrade() else { return };
            let found = versions(&self.folder);
            if found != read {
                match identity::load(&self.folder)
                    .map_err(Error::from)
                    .and_then(|new| access.set_identity(new))
                {
                    Ok(()) => {
                        tracing::warn!("the identity in {} was read again", Escaped(&self.folder));
                        (read, not_before) = (found, i64::MIN);
                    }
                    Err(error) => self.tell(&mut told, &error, "the one that was read before is used"),
                }
            }
            let present = access.identity();
            drop(access);
            let mut wait = LOOK;
            if let (Some(server), Some((due, until))) = (&self.server, due(&present)) {
                let now = clock::now();
                // The clock may have been set back since the last attempt.
                not_before = not_before.min(now.saturating_add(2 * MOST_PAUSE));
                // A fiftieth of its whole life.
                let begin = due + ((until - due) as f64 * self.spread * 3.0 / 50.0) as i64;
                if now > until {
                    let ended = format!(
                        "its certificate ended at {}, so no server renews it; enrol it anew: narrows-head enrol",
                        clock::text(until)
                    );
                    self.say(&mut told, &ended);
                } else if now >= begin.max(not_before) && !is_early(&present) {
                    match renew(&self.folder, server).await {
                        Ok(info) => {
                            let until = clock::text(info.until);
                            tracing::warn!(
                                "the certificate was renewed at {server}, with a new key; it ends at {until}"
                            );
                            told.clear();
                        }
                        Err(error) => {
                            let pause = ((until - now) / 20).clamp(LEAST_PAUSE, MOST_PAUSE);
                            not_before = now + (pause as f64 * (0.5 + jitter())) as i64;
                            let ends =
                                format!("the present certificate is used until {}", clock::text(until));
                            self.tell(&mut told, &error, &ends);
                        }
                    }
                    // What was written is read at once.
                    wait = Duration::from_millis(200);
                } else {
                    let seconds = u64::try_from(begin.max(not_before) - now).unwrap_or(0);
                    wait = Duration::from_secs(seconds).clamp(Duration::from_millis(500), LOOK);
                }
            }
            sleep(wait).await;
        }
    }

    fn tell(&self, told: &mut String, error: &Error, meanwhile: &str) {
        self.say(told, &format!("not renewed: {}; {meanwhile}", Chain(error)));
    }

    /// Says something unless it was the last that was said.
    fn say(&self, told: &mut String, text: &str) {
        if told != text {
            tracing::warn!("the identity in {}: {text}", Escaped(&self.folder));
            text.clone_into(told);
        }
    }
}

/// Gets a certificate for a new key from a server and puts both in the place of those in a folder; returns what it says.
///
/// # Errors
/// The folder cannot be used or written, the server cannot be reached, or gives no certificate.
pub(super) async fn renew(folder: &Path, server: &Server) -> Result<CertificateInfo, Error> {
    let place = folder.to_owned();
    let (identity, key) = blocking(move || {
        settle(&place)?;
        probe(&place)?;
        let identity = Identity::load(&place)?;
        identity.require_device()?;
        Ok((identity, Key::generate()?))
    })
    .await?;
    let name = identity.name();
    let request = EnrolmentRequest::Renew { request: key.signing_request(name.as_deref())? };
    let (config, check_of_server) = renewal_client(&identity, &Tuning::default())?;
    let (reply, _) =
        ask(server, &config, &check_of_server, &request).await.map_err(|error| error.into_error(server))?;
    let (chain, server_now) = match reply {
        EnrolmentReply::Issued { now, chain } => (chain, i64::try_from(now).unwrap_or(i64::MAX)),
        other => return Err(Error::NotEnrolled { server: server.to_string(), reason: other.to_string() }),
    };
    let problem =
        |problem: &str| Error::EnrolmentAnswer { server: server.to_string(), problem: problem.into() };
    let ca = identity
        .issuer()
        .ok_or_else(|| problem("the CA of the present certificate is not in ca.pem"))?
        .clone();
    let (place, server) = (folder.to_owned(), server.clone());
    blocking(move || {
        let new = check(&place, ca, chain, &key, server_now, clock::now(), &server)?;
        if new.info.names.first() != name.as_ref() {
            let problem = "the certificate is for another name".to_owned();
            return Err(Error::EnrolmentAnswer { server: server.to_string(), problem });
        }
        replace(&place, &new, &key)?;
        Ok(new.info)
    })
    .await
}

/// Does work that waits for the disk, in a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(Error::Thread { task: "renews the certificate" }),
    }
}
