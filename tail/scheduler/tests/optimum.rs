//! On small instances the scheduler meets almost as many deadlines as any schedule could that knows the future.

use std::{collections::HashMap, time::Duration};

use fastrand::Rng;
use narrows_scheduler::{NetworkLimits, Outcome, SimulatedFrame, Simulation, Terms};

const MS: Duration = Duration::from_millis(1);

/// An instance: the frames, the largest batch, and the time of a run's first frame and of each further one, by shape.
struct Instance {
    frames: Vec<SimulatedFrame>,
    batch: usize,
    costs: Vec<(u32, u32)>,
}

impl Instance {
    /// Up to seven frames of up to three devices and two shapes, that wait from the beginning or arrive within the time of a few
    /// runs, and have from one to some runs' time.
    fn random(rng: &mut Rng, arriving: bool) -> Instance {
        let costs: Vec<(u32, u32)> =
            (0..rng.usize(1..=2)).map(|_| (rng.u32(5..40), rng.u32(0..20))).collect();
        let longest = costs.iter().map(|(first, _)| *first).max().unwrap_or_default();
        let (devices, count) = (rng.usize(1..=3), rng.usize(1..=7));
        let spread = if arriving { rng.u32(0..6) * longest } else { 0 };
        let slack = rng.u32(2..=10);
        let mut frames: Vec<SimulatedFrame> = (0..count)
            .map(|_| {
                let shape = rng.usize(..costs.len());
                let at = MS * rng.u32(0..=spread);
                let own = costs[shape].0;
                let deadline = Some(at + MS * rng.u32(own..=own * slack));
                let device = rng.usize(..devices);
                SimulatedFrame { at, device, terms: Terms::default(), deadline, parts: vec![(0, shape)] }
            })
            .collect();
        frames.sort_by_key(|frame| frame.at);
        Instance { frames, batch: rng.usize(1..=4), costs }
    }

    fn cost(&self, shape: usize, batch: usize) -> Duration {
        let (first, further) = self.costs[shape];
        MS * (first + further * (batch as u32 - 1))
    }

    /// The deadlines that the scheduler meets.
    fn scheduled(&self) -> usize {
        let limits = NetworkLimits { batch: self.batch, wait: Duration::ZERO, queue: 64, workers: 1 };
        let cost = |_, shape, batch| self.cost(shape, batch);
        let outcomes = Simulation { networks: vec![limits], cost, primed: true }.run(&self.frames);
        let met = |(frame, outcome): (&SimulatedFrame, &Vec<Outcome>)| match outcome[0] {
            Outcome::Ran { ended, .. } => Some(ended) <= frame.deadline,
            _ => false,
        };
        self.frames.iter().zip(&outcomes).filter(|pair| met(*pair)).count()
    }

    /// The most deadlines that any schedule meets, by trying all of them.
    fn most(&self, done: u32, now: Duration, known: &mut HashMap<(u32, Duration), usize>) -> usize {
        if let Some(most) = known.get(&(done, now)) {
            return *most;
        }
        let open = |at: usize| done & (1 << at) == 0;
        // To wait for the next arrival.
        let next =
            (0..self.frames.len()).filter(|&at| self.frames[at].at > now).map(|at| self.frames[at].at).min();
        let mut most = next.map_or(0, |next| self.most(done, next, known));
        for chosen in 1u32..1 << self.frames.len() {
            let frames: Vec<usize> = (0..self.frames.len()).filter(|at| chosen & (1 << at) != 0).collect();
            let shape = self.frames[frames[0]].parts[0].1;
            if frames.len() > self.batch {
                continue;
            }
            let end = now + self.cost(shape, frames.len());
            let fits = |&at: &usize| {
                let frame = &self.frames[at];
                open(at) && frame.at <= now && frame.parts[0].1 == shape && Some(end) <= frame.deadline
            };
            if frames.iter().all(fits) {
                most = most.max(frames.len() + self.most(done | chosen, end, known));
            }
        }
        known.insert((done, now), most);
        most
    }
}

#[test]
fn nearly_as_many_deadlines_are_met_as_brute_force_meets() {
    let mut rng = Rng::with_seed(5);
    let [mut met, mut possible] = [[0; 2]; 2];
    for arriving in [false, true] {
        for _ in 0..2000 {
            let instance = Instance::random(&mut rng, arriving);
            let scheduled = instance.scheduled();
            let most = instance.most(0, Duration::ZERO, &mut HashMap::new());
            assert!(scheduled <= most);
            met[usize::from(arriving)] += scheduled;
            possible[usize::from(arriving)] += most;
        }
    }
    println!("{met:?} of {possible:?} deadlines: all frames wait from the beginning, they arrive later");
    let percent = |met: usize, possible: usize| met as f64 / possible as f64 * 100.0;
    assert!(percent(met[0], possible[0]) >= 99.0, "{met:?} of {possible:?}");
    // Brute force knows what will arrive; no scheduler can.
    assert!(percent(met[1], possible[1]) >= 94.0, "{met:?} of {possible:?}");
    assert!(percent(met[0] + met[1], possible[0] + possible[1]) >= 95.0, "{met:?} of {possible:?}");
}
