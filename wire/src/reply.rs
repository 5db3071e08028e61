//! Replies: classes, a class map or a refusal, and the time that each stage took (PROTOCOL.md section 5).

use std::time::Duration;

use crate::{
    codes::{FrameType, OutcomeKind, Path, Provider},
    cursor::{Reader, Writer, within_limit},
    error::Error,
    limits::{MAX_REPLY, MAX_TASKS, MAX_TOP_K},
    map::ClassMap,
    refusal::Refusal,
    request::micros,
};

/// The server's answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum FrameReply {
    /// At least one task answered.
    Answered(Reply),
    /// No task answered.
    Refused {
        /// The number of the frame.
        id: u64,
        /// The reason.
        refusal: Refusal,
    },
}

/// The answers to one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The number of the frame.
    pub id: u64,
    /// The path that the frame took through the networks.
    pub path: Path,
    /// The processor on which the server ran the network.
    pub provider: Provider,
    /// How much of a truncatable packet the answers are from; `None` for other payloads.
    pub groups: Option<Groups>,
    /// The time that each stage took.
    pub timings: Timings,
    /// One entry per task request.
    pub answers: Vec<TaskAnswer>,
}

/// How many of a packet's groups of channels an answer is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// The groups that arrived in time, from the first on; at least 1.
    pub used: u8,
    /// The groups of the whole packet.
    pub total: u8,
}

/// The answer of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskAnswer {
    /// The index of the task in the bundle's manifest.
    pub task: u8,
    /// The number of frames that shared the inference run of this answer; 0 if there was none.
    pub batch: u16,
    /// The outcome.
    pub outcome: Outcome,
}

/// The time that a frame spent in each stage on the server. The four add up to the time from the arrival of the request to
/// the departure of the reply. Time in which some task was in its network counts as `infer`, and where tasks of one frame
/// overlap, no time counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the packet to integer features, or from the image file to pixels.
    pub decode: Duration,
    /// Waiting for a worker, for other frames of a batch, and between threads.
    pub queue: Duration,
    /// At least one task of the frame was in its network.
    pub infer: Duration,
    /// Softmax, or the class map and its compression.
    pub answer: Duration,
}

/// The outcome of one task.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The most probable classes, best first.
    Classes(Vec<Class>),
    /// A class per pixel.
    Map(ClassMap),
    /// The task has no answer, for this reason.
    Refused(Refusal),
    /// An answer of a kind that this version does not know.
    Unknown {
        /// The number of its kind.
        kind: u8,
        /// Its bytes.
        body: Vec<u8>,
    },
}

/// A class and its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// The class: the line of the task's label file, counted from 0.
    pub index: u16,
    /// The softmax over all classes, 0 to 1.
    pub probability: f32,
}

impl FrameReply {
    /// The number of the frame.
    #[must_use]
    pub fn id(&self) -> u64 {
        match self {
            FrameReply::Answered(reply) => reply.id,
            FrameReply::Refused { id, .. } => *id,
        }
    }

    /// The message's bytes.
    ///
    /// # Errors
    /// [`Error::OverLimit`] or [`Error::Invalid`] for values that cannot be expressed.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        match self {
            FrameReply::Answered(reply) => reply.encode(),
            FrameReply::Refused { id, refusal } => {
                let mut writer = Writer::new(FrameType::Refusal.into());
                writer.u64(*id);
                writer.refusal(refusal);
                writer.finish("refusal", MAX_REPLY)
            }
        }
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Unexpected`] for bytes that are neither a reply nor a refusal.
    pub fn parse(bytes: &[u8]) -> Result<FrameReply, Error> {
        let mut reader = Reader::bounded("reply", bytes, MAX_REPLY)?;
        match FrameType::from(reader.u8("type")?) {
            FrameType::Reply => Reply::read(reader, false).map(FrameReply::Answered),
            FrameType::GroupsReply => Reply::read(reader, true).map(FrameReply::Answered),
            FrameType::Refusal => {
                let id = reader.u64("id")?;
                let refusal = reader.refusal()?;
                reader.finish()?;
                Ok(FrameReply::Refused { id, refusal })
            }
            got => Err(Error::Unexpected { got, expected: "reply or refusal" }),
        }
    }
}

impl Reply {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let kind = if self.groups.is_some() { FrameType::GroupsReply } else { FrameType::Reply };
        let mut writer = Writer::new(kind.into());
        writer.u64(self.id);
        writer.u8(self.path.into());
        writer.u8(self.provider.into());
        if let Some(groups) = self.groups {
            groups.check().map_err(|reason| Error::Invalid { field: "groups", reason })?;
            writer.u8(groups.used);
            writer.u8(groups.total);
        }
        for stage in [self.timings.decode, self.timings.queue, self.timings.infer, self.timings.answer] {
            writer.u32(micros(stage));
        }
        if self.answers.is_empty() {
            return Err(Error::Invalid { field: "answers", reason: "a reply holds at least one answer" });
        }
        writer.count("answers", self.answers.len(), MAX_TASKS)?;
        for (index, answer) in self.answers.iter().enumerate() {
            if self.answers[..index].iter().any(|other| other.task == answer.task) {
                return Err(Error::Invalid { field: "answers", reason: "a task answers twice" });
            }
            answer.write(&mut writer)?;
        }
        writer.finish("reply", MAX_REPLY)
    }

    /// Reads what follows the type; `grouped` says whether the answers are to a truncatable packet.
    fn read(mut reader: Reader<'_>, grouped: bool) -> Result<Reply, Error> {
        let id = reader.u64("id")?;
        let path = Path::from(reader.u8("path")?);
        let provider = Provider::from(reader.u8("provider")?);
        let groups = match grouped {
            true => {
                let groups = Groups { used: reader.u8("groups used")?, total: reader.u8("groups in all")? };
                groups.check().map_err(|reason| reader.invalid("groups", reason))?;
                Some(groups)
            }
            false => None,
        };
        let mut stage = |field| reader.u32(field).map(|micros| Duration::from_micros(micros.into()));
        let timings = Timings {
            decode: stage("decode time")?,
            queue: stage("queue time")?,
            infer: stage("infer time")?,
            answer: stage("answer time")?,
        };
        let count = reader.count("answers", MAX_TASKS)?;
        if count == 0 {
            return Err(reader.invalid("answers", "a reply holds at least one answer"));
        }
        let mut answers: Vec<TaskAnswer> = Vec::with_capacity(count);
        for _ in 0..count {
            let answer = TaskAnswer::read(&mut reader)?;
            if answers.iter().any(|other| other.task == answer.task) {
                return Err(reader.invalid("answers", "a task answers twice"));
            }
            answers.push(answer);
        }
        reader.finish()?;
        Ok(Reply { id, path, provider, groups, timings, answers })
    }
}

impl Groups {
    fn check(self) -> Result<(), &'static str> {
        if (1..=self.total).contains(&self.used) { Ok(()) } else { Err("must be 1 to all groups") }
    }
}

impl TaskAnswer {
    fn write(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.u8(self.task);
        writer.u16(self.batch);
        writer.u8(self.outcome.kind().into());
        let mut body = Writer::part();
        match &self.outcome {
            Outcome::Classes(classes) => {
                within_limit("classes", classes.len(), MAX_TOP_K.into())?;
                body.u16(classes.len() as u16);
                for class in classes {
                    check_probability(class.probability)
                        .map_err(|reason| Error::Invalid { field: "probability", reason })?;
                    body.u16(class.index);
                    body.f32(class.probability);
                }
            }
            Outcome::Map(map) => map.write(&mut body),
            Outcome::Refused(refusal) => body.refusal(refusal),
            Outcome::Unknown { kind, body: bytes } => {
                if !matches!(OutcomeKind::from(*kind), OutcomeKind::Unknown(_)) {
                    return Err(Error::Invalid { field: "outcome", reason: "a known kind given as unknown" });
                }
                body.bytes(bytes);
            }
        }
        writer.block("answer", &body.finish("answer", MAX_REPLY)?, MAX_REPLY)
    }

    fn read(reader: &mut Reader<'_>) -> Result<TaskAnswer, Error> {
        let task = reader.u8("task")?;
        let batch = reader.u16("batch")?;
        let kind = OutcomeKind::from(reader.u8("outcome kind")?);
        let bytes = reader.block("answer", MAX_REPLY)?;
        let mut body = Reader::new("reply", bytes);
        let outcome = match kind {
            OutcomeKind::Classes => {
                let count = usize::from(body.u16("classes")?);
                body.check("classes", count, MAX_TOP_K.into())?;
                let mut classes = Vec::with_capacity(count);
                for _ in 0..count {
                    let class = Class { index: body.u16("class")?, probability: body.f32("probability")? };
                    check_probability(class.probability)
                        .map_err(|reason| body.invalid("probability", reason))?;
                    classes.push(class);
                }
                Outcome::Classes(classes)
            }
            OutcomeKind::Map => Outcome::Map(ClassMap::read(&mut body)?),
            OutcomeKind::Refused => Outcome::Refused(body.refusal()?),
            OutcomeKind::Unknown(kind) => {
                Outcome::Unknown { kind, body: body.bytes("answer", bytes.len())?.to_vec() }
            }
        };
        body.finish()?;
        Ok(TaskAnswer { task, batch, outcome })
    }
}

impl Outcome {
    /// The kind of the outcome.
    #[must_use]
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Outcome::Classes(_) => OutcomeKind::Classes,
            Outcome::Map(_) => OutcomeKind::Map,
            Outcome::Refused(_) => OutcomeKind::Refused,
            Outcome::Unknown { kind, .. } => OutcomeKind::Unknown(*kind),
        }
    }
}

fn check_probability(probability: f32) -> Result<(), &'static str> {
    if (0.0..=1.0).contains(&probability) { Ok(()) } else { Err("must be 0 to 1") }
}
