//! What the thread that decodes the frames of live sources shares with the one that takes them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use narrows_models::Geometry;

use super::{inbox::Inbox, rate::Rate};
use crate::report::CameraTally;

/// The frames that wait, and which of them are wanted. The settings may change at any time.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) inbox: Arc<Inbox>,
    members: Vec<Member>,
    rates: Mutex<Vec<Rate>>,
    views: Mutex<Arc<[Geometry]>>,
}

/// A source as those see it who take its frames.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: Arc<str>,
    pub(super) tally: Arc<CameraTally>,
    /// Whether a newer frame replaces one that waits.
    pub(super) is_newest: bool,
}

impl Intake {
    /// Takes at most `rate` frames a second of each of `members`, and of a camera's frame what `views` show.
    pub(super) fn new(
        inbox: Arc<Inbox>,
        members: Vec<Member>,
        rate: Option<f64>,
        views: Arc<[Geometry]>,
    ) -> Self {
        let rates = Mutex::new(vec![Rate::new(rate); members.len()]);
        Intake { inbox, members, rates, views: Mutex::new(views) }
    }

    /// The source in this place.
    pub(super) fn member(&self, source: usize) -> &Member {
        &self.members[source]
    }

    /// How many sources there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Takes at most so many frames a second of each source from now on.
    pub(super) fn set_rate(&self, rate: Option<f64>) {
        self.rates().fill(Rate::new(rate));
        // Whoever waits for a frame's time looks again.
        self.inbox.bell.notify_one();
    }

    /// Takes of a camera's frame what these inputs of networks show, or all of it as an image where there are none, from now on.
    pub(super) fn set_views(&self, views: Arc<[Geometry]>) {
        *self.views.lock().unwrap_or_else(PoisonError::into_inner) = views;
    }

    /// What is taken of a camera's frame at present.
    pub(super) fn views(&self) -> Arc<[Geometry]> {
        Arc::clone(&self.views.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the next frame of a source may be taken, if that is after `now`.
    pub(super) fn wait(&self, source: usize, now: Instant) -> Option<Instant> {
        self.rates()[source].wait(now)
    }

    /// Counts a frame of a source against its rate.
    pub(super) fn count(&self, source: usize, now: Instant) {
        self.rates()[source].count(now);
    }

    fn rates(&self) -> MutexGuard<'_, Vec<Rate>> {
        // Every change leaves the rates whole.
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
