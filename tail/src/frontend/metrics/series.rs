//! What is counted of the frames of one device, or of several together (pure).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use narrows_models::Digest;
use narrows_wire::{Path, RefusalCode};

use crate::engine::{Groups, Histogram, Model, TaskQuery, Timings};

/// The upper bounds of times, in seconds.
const SECONDS: &[f64] = &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// The times that are taken of an answered frame.
pub(crate) const STAGES: usize = 5;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It was accepted and answered, at least in part.
    Answered,
    /// It was accepted, and refused later.
    Refused,
    /// It was refused before it was accepted.
    NotAccepted,
    /// It was accepted, and its peer gave it up or left.
    Abandoned,
}

impl Outcome {
    /// The name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused => "refused",
            Outcome::NotAccepted => "not_accepted",
            Outcome::Abandoned => "abandoned",
        }
    }
}

/// The name of a refusal's cause in metrics: its text with underscores.
pub(crate) fn reason(code: RefusalCode) -> String {
    code.to_string().replace(' ', "_")
}

/// What an answered frame asked for.
pub(crate) struct Asked {
    model: Arc<Model>,
    /// The one task that it asked, or `None` for several.
    task: Option<usize>,
    pub(super) path: Path,
}

impl Asked {
    /// What a job asks for with these queries.
    pub(crate) fn new(model: &Arc<Model>, queries: &[TaskQuery], path: Path) -> Asked {
        let task = match queries {
            [query] => Some(query.task),
            _ => None,
        };
        Asked { model: Arc::clone(model), task, path }
    }
}

/// What is counted of frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// The requests by what became of them, and by the code of their refusal.
    outcomes: BTreeMap<(Outcome, Option<u16>), u64>,
    split: PathCounts,
    image: PathCounts,
    /// Bytes of replies and refusals.
    pub(crate) bytes_out: u64,
    times: Vec<StageTimes>,
}

/// What is counted of the frames of one path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PathCounts {
    /// Requests accepted.
    pub(crate) accepted: u64,
    /// Their bytes.
    pub(crate) bytes_in: u64,
}

/// The time that answered frames took, of one network and path.
#[derive(Clone, Debug)]
pub(crate) struct StageTimes {
    digest: Digest,
    index: Option<usize>,
    pub(crate) path: Path,
    /// The name of the bundle.
    pub(crate) bundle: String,
    /// The name of the task, or `several` for frames that asked more than one.
    pub(crate) task: String,
    /// The whole time, and those of the stages decode, queue, infer and answer.
    pub(crate) stages: [Histogram; STAGES],
    /// Channel groups that truncatable packets had in them, and those that they were encoded with.
    pub(crate) groups: (u64, u64),
    /// Answers from truncatable packets of which groups were missing.
    pub(crate) truncated: u64,
}

impl StageTimes {
    /// The beginning of the bundle's digest, which tells its versions apart.
    pub(crate) fn version(&self) -> String {
        version(self.digest)
    }

    fn new(asked: &Asked) -> StageTimes {
        let bundle = asked.model.bundle();
        let task = asked.task.and_then(|index| bundle.tasks().get(index));
        StageTimes {
            digest: bundle.digest(),
            index: asked.task,
            path: asked.path,
            bundle: bundle.name().to_owned(),
            task: task.map_or("several", |task| &task.name).to_owned(),
            stages: std::array::from_fn(|_| Histogram::new(SECONDS)),
            groups: (0, 0),
            truncated: 0,
        }
    }

    fn is(&self, digest: Digest, index: Option<usize>, path: Path) -> bool {
        (self.path, self.index, self.digest) == (path, index, digest)
    }
}

/// The beginning of a bundle's digest, which tells its versions apart.
pub(crate) fn version(digest: Digest) -> String {
    digest.to_string().chars().take(12).collect()
}

impl Series {
    pub(super) fn accepted(&mut self, path: Path, bytes: u64) {
        let counts = if path == Path::Image { &mut self.image } else { &mut self.split };
        counts.accepted += 1;
        counts.bytes_in += bytes;
    }

    pub(super) fn ended(&mut self, outcome: Outcome, refusal: Option<RefusalCode>, count: u64) {
        if count > 0 {
            *self.outcomes.entry((outcome, refusal.map(u16::from))).or_default() += count;
        }
    }

    pub(super) fn answered(&mut self, asked: &Asked, timings: &Timings, groups: Option<Groups>) {
        self.ended(Outcome::Answered, None, 1);
        let digest = asked.model.bundle().digest();
        let found = self.times.iter().position(|times| times.is(digest, asked.task, asked.path));
        let place = found.unwrap_or_else(|| {
            self.times.push(StageTimes::new(asked));
            self.times.len() - 1
        });
        let times = &mut self.times[place];
        let Timings { decode, queue, infer, postprocess } = *timings;
        let stages = [total(timings), decode, queue, infer, postprocess];
        times.stages.iter_mut().zip(stages).for_each(|(stage, time)| stage.record(time.as_secs_f64()));
        if let Some(Groups { used, total }) = groups {
            times.groups.0 += used as u64;
            times.groups.1 += total as u64;
            times.truncated += u64::from(used < total);
        }
    }

    /// Adds what `other` has counted.
    pub(crate) fn merge(&mut self, other: &Series) {
        other.outcomes.iter().for_each(|(key, count)| *self.outcomes.entry(*key).or_default() += count);
        for (own, other) in [(&mut self.split, other.split), (&mut self.image, other.image)] {
            own.accepted += other.accepted;
            own.bytes_in += other.bytes_in;
        }
        self.bytes_out += other.bytes_out;
        for times in &other.times {
            match self.times.iter_mut().find(|own| own.is(times.digest, times.index, times.path)) {
                Some(own) => {
                    own.stages.iter_mut().zip(&times.stages).for_each(|(own, other)| own.merge(other));
                    own.groups = (own.groups.0 + times.groups.0, own.groups.1 + times.groups.1);
                    own.truncated += times.truncated;
                }
                None => self.times.push(times.clone()),
            }
        }
    }

    /// The requests that ended, by outcome and by the cause of the refusal.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (Outcome, Option<RefusalCode>, u64)> + '_ {
        self.outcomes.iter().map(|((outcome, code), count)| (*outcome, code.map(RefusalCode::from), *count))
    }

    /// The number of requests with this outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes().filter(|(own, _, _)| *own == outcome).map(|(_, _, count)| count).sum()
    }

    /// The number of requests that were accepted.
    pub(crate) fn accepted_in_all(&self) -> u64 {
        self.split.accepted + self.image.accepted
    }

    /// The number of requests that were accepted and have not ended.
    pub(crate) fn in_flight(&self) -> u64 {
        let ended = [Outcome::Answered, Outcome::Refused, Outcome::Abandoned];
        let ended: u64 = ended.map(|outcome| self.count(outcome)).iter().sum();
        self.accepted_in_all().saturating_sub(ended)
    }

    /// The counts of each path.
    pub(crate) fn paths(&self) -> [(Path, PathCounts); 2] {
        [(Path::Split, self.split), (Path::Image, self.image)]
    }

    /// The times of answered frames, by network and path.
    pub(crate) fn times(&self) -> &[StageTimes] {
        &self.times
    }
}

/// The time from a job's arrival to its answer.
pub(super) fn total(timings: &Timings) -> Duration {
    timings.decode + timings.queue + timings.infer + timings.postprocess
}
