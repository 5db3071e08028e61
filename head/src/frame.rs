//! A frame on its way from the source to its outcome, with what was decided about it and what was measured on it.

use std::{
    fmt,
    ops::Add,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use narrows_codec::{Feature, GeometryId, LevelId, Mode};
use narrows_policy::{ExitCosts, Stay};
use narrows_wire::{Class, Framing, Outcome as TaskOutcome, Payload, Refusal, Reply, TaskRequest};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Error,
    config::Level,
    encoding::Encoding,
    net::Latent,
    picture::Picture,
    policy::{Confidence, Gate, Movement},
};

/// Position of a frame within its run, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FrameId(pub(crate) u64);

/// Where a frame comes from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// An image file, and the name of its source if it was given one.
    File { file: PathBuf, source: Option<Arc<str>> },
    /// A camera, or another source whose newest frame counts.
    Camera {
        /// Its name, unique within the run.
        name: Arc<str>,
        /// Position of the frame among all that the camera has delivered, from 0.
        sequence: u64,
        /// Frames of the camera that newer ones have replaced since the last one that was taken.
        replaced: u64,
        /// The file that it was read from, in a watched folder.
        file: Option<PathBuf>,
    },
}

/// One picture as a source delivers it.
#[derive(Debug)]
pub(crate) struct Capture {
    /// Where it comes from.
    pub(crate) origin: Origin,
    /// Name of its pictures in the output folder: unique within a source of files, that of the camera for all of its frames,
    /// and `None` for a file that was delivered before.
    pub(crate) picture_name: Option<String>,
    /// When it came into being; its budget is counted from here.
    pub(crate) captured_at: Instant,
    /// The same moment on this device's calendar, as it was set then.
    pub(crate) captured_on: SystemTime,
    /// Duration of reading and decoding.
    pub(crate) decode: Duration,
    /// The upright picture, or why this one cannot be used; the source may still deliver others.
    pub(crate) picture: Result<Picture, Error>,
    /// Whether reading its file again gives the same picture.
    pub(crate) can_reload: bool,
}

/// Everything that is decided about a frame before work on it begins.
#[derive(Debug, Clone)]
pub(crate) struct FramePlan {
    /// Where the network runs, with the settings of that path.
    pub(crate) path: FramePath,
    /// The tasks to answer, at most one of each kind.
    pub(crate) tasks: Arc<[TaskRequest]>,
    /// When the answer is due; later work on the frame is dropped.
    pub(crate) deadline: Instant,
    /// Whether the answer is drawn onto the picture.
    pub(crate) draw: bool,
    /// Whether the picture is kept until the outcome: it will be drawn on, somebody may view
    /// the answer, or the fallback could not read it again.
    pub(crate) keep_picture: bool,
}

/// Where the network runs for one frame.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FramePath {
    /// Here up to the bottleneck and on the server from there.
    Split {
        /// Size of the network's input.
        geometry: GeometryId,
        /// Rate level of the packet.
        level: Level,
    },
    /// On the server, from an image file.
    Image {
        /// Size of the network's input.
        geometry: GeometryId,
        /// How the file is encoded.
        encoding: Encoding,
        /// At which size it is sent.
        framing: Framing,
    },
    /// Here, with the bundle's local network.
    Local,
}

/// A frame in one of its stages: nothing yet (`()`), [`Captured`], [`Encoded`] or [`Finished`].
#[derive(Debug)]
pub(crate) struct Frame<S> {
    pub(crate) id: FrameId,
    /// Where it comes from.
    pub(crate) origin: Origin,
    /// Name of its pictures in the output folder, if it has one.
    pub(crate) picture_name: Option<String>,
    /// When it came into being.
    pub(crate) captured_at: Instant,
    /// The same moment on this device's calendar.
    pub(crate) captured_on: SystemTime,
    pub(crate) plan: FramePlan,
    /// What was decided about it since.
    pub(crate) decisions: Decisions,
    /// The gate that is to know its answer.
    pub(crate) awaited: Option<Awaited>,
    /// Its place in the spool, if it has or had one.
    pub(crate) spooled: Option<Spooled>,
    pub(crate) stage: S,
    /// One of the run's places in flight. It is freed when the frame is dropped, which bounds how many frames exist.
    permit: OwnedSemaphorePermit,
}

/// The place of a frame in the spool.
///
/// That of a frame from the disk is dropped where the frame ends without a line; then the frame stays on disk.
pub(crate) struct Spooled {
    /// Its number in the spool.
    pub(crate) number: u64,
    end: Option<Box<dyn FnOnce(SpoolEnd) + Send>>,
}

/// How a frame that was given out by the spool has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpoolEnd {
    /// It has a line.
    Settled,
    /// It had no answer, which says nothing about it.
    Unanswered,
    /// The server failed on it.
    Failed,
}

impl Spooled {
    /// The place of a frame that was put on disk.
    pub(crate) fn stored(number: u64) -> Self {
        Spooled { number, end: None }
    }

    /// The place of a frame from the disk; `end` hears how it ended.
    pub(crate) fn sent(number: u64, end: impl FnOnce(SpoolEnd) + Send + 'static) -> Self {
        Spooled { number, end: Some(Box::new(end)) }
    }

    /// Whether the frame comes from the disk.
    pub(crate) fn is_sent(&self) -> bool {
        self.end.is_some()
    }

    /// Tells how the frame has ended.
    pub(crate) fn end(&mut self, how: SpoolEnd) {
        if let Some(end) = self.end.take() {
            end(how);
        }
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.end(SpoolEnd::Unanswered);
    }
}

impl fmt::Debug for Spooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spooled({}, sent: {})", self.number, self.is_sent())
    }
}

/// What was decided about a frame while it was worked on, with the figures that decided it.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    /// How far it had moved since the last answered frame of its source, where a gate compared them.
    pub(crate) gate: Option<Movement>,
    /// How sure the local network was, where an early exit was tried.
    pub(crate) exit: Option<Confidence>,
    /// The local network's answer where it was not sure enough for the early exit; the fallback's, where the server gives none.
    pub(crate) unsure: Option<Vec<Class>>,
    /// What decided whether the early exit was tried, where that was to save energy, and whether it was.
    pub(crate) trial: Option<(ExitCosts, bool)>,
    /// Joules of the bytes that were sent, by the model of this device, where energy is to be saved.
    pub(crate) sending: f64,
}

impl Decisions {
    /// The figures by which the frame was to stay on this device or not, in the order in which they were looked at.
    pub(crate) fn figures(&self) -> impl Iterator<Item = Stay> {
        [self.gate.map(Movement::figures), self.exit.map(Confidence::figures)].into_iter().flatten()
    }
}

/// An answer to all tasks of a frame, which later frames may keep.
#[derive(Debug)]
pub(crate) enum Answer {
    Server(Reply),
    Device(Vec<Class>),
}

/// A gate that waits for the answer to a frame, and the features that the answer belongs to.
#[derive(Debug)]
pub(crate) struct Awaited {
    pub(crate) gate: Arc<Mutex<Gate<Answer>>>,
    pub(crate) feature: Feature,
}

/// A frame that has been read and decoded.
#[derive(Debug)]
pub(crate) struct Captured {
    /// The upright picture.
    pub(crate) picture: Picture,
    /// Duration of reading and decoding.
    pub(crate) decode: Duration,
}

/// A frame that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) load: Load,
    pub(crate) stats: EncodeStats,
    /// The picture, if the plan keeps it.
    pub(crate) picture: Option<Picture>,
}

/// What is sent of a frame.
#[derive(Debug)]
pub(crate) enum Load {
    /// A packet or an image.
    Payload(Payload),
    /// A packet that is made of this when its level has been chosen, which is when it is sent.
    Latent(Latent),
}

impl Load {
    /// The payload, if there is one already.
    pub(crate) fn payload(&self) -> Option<&Payload> {
        match self {
            Load::Payload(payload) => Some(payload),
            Load::Latent(_) => None,
        }
    }
}

impl FramePath {
    /// The rate level of the packet, where the plan has chosen it.
    pub(crate) fn level(self) -> Option<LevelId> {
        match self {
            FramePath::Split { level: Level::Fixed(level), .. } => Some(level),
            _ => None,
        }
    }
}

/// What encoding a frame took and gave.
#[derive(Debug, Clone)]
pub(crate) struct EncodeStats {
    /// Size of the payload: the codec's packet or the image file. 0 while its level is not chosen.
    pub(crate) packet_bytes: usize,
    /// Rate level of a packet; `None` for images, and while it is not chosen.
    pub(crate) level: Option<LevelId>,
    /// How a packet is coded; `None` for images.
    pub(crate) coding: Option<Mode>,
    pub(crate) timings: Timings,
    /// When the payload was ready.
    pub(crate) encoded_at: Instant,
}

/// A frame whose outcome is known.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) outcome: Outcome,
    /// `None` for frames that were never encoded.
    pub(crate) encoded: Option<EncodeStats>,
    /// The picture, if the plan keeps it.
    pub(crate) picture: Option<Picture>,
}

/// How a frame ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The server answered at least one task.
    Answered { reply: Reply, traffic: Traffic },
    /// The server refused the frame.
    Refused { refusal: Refusal, traffic: Traffic },
    /// This device answered.
    Local {
        classes: Vec<Class>,
        timings: Timings,
        answered_at: Instant,
        /// Why the server did not, where one was to.
        fallback: Option<Arc<str>>,
    },
    /// The answer to an earlier frame of its source was kept.
    Kept { answer: Arc<Answer>, timings: Timings, answered_at: Instant },
    /// A newer frame of its source took its place.
    Dropped,
    /// No server answered, for this reason, and it waits on disk until one is there.
    Spooled(String),
    /// Nobody answered. The text says why and becomes the `error` of the frame's line.
    Failed(String),
}

/// Size of a request and its reply before QUIC's own headers, and when the reply was complete.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    /// Address of the server.
    pub(crate) server: Arc<str>,
    pub(crate) sent: usize,
    pub(crate) received: usize,
    pub(crate) received_at: Instant,
}

/// Duration of each stage on the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Reading and decoding the image; zero where it was given decoded.
    pub decode: Duration,
    /// Resizing and cropping to the network's input.
    pub resize: Duration,
    /// The network that runs on the device; zero where an image is sent.
    pub head: Duration,
    /// The entropy coder, or the image encoder.
    pub encode: Duration,
    /// The local network and its resizing, where an early exit was tried and the frame was to be sent after all.
    pub exit: Duration,
}

impl Timings {
    /// The time of all stages.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.decode + self.resize + self.head + self.encode + self.exit
    }
}

impl Add for Timings {
    type Output = Timings;

    fn add(self, other: Timings) -> Timings {
        Timings {
            decode: self.decode + other.decode,
            resize: self.resize + other.resize,
            head: self.head + other.head,
            encode: self.encode + other.encode,
            exit: self.exit + other.exit,
        }
    }
}

impl Origin {
    /// The file that the frame was read from, if it was.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Origin::File { file, .. } => Some(file),
            Origin::Camera { file, .. } => file.as_deref(),
        }
    }

    /// The name of the camera, or of a source of files that was given one.
    pub(crate) fn source(&self) -> Option<&str> {
        match self {
            Origin::File { source, .. } => source.as_deref(),
            Origin::Camera { name, .. } => Some(name),
        }
    }
}

impl Frame<()> {
    /// Starts a frame from a capture: the frame without its picture, and that or why there is none.
    pub(crate) fn begin(
        id: FrameId,
        capture: Capture,
        plan: FramePlan,
        permit: OwnedSemaphorePermit,
    ) -> (Self, Result<Captured, Error>) {
        let Capture { origin, picture_name, captured_at, captured_on, decode, picture, .. } = capture;
        let decisions = Decisions::default();
        let awaited = None;
        let frame = Frame {
            id,
            origin,
            picture_name,
            captured_at,
            captured_on,
            plan,
            decisions,
            awaited,
            spooled: None,
            stage: (),
            permit,
        };
        (frame, picture.map(|picture| Captured { picture, decode }))
    }

    /// Ends a frame that was never encoded.
    pub(crate) fn finish(mut self, outcome: Outcome, picture: Option<Picture>) -> Frame<Finished> {
        self.tell_gate(&outcome);
        self.with(Finished { outcome, encoded: None, picture })
    }
}

impl Frame<Encoded> {
    /// Ends a frame that was encoded, whether or not it was sent.
    pub(crate) fn finish(self, outcome: Outcome) -> Frame<Finished> {
        let (Encoded { stats, picture, .. }, mut frame) = self.take();
        frame.tell_gate(&outcome);
        frame.with(Finished { outcome, encoded: Some(stats), picture })
    }
}

impl<S> Frame<S> {
    /// Puts the frame into another stage.
    pub(crate) fn with<T>(self, stage: T) -> Frame<T> {
        self.replace(stage).1
    }

    /// Separates what the stage holds from the frame.
    pub(crate) fn take(self) -> (S, Frame<()>) {
        self.replace(())
    }

    fn replace<T>(self, other: T) -> (S, Frame<T>) {
        let Frame {
            id,
            origin,
            picture_name,
            captured_at,
            captured_on,
            plan,
            decisions,
            awaited,
            spooled,
            stage,
            permit,
        } = self;
        let frame = Frame {
            id,
            origin,
            picture_name,
            captured_at,
            captured_on,
            plan,
            decisions,
            awaited,
            spooled,
            stage: other,
            permit,
        };
        (stage, frame)
    }

    /// Tells the gate that waits for it the frame's answer, if all tasks were answered. The answer of a fallback is not told: the
    /// next frame is to ask the server again.
    fn tell_gate(&mut self, outcome: &Outcome) {
        let Some(Awaited { gate, feature }) = self.awaited.take() else { return };
        let answer = match outcome {
            Outcome::Answered { reply, .. } if is_complete(reply, &self.plan.tasks) => {
                Answer::Server(reply.clone())
            }
            Outcome::Local { classes, fallback: None, .. } => Answer::Device(classes.clone()),
            _ => return,
        };
        // Its state is changed in one step, so a panic elsewhere leaves it right.
        let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.note(self.origin.source(), self.id.0, self.captured_at, feature, answer);
    }

    /// Whether it comes from the spool, behind the frames that are captured now.
    pub(crate) fn is_from_spool(&self) -> bool {
        self.spooled.as_ref().is_some_and(Spooled::is_sent)
    }

    /// When half of the frame's time has passed.
    pub(crate) fn halfway(&self) -> Instant {
        self.captured_at + self.budget() / 2
    }

    /// The time that the frame was given, from its capture to its answer.
    pub(crate) fn budget(&self) -> Duration {
        self.plan.deadline.saturating_duration_since(self.captured_at)
    }
}

/// Whether every task was answered, from a whole packet.
fn is_complete(reply: &Reply, tasks: &[TaskRequest]) -> bool {
    let whole = reply.groups.is_none_or(|groups| groups.used == groups.total);
    let answered = |outcome: &TaskOutcome| matches!(outcome, TaskOutcome::Classes(_) | TaskOutcome::Map(_));
    whole
        && reply.answers.len() == tasks.len()
        && reply.answers.iter().all(|answer| answered(&answer.outcome))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    /// A frame that is not worked on.
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    pub(crate) fn frame() -> Frame<()> {
        let now = Instant::now();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let plan = FramePlan {
            path: FramePath::Local,
            tasks: [].into(),
            deadline: now,
            draw: false,
            keep_picture: false,
        };
        Frame {
            id: FrameId(0),
            origin: Origin::File { file: "cat.jpg".into(), source: None },
            picture_name: None,
            captured_at: now,
            captured_on: SystemTime::UNIX_EPOCH,
            plan,
            decisions: Decisions::default(),
            awaited: None,
            spooled: None,
            stage: (),
            permit,
        }
    }

    /// What a gate keeps after a frame ended like this.
    fn kept_after(outcome: Outcome, tasks: &[TaskRequest]) -> Option<Arc<Answer>> {
        let shape = narrows_codec::Shape::new(1, 1, 1).unwrap();
        let feature = Feature::new(shape, vec![3]).unwrap();
        let gate = Arc::new(Mutex::new(Gate::new(1.0, Duration::from_secs(1))));
        let mut frame = frame();
        frame.plan.tasks = tasks.into();
        frame.awaited = Some(Awaited { gate: Arc::clone(&gate), feature: feature.clone() });
        let captured_at = frame.captured_at;
        frame.finish(outcome, None);
        gate.lock().unwrap().compare(None, captured_at, &feature).kept
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn a_gate_keeps_whole_answers_and_none_of_a_fallback() {
        use narrows_wire::{Path, Provider, Query, RefusalCode, TaskAnswer, Timings as TailTimings};
        let now = Instant::now();
        let local = |fallback| Outcome::Local {
            classes: Vec::new(),
            timings: Timings::default(),
            answered_at: now,
            fallback,
        };
        assert!(matches!(kept_after(local(None), &[]).as_deref(), Some(Answer::Device(_))));
        assert!(kept_after(local(Some("no server".into())), &[]).is_none());
        assert!(kept_after(Outcome::Failed("x".into()), &[]).is_none());
        let task = TaskRequest { task: 0, query: Query::Classify { top_k: 1 } };
        let cut = |used| Some(narrows_wire::Groups { used, total: 6 });
        let answered = |groups, answers| Outcome::Answered {
            reply: Reply {
                id: 0,
                path: Path::Split,
                groups,
                provider: Provider::Cpu,
                timings: TailTimings::default(),
                answers,
            },
            traffic: Traffic { server: "a:1".into(), sent: 0, received: 0, received_at: now },
        };
        let answer = |outcome| TaskAnswer { task: 0, batch: 1, outcome };
        for groups in [None, cut(6), cut(5)] {
            let whole = answered(groups, vec![answer(TaskOutcome::Classes(Vec::new()))]);
            let kept = kept_after(whole, std::slice::from_ref(&task));
            assert_eq!(matches!(kept.as_deref(), Some(Answer::Server(_))), groups != cut(5), "{groups:?}");
        }
        let refusal = Refusal::new(RefusalCode::Busy, "");
        assert!(
            kept_after(
                answered(None, vec![answer(TaskOutcome::Refused(refusal))]),
                std::slice::from_ref(&task)
            )
            .is_none()
        );
        assert!(kept_after(answered(None, Vec::new()), &[task]).is_none());
    }
}
