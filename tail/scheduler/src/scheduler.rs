//! Admission of frames, their order, and the accounts of the runs.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    NetworkLimits, Priority, Terms,
    accounts::{Accounts, Slot},
    cost::CostTable,
    network::{FrameId, Network, Waiting},
    plan::{Choice, Lane},
    refused::{Dropped, Refused},
};

/// Runs in a row that may pass a class over while its frames wait.
const PASSED_OVER: u32 = 8;

/// The queues of all networks and the accounts of all devices. `D` names a device.
///
/// Times count from any fixed moment and do not decrease.
#[derive(Clone, Debug)]
pub struct Scheduler<D> {
    networks: BTreeMap<NetworkId, Network>,
    /// How many networks have been added.
    added: usize,
    accounts: Accounts<D>,
    frames: u64,
    runs: u64,
    running: BTreeMap<RunId, Running>,
}

/// A network of a [`Scheduler`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(usize);

impl NetworkId {
    /// The number of the network, in the order of [`Scheduler::add_network`] from 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// A run that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

/// A frame that is to be queued for one network.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a, D> {
    /// Its device.
    pub device: &'a D,
    /// What its device may ask for, as of now.
    pub terms: &'a Terms,
    /// The network.
    pub network: NetworkId,
    /// Its shape: frames of one shape may share a run.
    pub shape: usize,
    /// The time by which its run should end.
    pub deadline: Option<Duration>,
}

/// A frame that was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The frame.
    pub frame: FrameId,
    /// The frame of another device that made room for it, which will not be run.
    pub displaced: Option<FrameId>,
}

/// The next step of a free worker, and the frames that were dropped on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Frames that will not be run.
    pub dropped: Vec<(FrameId, Dropped)>,
    /// The next step.
    pub next: Next,
}

/// The next step of a free worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Run these frames together, then call [`Scheduler::complete`].
    Run {
        /// The run.
        run: RunId,
        /// The frames' shape.
        shape: usize,
        /// At least one and at most [`NetworkLimits::batch`].
        frames: Vec<FrameId>,
    },
    /// Decide again at this time, or when a frame is queued.
    Wait(Duration),
    /// Decide again when a frame is queued.
    Idle,
}

#[derive(Clone, Debug)]
struct Running {
    network: NetworkId,
    shape: usize,
    /// The time that each of its frames was expected to take.
    expected: Duration,
    frames: Vec<Waiting>,
}

impl<D: Ord + Clone> Default for Scheduler<D> {
    fn default() -> Self {
        Scheduler::new()
    }
}

impl<D: Ord + Clone> Scheduler<D> {
    /// A scheduler without networks.
    #[must_use]
    pub fn new() -> Self {
        Scheduler {
            networks: BTreeMap::new(),
            added: 0,
            accounts: Accounts::new(),
            frames: 0,
            runs: 0,
            running: BTreeMap::new(),
        }
    }

    /// Adds a network.
    pub fn add_network(&mut self, limits: NetworkLimits) -> NetworkId {
        let NetworkLimits { batch, wait, queue, workers } = limits;
        let limits =
            NetworkLimits { batch: batch.max(1), wait, queue: queue.max(1), workers: workers.max(1) };
        let network = Network {
            limits,
            waiting: BTreeMap::new(),
            backlog: BTreeMap::new(),
            shares: Default::default(),
            costs: BTreeMap::new(),
            passed_over: [0; 3],
        };
        // Numbers are not used again, so that a recording tells networks apart.
        let id = NetworkId(self.added);
        self.added += 1;
        self.networks.insert(id, network);
        id
    }

    /// Removes a network, which is not to be named any more. Frames that wait for it are given up; runs that have begun may
    /// still be completed.
    pub fn remove_network(&mut self, network: NetworkId) {
        let Some(network) = self.networks.remove(&network) else { return };
        for frame in network.waiting.into_values() {
            self.accounts.leave(frame.slot, frame.reserved, Duration::ZERO);
        }
    }

    /// Admits a frame of a device for these networks before it is decoded, and counts it against the device's quota of frames.
    ///
    /// # Errors
    /// A quota that is used up, or the reason of the first network if none of them has room.
    pub fn admit(
        &mut self,
        now: Duration,
        device: &D,
        terms: &Terms,
        networks: &[NetworkId],
        deadline: Option<Duration>,
    ) -> Result<(), Refused> {
        let slot = self.open(now, device, terms);
        self.accounts.check_quotas(slot)?;
        let check = |network: &NetworkId| self.networks[network].check(now, slot, deadline).err();
        let refused: Option<Vec<Refused>> = networks.iter().map(check).collect();
        match refused.and_then(|refused| refused.first().copied()) {
            Some(refused) => Err(refused),
            None => {
                self.accounts.take_frame(slot);
                Ok(())
            }
        }
    }

    /// Queues a frame for a network. Where the queue is full, a frame of the device with the most frames in it makes room.
    ///
    /// # Errors
    /// The reason why there is no room.
    pub fn push(&mut self, now: Duration, arrival: Arrival<'_, D>) -> Result<Queued, Refused> {
        let Arrival { device, terms, network, shape, deadline } = arrival;
        let slot = self.open(now, device, terms);
        let network = named(&mut self.networks, network);
        network.check(now, slot, deadline)?;
        let mut displaced = None;
        if network.waiting.len() >= network.limits.queue
            && let Some(longest) = network.longest(network.own(slot))
        {
            // The least urgent of its frames.
            let of_longest = network.waiting.iter().filter(|(_, frame)| frame.slot == longest);
            displaced = of_longest.max_by_key(|(id, frame)| (frame.key(), **id)).map(|(id, _)| *id);
            if let Some(frame) = displaced.and_then(|frame| network.give_up(frame)) {
                self.accounts.leave(frame.slot, frame.reserved, Duration::ZERO);
            }
        }
        let reserved = network.cost_share(shape);
        let frame = FrameId(self.frames);
        self.frames += 1;
        let waiting = Waiting { slot, class: terms.priority, shape, arrived: now, deadline, reserved };
        network.waiting.insert(frame, waiting);
        *network.backlog.entry(slot).or_default() += 1;
        let quantum = network.quantum(terms.priority, 1);
        network.shares[terms.priority.index()].wait(slot, quantum);
        self.accounts.enter(slot, reserved);
        Ok(Queued { frame, displaced })
    }

    /// Decides what a free worker of a network does next; `wanted` tells whether anybody still waits for a frame.
    pub fn decide(
        &mut self,
        now: Duration,
        network: NetworkId,
        wanted: impl Fn(FrameId) -> bool,
    ) -> Decision {
        let dropped = self.drop_late(now, network, wanted);
        let next = self.next(now, network);
        Decision { dropped, next }
    }

    /// Takes the end of a run into the accounts and estimates. `ran` is the number of frames that were run, which is less than
    /// that of the run where some were given up before it began, and `took` the time that it took.
    pub fn complete(&mut self, now: Duration, run: RunId, ran: usize, took: Duration) {
        let Some(run) = self.running.remove(&run) else { return };
        let mut network = self.networks.get_mut(&run.network);
        if let Some(network) = network.as_mut().filter(|_| ran > 0) {
            let batch = network.limits.batch;
            let cost = network.costs.entry(run.shape).or_insert_with(|| CostTable::new(batch));
            cost.record(now, ran, took);
        }
        let share = u32::try_from(run.frames.len()).map_or(Duration::ZERO, |frames| took / frames.max(1));
        for frame in run.frames {
            if let Some(network) = &mut network {
                network.shares[frame.class.index()].finish(frame.slot, run.expected, share);
            }
            self.accounts.leave(frame.slot, frame.reserved, share);
        }
    }

    /// Takes a measured run into the estimates of a network before any frame has arrived.
    pub fn measured(
        &mut self,
        now: Duration,
        network: NetworkId,
        shape: usize,
        batch: usize,
        took: Duration,
    ) {
        let network = named(&mut self.networks, network);
        let size = network.limits.batch;
        network.costs.entry(shape).or_insert_with(|| CostTable::new(size)).record(now, batch, took);
    }

    /// The estimated time of a run; zero where none was measured.
    #[must_use]
    pub fn estimate(&self, network: NetworkId, shape: usize, batch: usize) -> Duration {
        self.networks[&network].costs.get(&shape).map_or(Duration::ZERO, |cost| cost.mean(batch))
    }

    /// The number of frames that wait for a network.
    #[must_use]
    pub fn waiting(&self, network: NetworkId) -> usize {
        self.networks[&network].waiting.len()
    }

    /// The number of devices that have frames waiting, and of those that have an account.
    #[must_use]
    pub fn devices(&self) -> (usize, usize) {
        let mut active: Vec<Slot> =
            self.networks.values().flat_map(|network| network.backlog.keys().copied()).collect();
        active.sort_unstable();
        active.dedup();
        (active.len(), self.accounts.len())
    }

    /// The account of a device.
    fn open(&mut self, now: Duration, device: &D, terms: &Terms) -> Slot {
        let mut removed = Vec::new();
        let slot = self.accounts.open(now, device, terms, &mut removed);
        let shares = self.networks.values_mut().flat_map(|network| &mut network.shares);
        shares.for_each(|shares| removed.iter().for_each(|slot| shares.forget(*slot)));
        slot
    }

    fn drop_late(
        &mut self,
        now: Duration,
        network: NetworkId,
        wanted: impl Fn(FrameId) -> bool,
    ) -> Vec<(FrameId, Dropped)> {
        let network = named(&mut self.networks, network);
        let quick: BTreeMap<usize, Duration> =
            network.costs.iter().map(|(shape, cost)| (*shape, cost.quick(now))).collect();
        let reason = |id: &FrameId, frame: &Waiting| {
            let quick = quick.get(&frame.shape).copied().unwrap_or_default();
            match frame.deadline {
                _ if !wanted(*id) => Some(Dropped::Unwanted),
                Some(deadline) if deadline <= now => Some(Dropped::Expired),
                Some(deadline) if deadline < now + quick => Some(Dropped::Hopeless),
                _ => None,
            }
        };
        let late = network.waiting.iter().filter_map(|(id, frame)| Some((*id, reason(id, frame)?)));
        let late: Vec<_> = late.collect();
        for (id, _) in &late {
            if let Some(frame) = network.give_up(*id) {
                self.accounts.leave(frame.slot, frame.reserved, Duration::ZERO);
            }
        }
        late
    }

    fn next(&mut self, now: Duration, id: NetworkId) -> Next {
        let network = named(&mut self.networks, id);
        if network.waiting.is_empty() {
            return Next::Idle;
        }
        let shapes: Vec<usize> = {
            let mut shapes: Vec<usize> = network.waiting.values().map(|frame| frame.shape).collect();
            shapes.sort_unstable();
            shapes.dedup();
            shapes
        };
        let unknown = CostTable::new(network.limits.batch);
        let cost = |shape: usize| network.costs.get(&shape).unwrap_or(&unknown);
        let due: Vec<Duration> = shapes.iter().map(|&shape| network.due(now, shape, cost(shape))).collect();
        if due.iter().all(|due| *due > now) {
            return due.into_iter().min().map_or(Next::Idle, Next::Wait);
        }
        let lanes: Vec<Lane<'_>> = shapes
            .iter()
            .zip(&due)
            .map(|(&shape, due)| Lane {
                cost: cost(shape),
                size: cost(shape).next_size(),
                ready: *due <= now,
            })
            .collect();
        let ready = |frame: &Waiting| shapes.binary_search(&frame.shape).is_ok_and(|lane| lanes[lane].ready);
        let mut classes = [false; 3];
        network
            .waiting
            .values()
            .filter(|frame| ready(frame))
            .for_each(|frame| classes[frame.class.index()] = true);
        let passed = |class: &Priority| network.passed_over[class.index()];
        let present = Priority::ALL.into_iter().filter(|class| classes[class.index()]);
        let starved = present.clone().filter(|class| passed(class) >= PASSED_OVER).max_by_key(passed);
        let Some(class) = starved.or_else(|| present.clone().next()) else { return Next::Idle };
        let leads = |frame: &Waiting| frame.class == class && ready(frame);
        let quantum = network.quantum(class, 0);
        let mut leading: Vec<Slot> =
            network.waiting.values().filter(|frame| leads(frame)).map(|frame| frame.slot).collect();
        leading.sort_unstable();
        leading.dedup();
        // A device that waits alone is lent what it takes.
        let alone = (leading.len() == 1 && network.backlog.len() == 1).then(|| leading[0]);
        if alone.is_none() {
            network.shares[class.index()].begin_rounds(leading.into_iter(), quantum);
        }
        let (ids, frames, shares, fills) = network.candidates(&shapes, class, alone, leads);
        let workers = u32::try_from(network.limits.workers).unwrap_or(u32::MAX);
        let (shares, fills) = (&shares, &fills);
        let choice = Choice { now, frames: &frames, lanes: &lanes, shares, fills, class, workers };
        let batch = choice.batch();
        let Some(&first) = batch.first() else { return Next::Idle };
        let shape = shapes[frames[first].lane];
        let size = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let (expected, full) = (cost(shape).mean(batch.len()) / size, network.full_run());
        for other in Priority::ALL {
            let taken = batch.iter().any(|&at| frames[at].class == other);
            let passed = &mut network.passed_over[other.index()];
            *passed = if taken || !classes[other.index()] { 0 } else { passed.saturating_add(1) };
        }
        let run = RunId(self.runs);
        self.runs += 1;
        let mut running = Running { network: id, shape, expected, frames: Vec::with_capacity(batch.len()) };
        let frames: Vec<FrameId> = batch.into_iter().map(|at| ids[at]).collect();
        for id in &frames {
            if let Some(frame) = network.remove(*id) {
                network.shares[frame.class.index()].begin(frame.slot, expected, full);
                running.frames.push(frame);
            }
        }
        self.running.insert(run, running);
        Next::Run { run, shape, frames }
    }
}

/// A network that has not been removed.
fn named(networks: &mut BTreeMap<NetworkId, Network>, id: NetworkId) -> &mut Network {
    networks.get_mut(&id).expect("a network is not named any more once it is removed")
}
