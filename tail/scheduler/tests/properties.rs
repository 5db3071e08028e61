//! Properties that hold for all arrivals, in virtual time.

use std::{collections::BTreeMap, time::Duration};

use narrows_scheduler::{
    Arrival, Dropped, NetworkLimits, Next, Outcome, Priority, Refused, Scheduler, SimulatedFrame, Simulation,
    Terms,
};
use proptest::{prelude::*, test_runner::RngSeed};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn limits(batch: usize, queue: usize, workers: usize) -> NetworkLimits {
    NetworkLimits { batch, wait: Duration::ZERO, queue, workers }
}

/// Runs of 4 ms for the first frame and 3 ms for each further one, half as much again in the second shape.
fn cost(_: usize, shape: usize, batch: usize) -> Duration {
    (MS * 4 + MS * 3 * (batch as u32 - 1)) * (2 + shape as u32) / 2
}

fn frame(at: Duration, device: usize, deadline: Option<Duration>) -> SimulatedFrame {
    SimulatedFrame { at, device, terms: Terms::default(), deadline, parts: vec![(0, 0)] }
}

/// Frames of a device, `rate` a second, from `phase` on.
fn stream(device: usize, rate: f64, phase: f64, seconds: f64, terms: Terms) -> Vec<SimulatedFrame> {
    let count = ((seconds - phase) * rate) as u32;
    let at = |index: u32| Duration::from_secs_f64(phase + f64::from(index) / rate);
    (0..count).map(|index| SimulatedFrame { terms, ..frame(at(index), device, None) }).collect()
}

/// Frames of a device that arrive at random, `rate` a second.
fn poisson(rng: &mut fastrand::Rng, device: usize, rate: f64, seconds: f64) -> Vec<SimulatedFrame> {
    let mut at = 0.0;
    let next = move || {
        at -= (1.0 - rng.f64()).ln() / rate;
        (at < seconds).then(|| frame(Duration::from_secs_f64(at), device, None))
    };
    std::iter::from_fn(next).collect()
}

fn sorted(mut frames: Vec<SimulatedFrame>) -> Vec<SimulatedFrame> {
    frames.sort_by_key(|frame| frame.at);
    frames
}

/// The waiting times of a device's frames, shortest first.
fn waits(frames: &[SimulatedFrame], outcomes: &[Vec<Outcome>], of: impl Fn(usize) -> bool) -> Vec<Duration> {
    let mut waits: Vec<Duration> = frames
        .iter()
        .zip(outcomes)
        .filter(|(frame, _)| of(frame.device))
        .filter_map(|(frame, outcome)| match outcome[0] {
            Outcome::Ran { began, .. } => Some(began - frame.at),
            _ => None,
        })
        .collect();
    waits.sort_unstable();
    waits
}

/// The same cases in every run; PROPTEST_CASES changes their number.
fn config() -> ProptestConfig {
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 24 };
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    }
}

prop_compose! {
    fn any_frame()(
        at in 0u32..400,
        device in 0usize..6,
        budget in prop::option::weighted(0.7, 1u32..200),
        priority in prop::sample::select(&Priority::ALL[..]),
        shape in 0usize..2,
        both in any::<bool>(),
    ) -> SimulatedFrame {
        let at = MS * at;
        let mut parts = vec![(0, shape)];
        parts.extend(both.then_some((1, shape)));
        let terms = Terms { priority, ..Terms::default() };
        SimulatedFrame { at, device, terms, deadline: budget.map(|budget| at + MS * budget), parts }
    }
}

proptest! {
    #![proptest_config(config())]

    /// Every frame has one outcome; none waits for ever; no worker is idle while a frame waits; no batch is too large or mixes
    /// shapes; nothing runs after its deadline.
    #[test]
    fn every_frame_is_accounted_for_and_no_worker_idles(
        frames in prop::collection::vec(any_frame(), 1..120),
        batch in 1usize..9,
        workers in 1usize..3,
        queue in 1usize..40,
        primed in any::<bool>(),
    ) {
        let frames = sorted(frames);
        let networks = vec![limits(batch, queue, workers), limits(batch, queue, 1)];
        let outcomes = Simulation { networks: networks.clone(), cost, primed }.run(&frames);
        for (network, limits) in networks.iter().enumerate() {
            let mut runs: BTreeMap<(Duration, Duration), Vec<usize>> = BTreeMap::new();
            // The times in which frames wait that are run in the end.
            let mut waiting = Vec::new();
            for (frame, outcomes) in frames.iter().zip(&outcomes) {
                let part = frame.parts.iter().position(|part| part.0 == network);
                let Some((part, shape)) = part.map(|part| (part, frame.parts[part].1)) else { continue };
                match outcomes[part] {
                    Outcome::Ran { began, ended, batch: size } => {
                        prop_assert!(size <= batch && began >= frame.at);
                        prop_assert!(frame.deadline.is_none_or(|deadline| began < deadline));
                        prop_assert_eq!(ended - began, cost(network, shape, size));
                        runs.entry((began, ended)).or_default().push(size);
                        waiting.push((frame.at, began));
                    }
                    Outcome::Dropped(at, reason) => {
                        prop_assert_ne!(reason, Dropped::Unwanted, "it was never decided");
                        prop_assert!(at >= frame.at);
                    }
                    Outcome::Refused(_) => {}
                }
            }
            for (from, to) in waiting {
                let busy = |at: &Duration| runs.keys().filter(|(began, ended)| began <= at && at < ended).count();
                // Whether a worker is free changes only where a run ends.
                let ends = runs.keys().map(|(_, ended)| *ended).chain([from]);
                for at in ends.filter(|at| from <= *at && *at < to) {
                    prop_assert!(busy(&at) >= limits.workers.min(1), "idle at {at:?} while a frame waits");
                }
            }
        }
    }

    /// With everlasting work of all others, of whatever class and deadlines, a frame without a deadline is run.
    #[test]
    fn no_frame_starves(
        class in prop::sample::select(&Priority::ALL[..]),
        others in prop::collection::vec((prop::sample::select(&Priority::ALL[..]), 5u32..60), 1..6),
        batch in 1usize..9,
    ) {
        let terms = |priority| Terms { priority, ..Terms::default() };
        let mut frames = vec![SimulatedFrame { terms: terms(class), ..frame(MS * 50, 99, None) }];
        for (device, (priority, budget)) in others.iter().enumerate() {
            // Each of them alone is too much for the network.
            for index in 0..700 {
                let at = MS * 2 * index;
                let deadline = Some(at + MS * *budget);
                frames.push(SimulatedFrame { terms: terms(*priority), ..frame(at, device, deadline) });
            }
        }
        let frames = sorted(frames);
        let outcomes = Simulation { networks: vec![limits(batch, 64, 1)], cost, primed: true }.run(&frames);
        let waits = waits(&frames, &outcomes, |device| device == 99);
        // At worst its class gets every ninth run and its device every sixth of these.
        let longest = cost(0, 0, batch) * 9 * (others.len() as u32 + 1) + PATIENCE_AND_A_RUN;
        prop_assert!(waits.len() == 1 && waits[0] <= longest, "{waits:?}, at most {longest:?}");
    }

    /// Where it asks for more, a device with a quota gets the quota and no more.
    #[test]
    fn quotas_hold(frames_per_second in 2u32..60, ms in 20u32..400, burst in 1u32..20) {
        let seconds = 40.0;
        let burst_seconds = f64::from(burst) / 10.0;
        let by_frames =
            Terms { frames_per_second: Some(frames_per_second.into()), burst_seconds, ..Terms::default() };
        let by_time = Terms { tail_ms_per_second: Some(ms.into()), burst_seconds, ..Terms::default() };
        let frames =
            sorted([stream(0, 190.0, 0.0, seconds, by_frames), stream(1, 210.0, 0.0, seconds, by_time)].concat());
        // Two workers, so that there is time enough for both.
        let outcomes = Simulation { networks: vec![limits(4, 64, 2)], cost, primed: false }.run(&frames);
        let (mut ran, mut time) = (0, Duration::ZERO);
        for (frame, outcome) in frames.iter().zip(&outcomes) {
            match (frame.device, outcome[0]) {
                (0, Outcome::Ran { .. }) => ran += 1,
                (1, Outcome::Ran { began, ended, batch }) => time += (ended - began) / batch as u32,
                (0, Outcome::Refused(refused)) => prop_assert!(
                    matches!(refused, Refused::FrameQuota { retry, .. } if retry <= SECOND),
                    "{refused:?}"
                ),
                (1, Outcome::Refused(refused)) => {
                    prop_assert!(matches!(refused, Refused::TimeQuota { .. }), "{refused:?}");
                }
                (_, other) => prop_assert!(false, "{other:?}"),
            }
        }
        let quota = f64::from(frames_per_second) * seconds;
        let most = quota * 1.05 + (f64::from(frames_per_second) * burst_seconds).max(1.0);
        prop_assert!((quota * 0.95..=most).contains(&f64::from(ran)), "{ran} of {quota}");
        let quota = f64::from(ms) / 1e3 * seconds;
        let time = time.as_secs_f64();
        let most = quota * 1.05 + f64::from(ms) / 1e3 * burst_seconds;
        prop_assert!((quota * 0.95..=most).contains(&time), "{time} of {quota}");
    }

    /// One device that offers ten times its share costs the others at most a batch's time.
    #[test]
    fn a_greedy_device_costs_the_others_at_most_a_batchs_time(
        devices in 3usize..12,
        batch in 1usize..9,
        load in 20u32..55,
        seed in any::<u64>(),
        flat in any::<bool>(),
    ) {
        let cost = |_, _, batch: usize| match flat {
            // As on a processor, where a batch saves little, and as on a GPU.
            false => MS * 5 * batch as u32,
            true => MS * 10 + MS * (batch as u32 - 1),
        };
        let (seconds, mut rng) = (60.0, fastrand::Rng::with_seed(seed));
        // Each of the others uses a part of its share; the greedy device offers ten times its own.
        let capacity = batch as f64 / cost(0, 0, batch).as_secs_f64();
        let rate = capacity * f64::from(load) / 100.0 / (devices + 1) as f64;
        let quiet: Vec<SimulatedFrame> = (0..devices)
            .flat_map(|device| poisson(&mut rng, device, rate, seconds))
            .collect();
        let greedy = stream(99, 10.0 * capacity / (devices + 1) as f64, 0.0, seconds, Terms::default());
        let simulation = Simulation { networks: vec![limits(batch, 64, 1)], cost, primed: true };
        let of_quiet = |frames: Vec<SimulatedFrame>| {
            let frames = sorted(frames);
            waits(&frames, &simulation.run(&frames), |device| device != 99)
        };
        let (alone, beside) = (of_quiet(quiet.clone()), of_quiet([quiet.clone(), greedy].concat()));
        prop_assert_eq!(alone.len(), quiet.len());
        prop_assert_eq!(beside.len(), quiet.len(), "some were not answered");
        let p99 = |waits: &[Duration]| waits[(waits.len() * 99 / 100).min(waits.len() - 1)];
        let rise = p99(&beside).saturating_sub(p99(&alone));
        // The 99th percentile of a minute has some chance in it.
        let most = cost(0, 0, batch) * 11 / 10;
        prop_assert!(rise <= most, "{:?} to {:?}, {most:?}", p99(&alone), p99(&beside));
    }

    /// A frame that meets its deadline in no batch of more frames is not put into one.
    #[test]
    fn a_batch_makes_no_frame_miss_what_it_meets_alone(
        budgets in prop::collection::vec(1u32..60, 1..20),
        batch in 2usize..9,
    ) {
        let frames: Vec<_> = budgets.iter().map(|budget| frame(MS, 0, Some(MS + MS * *budget))).collect();
        let outcomes = Simulation { networks: vec![limits(batch, 64, 1)], cost, primed: true }.run(&frames);
        for (frame, outcome) in frames.iter().zip(&outcomes) {
            if let Outcome::Ran { began, ended, .. } = outcome[0] {
                let alone = began + cost(0, 0, 1);
                prop_assert!(Some(ended) <= frame.deadline || Some(alone) > frame.deadline);
            }
        }
    }
}

/// A frame without a deadline is urgent a second after its arrival; then the run in progress ends.
const PATIENCE_AND_A_RUN: Duration = Duration::from_millis(1100);

#[test]
fn a_newcomer_is_admitted_however_much_another_device_has_queued() {
    let mut scheduler = Scheduler::new();
    let network = scheduler.add_network(limits(4, 16, 1));
    let terms = Terms::default();
    let arrival = |device| Arrival { device, terms: &terms, network, shape: 0, deadline: Some(SECOND) };
    for _ in 0..40 {
        scheduler.measured(Duration::ZERO, network, 0, 4, MS * 500);
    }
    let greedy: Vec<_> = (0..40).map(|_| scheduler.push(MS, arrival(&"greedy"))).collect();
    assert!(greedy[0].is_ok() && greedy[39].is_err(), "its own backlog");
    let arrival = |device| Arrival { deadline: None, ..arrival(device) };
    while scheduler.waiting(network) < 16 {
        scheduler.push(MS, arrival(&"greedy")).unwrap();
    }
    scheduler.admit(MS, &"quiet", &terms, &[network], Some(SECOND)).unwrap();
    let queued = scheduler.push(MS, arrival(&"quiet")).unwrap();
    assert!(queued.displaced.is_some(), "the greedy device makes room");
    let full = scheduler.push(MS, arrival(&"greedy")).unwrap_err();
    assert!(matches!(full, Refused::Full { waiting: 16, own: 15, .. }), "{full}");
    assert!(full.retry() >= MS * 500);
}

#[test]
fn frames_that_cannot_be_in_time_make_way_at_once_and_those_without_a_deadline_are_late() {
    let mut scheduler = Scheduler::new();
    let network = scheduler.add_network(limits(1, 16, 1));
    let terms = Terms::default();
    (0..40).for_each(|_| scheduler.measured(MS, network, 0, 1, MS * 20));
    let mut push = |deadline| {
        let arrival = Arrival { device: &1, terms: &terms, network, shape: 0, deadline };
        scheduler.push(MS, arrival).unwrap().frame
    };
    let (hopeless, possible, timeless) = (push(Some(MS * 10)), push(Some(MS * 30)), push(None));
    let decision = scheduler.decide(MS * 2, network, |_| true);
    assert_eq!(decision.dropped, [(hopeless, Dropped::Hopeless)]);
    let Next::Run { run, frames, .. } = decision.next else { panic!("{decision:?}") };
    assert_eq!(frames, [possible]);
    scheduler.complete(MS * 5000, run, 1, MS * 20);
    let Next::Run { frames, .. } = scheduler.decide(MS * 5000, network, |_| true).next else { panic!() };
    assert_eq!(frames, [timeless]);
}

#[test]
fn an_estimate_that_is_out_of_date_is_measured_again() {
    let mut scheduler = Scheduler::new();
    let network = scheduler.add_network(limits(1, 16, 1));
    let terms = Terms::default();
    (0..40).for_each(|_| scheduler.measured(MS, network, 0, 1, MS * 200));
    let mut ran = 0;
    for at in (10u32..3000).step_by(10) {
        let now = MS * at;
        let arrival = Arrival { device: &1, terms: &terms, network, shape: 0, deadline: Some(now + MS * 50) };
        scheduler.push(now, arrival).unwrap();
        if let Next::Run { run, .. } = scheduler.decide(now, network, |_| true).next {
            ran += 1;
            scheduler.complete(now + MS * 5, run, 1, MS * 5);
        }
    }
    // A run once a second shows that runs have become quick.
    assert!(ran > 5, "{ran}");
    assert!(scheduler.estimate(network, 0, 1) < MS * 150);
}

#[test]
fn work_that_nobody_waits_for_never_runs() {
    let mut scheduler = Scheduler::new();
    let network = scheduler.add_network(limits(4, 16, 1));
    let terms = Terms::default();
    let mut push = |device| {
        let arrival = Arrival { device: &device, terms: &terms, network, shape: 0, deadline: None };
        scheduler.push(MS, arrival).unwrap().frame
    };
    let (unwanted, wanted) = (push(1), push(2));
    let decision = scheduler.decide(MS, network, |frame| frame != unwanted);
    assert_eq!(decision.dropped, [(unwanted, Dropped::Unwanted)]);
    let Next::Run { run, frames, .. } = decision.next else { panic!("{decision:?}") };
    assert_eq!(frames, [wanted]);
    // Given up after it left the queue: no run, and no estimate from it.
    scheduler.complete(MS * 2, run, 0, Duration::ZERO);
    assert_eq!(scheduler.estimate(network, 0, 1), Duration::ZERO);
    assert_eq!(scheduler.decide(MS * 2, network, |_| true).next, Next::Idle);
}

#[test]
fn the_operators_wait_gathers_company_while_deadlines_allow_it() {
    let mut scheduler = Scheduler::new();
    let network = scheduler.add_network(NetworkLimits { wait: MS * 50, ..limits(3, 16, 1) });
    let terms = Terms::default();
    (0..40).for_each(|_| scheduler.measured(MS, network, 0, 1, MS * 20));
    let arrival =
        |deadline: Option<Duration>| Arrival { device: &1, terms: &terms, network, shape: 0, deadline };
    scheduler.push(MS * 10, arrival(None)).unwrap();
    assert_eq!(scheduler.decide(MS * 10, network, |_| true).next, Next::Wait(MS * 60));
    scheduler.push(MS * 20, arrival(Some(MS * 70))).unwrap();
    // Two frames are estimated to take twice the time of one.
    assert_eq!(scheduler.decide(MS * 20, network, |_| true).next, Next::Wait(MS * 30));
    scheduler.push(MS * 21, arrival(None)).unwrap();
    let next = scheduler.decide(MS * 21, network, |_| true).next;
    assert!(matches!(next, Next::Run { ref frames, .. } if frames.len() == 2), "{next:?}");
}

#[test]
fn accounts_of_devices_that_have_left_are_removed() {
    let mut scheduler = Scheduler::new();
    let network = scheduler.add_network(limits(1, 16, 1));
    let terms = Terms { frames_per_second: Some(5.0), ..Terms::default() };
    for device in 0..20_000u32 {
        let now = MS * 30 * device;
        scheduler.admit(now, &device, &terms, &[network], None).unwrap();
        let arrival = Arrival { device: &device, terms: &terms, network, shape: 0, deadline: None };
        scheduler.push(now, arrival).unwrap();
        let Next::Run { run, .. } = scheduler.decide(now, network, |_| true).next else { panic!() };
        scheduler.complete(now + MS * 10, run, 1, MS * 10);
    }
    let (waiting, accounts) = scheduler.devices();
    assert!(waiting == 0 && accounts <= 600, "{accounts}");
}

#[test]
fn a_network_that_is_removed_gives_its_frames_up_and_leaves_the_others_as_they_are() {
    let mut scheduler = Scheduler::new();
    let (old, new) = (scheduler.add_network(limits(4, 16, 1)), scheduler.add_network(limits(4, 16, 1)));
    let terms = Terms { tail_ms_per_second: Some(1000.0), ..Terms::default() };
    let arrival = |network| Arrival { device: &"a", terms: &terms, network, shape: 0, deadline: None };
    for network in [old, old, new] {
        scheduler.push(MS, arrival(network)).unwrap();
    }
    let Next::Run { run, frames, .. } = scheduler.decide(MS, old, |_| true).next else {
        panic!("a free worker")
    };
    assert_eq!(frames.len(), 2);
    scheduler.push(MS, arrival(old)).unwrap();
    scheduler.remove_network(old);
    scheduler.complete(MS * 9, run, 2, MS * 8);
    assert_eq!((scheduler.devices().0, scheduler.waiting(new)), (1, 1));
    let Next::Run { run, .. } = scheduler.decide(MS * 9, new, |_| true).next else { panic!("a free worker") };
    scheduler.complete(MS * 12, run, 1, MS * 3);
    assert_eq!(scheduler.estimate(new, 0, 1), MS * 3);
    // Numbers are not used again.
    assert_eq!(scheduler.add_network(limits(4, 16, 1)).index(), 2);
}
