//! Where the frames of a camera go, and what is told about it on standard error.
#![expect(clippy::disallowed_methods, reason = "how long a camera was away is measured")]

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    inbox::{Arrival, Content, Inbox, Keep},
    loss::CameraFault,
};
use crate::{error::Chain, report::CameraTally};

/// Where the frames go, and what is told about the camera.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) name: Arc<str>,
    pub(super) inbox: Arc<Inbox>,
    /// Its place in the inbox.
    pub(super) place: usize,
    pub(super) tally: Arc<CameraTally>,
    pub(super) keep: Keep,
    /// Since when it is lost, and the cause that was told last.
    pub(super) lost: Option<(Instant, String)>,
}

/// How a session with a camera ended.
pub(super) enum End {
    /// The run ends.
    Stopped,
    /// All of its input was read.
    Over,
    /// It is to be opened again at once, in another way.
    Otherwise,
    /// It was lost.
    Lost(CameraFault),
}

impl Outlet {
    /// Puts a frame into the inbox; the first one after an outage is told.
    pub(super) fn deliver(&mut self, content: Content, at: Instant, on: SystemTime, file: Option<PathBuf>) {
        if let Some((since, _)) = self.lost.take() {
            self.tally.note_trouble(None);
            tracing::warn!("camera {}: frames again after {:.1} s", self.name, since.elapsed().as_secs_f64());
        }
        self.inbox.put(self.place, Arrival { content, at, on, file }, self.keep);
    }

    /// Tells that the camera is lost, and when it is opened again; not again for the same cause.
    pub(super) fn tell_loss(&mut self, fault: &CameraFault, again: Option<Duration>) {
        let cause = Chain(fault).to_string();
        let since = match self.lost.take() {
            Some((since, told)) if told == cause => {
                tracing::debug!("camera {}: {cause}", self.name);
                self.lost = Some((since, told));
                return;
            }
            Some((since, _)) => since,
            None => {
                self.tally.count_outage();
                Instant::now()
            }
        };
        match again {
            Some(delay) => {
                let seconds = delay.as_secs();
                tracing::warn!("camera {}: {cause}; it is opened again in {seconds} s", self.name);
            }
            None => tracing::warn!("camera {}: {cause}; it is waited for", self.name),
        }
        self.tally.note_trouble(Some(cause.clone()));
        self.lost = Some((since, cause));
    }
}
