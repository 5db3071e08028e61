//! The signals that the server answers: SIGTERM and SIGINT drain it, SIGHUP makes it read its certificates again.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::Error;

/// A signal this soon after the first one is taken as the same: a terminal and a supervisor often send one each.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// SIGHUP from now on, which no longer ends the process.
///
/// # Errors
/// [`Error::Io`] if the operating system refuses.
pub(super) fn hangup() -> Result<Signal, Error> {
    catch(SignalKind::hangup())
}

/// A value that becomes true at the first SIGTERM or SIGINT. At the second the process exits.
///
/// # Errors
/// [`Error::Io`] if the operating system refuses.
pub(super) fn drain() -> Result<watch::Receiver<bool>, Error> {
    let (drain, draining) = watch::channel(false);
    let first = Ends::new()?;
    tokio::spawn(async move {
        first.any().await;
        tracing::info!("signal: draining");
        let _ = drain.send(true);
        tokio::time::sleep(SAME_SIGNAL).await;
        if let Ok(second) = Ends::new() {
            second.any().await;
            tracing::warn!("second signal: exiting without answers to accepted frames");
            std::process::exit(1);
        }
    });
    Ok(draining)
}

/// The signals SIGTERM and SIGINT from now on.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn new() -> Result<Ends, Error> {
        Ok(Ends { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    async fn any(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn catch(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|source| Error::Io { what: "cannot catch signals".into(), source })
}
