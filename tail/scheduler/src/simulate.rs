//! A server with this scheduler in virtual time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use crate::{
    NetworkLimits, Terms,
    network::FrameId,
    refused::{Dropped, Refused},
    scheduler::{Arrival, NetworkId, Next, RunId, Scheduler},
};

/// A frame that arrives in a [`Simulation`].
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedFrame {
    /// The time of its arrival.
    pub at: Duration,
    /// Its device.
    pub device: usize,
    /// What its device may ask for.
    pub terms: Terms,
    /// The time by which its runs should end.
    pub deadline: Option<Duration>,
    /// The number of each network that it is for, and its shape there.
    pub parts: Vec<(usize, usize)>,
}

/// What became of a frame in one network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// It was run.
    Ran {
        /// The time at which its run began.
        began: Duration,
        /// The time at which it ended.
        ended: Duration,
        /// The frames of the run.
        batch: usize,
    },
    /// It was not admitted.
    Refused(Refused),
    /// It was dropped at this time.
    Dropped(Duration, Dropped),
}

/// A server in virtual time: its networks, and the time of a run by network, shape and batch size.
#[derive(Clone, Debug)]
pub struct Simulation<C> {
    /// The networks.
    pub networks: Vec<NetworkLimits>,
    /// The time of a run.
    pub cost: C,
    /// Whether the scheduler knows the time of every run from the beginning.
    pub primed: bool,
}

/// A frame, by its place among the arrivals and the part of it.
type Place = (usize, usize);

impl<C: Fn(usize, usize, usize) -> Duration> Simulation<C> {
    /// Runs the server on these frames, which are in the order of their arrival, until none waits. Returns what became of each
    /// frame in each of its networks.
    ///
    /// # Panics
    /// Where a frame names a network that there is not.
    #[must_use]
    pub fn run(&self, frames: &[SimulatedFrame]) -> Vec<Vec<Outcome>> {
        let mut scheduler: Scheduler<usize> = Scheduler::new();
        let networks: Vec<NetworkId> =
            self.networks.iter().map(|limits| scheduler.add_network(*limits)).collect();
        if self.primed {
            self.prime(&mut scheduler, &networks, frames);
        }
        let mut state = State {
            outcomes: frames.iter().map(|frame| vec![None; frame.parts.len()]).collect(),
            places: BTreeMap::new(),
            ends: BinaryHeap::new(),
            free: self.networks.iter().map(|limits| limits.workers).collect(),
        };
        let mut arrivals = frames.iter().enumerate().peekable();
        let mut wakes: Vec<Option<Duration>> = vec![None; networks.len()];
        loop {
            let times = [arrivals.peek().map(|(_, frame)| frame.at), state.ends.peek().map(|end| end.0.0)];
            let Some(now) = times.into_iter().chain(wakes.iter().copied()).flatten().min() else { break };
            while let Some(&Reverse((at, run, network, batch, took))) = state.ends.peek()
                && at <= now
            {
                state.ends.pop();
                state.free[network] += 1;
                scheduler.complete(now, run, batch, took);
            }
            while let Some((index, frame)) = arrivals.next_if(|(_, frame)| frame.at <= now) {
                state.arrive(&mut scheduler, &networks, now, index, frame);
            }
            for (network, id) in networks.iter().enumerate() {
                wakes[network] = None;
                while state.free[network] > 0 {
                    let decision = scheduler.decide(now, *id, |_| true);
                    for (frame, reason) in decision.dropped {
                        state.drop(now, frame, reason);
                    }
                    match decision.next {
                        Next::Run { run, shape, frames } => {
                            let took = (self.cost)(network, shape, frames.len());
                            state.begin(now, network, run, &frames, took);
                        }
                        Next::Wait(until) => {
                            wakes[network] = Some(until.max(now + Duration::from_nanos(1)));
                            break;
                        }
                        Next::Idle => break,
                    }
                }
            }
        }
        let missed = Outcome::Dropped(Duration::MAX, Dropped::Unwanted);
        let known =
            |parts: Vec<Option<Outcome>>| parts.into_iter().map(|part| part.unwrap_or(missed)).collect();
        state.outcomes.into_iter().map(known).collect()
    }

    /// Tells the scheduler the time of every run.
    fn prime(&self, scheduler: &mut Scheduler<usize>, networks: &[NetworkId], frames: &[SimulatedFrame]) {
        let mut parts: Vec<(usize, usize)> = frames.iter().flat_map(|frame| frame.parts.clone()).collect();
        parts.sort_unstable();
        parts.dedup();
        for (network, shape) in parts {
            for batch in 1..=self.networks[network].batch {
                // Often enough that the deviation of the first sample is forgotten.
                for _ in 0..40 {
                    let cost = (self.cost)(network, shape, batch);
                    scheduler.measured(Duration::ZERO, networks[network], shape, batch, cost);
                }
            }
        }
    }
}

/// The end of a run: its time, the run, its network, its frames, and the time that it took.
type End = (Duration, RunId, usize, usize, Duration);

struct State {
    outcomes: Vec<Vec<Option<Outcome>>>,
    places: BTreeMap<FrameId, Place>,
    ends: BinaryHeap<Reverse<End>>,
    free: Vec<usize>,
}

impl State {
    fn arrive(
        &mut self,
        scheduler: &mut Scheduler<usize>,
        networks: &[NetworkId],
        now: Duration,
        index: usize,
        frame: &SimulatedFrame,
    ) {
        let SimulatedFrame { device, terms, deadline, parts, .. } = frame;
        let needed: Vec<NetworkId> = parts.iter().map(|(network, _)| networks[*network]).collect();
        if let Err(refused) = scheduler.admit(now, device, terms, &needed, *deadline) {
            self.outcomes[index].fill(Some(Outcome::Refused(refused)));
            return;
        }
        for (part, (network, shape)) in parts.iter().enumerate() {
            let arrival =
                Arrival { device, terms, network: networks[*network], shape: *shape, deadline: *deadline };
            match scheduler.push(now, arrival) {
                Ok(queued) => {
                    self.places.insert(queued.frame, (index, part));
                    if let Some(displaced) = queued.displaced {
                        self.drop(now, displaced, Dropped::Displaced);
                    }
                }
                Err(refused) => self.outcomes[index][part] = Some(Outcome::Refused(refused)),
            }
        }
    }

    fn drop(&mut self, now: Duration, frame: FrameId, reason: Dropped) {
        if let Some((index, part)) = self.places.remove(&frame) {
            self.outcomes[index][part] = Some(Outcome::Dropped(now, reason));
        }
    }

    fn begin(&mut self, now: Duration, network: usize, run: RunId, frames: &[FrameId], took: Duration) {
        self.free[network] -= 1;
        self.ends.push(Reverse((now + took, run, network, frames.len(), took)));
        for frame in frames {
            if let Some((index, part)) = self.places.remove(frame) {
                let outcome = Outcome::Ran { began: now, ended: now + took, batch: frames.len() };
                self.outcomes[index][part] = Some(outcome);
            }
        }
    }
}
