//! The queues of all networks: the scheduler with a clock, and the recording of what it was asked.
#![expect(clippy::disallowed_methods, reason = "the scheduler is given the time")]

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use narrows_scheduler::{
    Arrival, Decision, FrameId, NetworkId, NetworkLimits, Next, Part, Queued, Refused, RunId, Scheduler,
    micros,
};

use super::{client::Client, recorder::Recorder};

/// The scheduler of an engine, shared by its networks.
pub(super) struct Queues {
    began: Instant,
    scheduler: Mutex<Scheduler<Arc<str>>>,
    recorder: Option<Recorder>,
}

/// What a frame asks of a network.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    /// Who it is for.
    pub(super) client: &'a Client,
    /// The time by which its run should end.
    pub(super) deadline: Option<Instant>,
}

/// The next step of a free worker, in the worker's time.
pub(super) enum Step {
    /// Run these frames, of one shape, together.
    Run(RunId, Vec<FrameId>),
    /// Decide again after this time, or when work arrives.
    Wait(Duration),
    /// Decide again when work arrives.
    Idle,
}

impl Queues {
    /// Queues without networks. What is asked is recorded by `recorder`.
    pub(super) fn new(recorder: Option<Recorder>) -> Queues {
        Queues { began: Instant::now(), scheduler: Mutex::new(Scheduler::new()), recorder }
    }

    /// Adds the queue of a network.
    pub(super) fn add_network(&self, name: &str, limits: NetworkLimits) -> NetworkId {
        let mut scheduler = self.lock();
        // Under the lock, so that networks are recorded in the order of their numbers.
        if let Some(recorder) = &self.recorder {
            recorder.network(self.now(), name, &limits);
        }
        scheduler.add_network(limits)
    }

    /// Removes the queue of a network.
    pub(super) fn remove_network(&self, network: NetworkId) {
        self.lock().remove_network(network);
    }

    /// Takes a run into the estimates of a network's runs before any frame has arrived.
    pub(super) fn measured(&self, network: NetworkId, shape: usize, batch: usize, took: Duration) {
        let mut scheduler = self.lock();
        scheduler.measured(self.now(), network, shape, batch, took);
    }

    /// Admits a frame for these networks before it is decoded.
    ///
    /// # Errors
    /// A quota of the client, or the first network's reason where none has room.
    pub(super) fn admit(&self, ask: Ask<'_>, networks: &[NetworkId]) -> Result<(), Refused> {
        let Ask { client, deadline } = ask;
        let mut scheduler = self.lock();
        let now = self.now();
        let admitted = scheduler.admit(now, &client.name, &client.terms, networks, self.since(deadline));
        drop(scheduler);
        if admitted.is_err() {
            self.record(now, ask, networks.iter().map(|network| (*network, None)));
        }
        admitted
    }

    /// Records a frame of these networks that was admitted and decoded.
    pub(super) fn record_frame(&self, ask: Ask<'_>, networks: &[NetworkId], shape: usize) {
        if self.recorder.is_some() {
            self.record(self.now(), ask, networks.iter().map(|network| (*network, Some(shape))));
        }
    }

    /// Queues a frame for a network.
    ///
    /// # Errors
    /// The reason why there is no room.
    pub(super) fn push(&self, ask: Ask<'_>, network: NetworkId, shape: usize) -> Result<Queued, Refused> {
        let Ask { client, deadline } = ask;
        let deadline = self.since(deadline);
        let mut scheduler = self.lock();
        let arrival = Arrival { device: &client.name, terms: &client.terms, network, shape, deadline };
        scheduler.push(self.now(), arrival)
    }

    /// Decides what a free worker of a network does next, and adds the frames that will not be run to `dropped`.
    pub(super) fn decide(
        &self,
        network: NetworkId,
        wanted: impl Fn(FrameId) -> bool,
        dropped: &mut Vec<(FrameId, narrows_scheduler::Dropped)>,
    ) -> Step {
        let mut scheduler = self.lock();
        let now = self.now();
        let Decision { dropped: late, next } = scheduler.decide(now, network, wanted);
        dropped.extend(late);
        match next {
            Next::Run { run, frames, .. } => Step::Run(run, frames),
            Next::Wait(until) => Step::Wait(until.saturating_sub(now)),
            Next::Idle => Step::Idle,
        }
    }

    /// Takes the end of a run of `ran` frames of a shape into the accounts.
    pub(super) fn complete(&self, network: NetworkId, run: RunId, shape: usize, ran: usize, took: Duration) {
        let now = self.now();
        if let Some(recorder) = self.recorder.as_ref().filter(|_| ran > 0) {
            recorder.run(now, network.index(), shape, ran, took);
        }
        self.lock().complete(now, run, ran, took);
    }

    /// The number of frames that wait for a network.
    pub(super) fn waiting(&self, network: NetworkId) -> usize {
        self.lock().waiting(network)
    }

    /// Writes what was recorded to its file.
    pub(super) fn close(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.close();
        }
    }

    fn record(&self, now: Duration, ask: Ask<'_>, parts: impl Iterator<Item = (NetworkId, Option<usize>)>) {
        if let Some(recorder) = &self.recorder {
            let parts = parts.map(|(network, shape)| Part { network: network.index(), shape }).collect();
            let budget = self.since(ask.deadline).map(|deadline| micros(deadline.saturating_sub(now)));
            recorder.frame(now, ask.client, budget, parts);
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn since(&self, time: Option<Instant>) -> Option<Duration> {
        time.map(|time| time.saturating_duration_since(self.began))
    }

    fn lock(&self) -> MutexGuard<'_, Scheduler<Arc<str>>> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
