//! A request: one frame's packet and what is asked of it (PROTOCOL.md section 4).

use std::time::Duration;

use crate::codes::{AskKind, FrameType};
use crate::cursor::{Reader, Writer};
use crate::error::Error;
use crate::hello::expect_type;
use crate::limits::{MAX_ASK, MAX_MAP_PIXELS, MAX_MAP_SIDE, MAX_PACKET, MAX_REQUEST, MAX_TASKS, MAX_TOP_K};

/// The wire's value of "no deadline".
const NO_BUDGET: u32 = u32::MAX;

/// One frame on its way to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's number of the frame; unique among the connection's frames in flight.
    pub id: u64,
    /// The index of the bundle in the welcome.
    pub bundle: u8,
    /// What is left of the frame's time when it is sent; `None` has no deadline. Travels in microseconds; more
    /// than 71 minutes travel as 71 minutes.
    pub budget: Option<Duration>,
    /// What is asked, 1 to [`MAX_TASKS`] tasks, each once.
    pub wants: Vec<Want>,
    /// The codec packet; its header carries level and geometry (codec/FORMAT.md).
    pub payload: Vec<u8>,
}

/// What is asked of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The index of the task in the bundle's manifest.
    pub task: u8,
    /// The question.
    pub ask: Ask,
}

/// A question to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ask {
    /// The most probable classes.
    Classify {
        /// How many, 1 to [`MAX_TOP_K`].
        top_k: u16,
    },
    /// A class per pixel.
    Segment {
        /// Width and height of the map; `None` is the tail's own resolution.
        size: Option<(u16, u16)>,
    },
    /// A question this version does not know; a server refuses it.
    Unknown {
        /// Its number.
        kind: u8,
        /// Its parameters, at most [`MAX_ASK`] bytes.
        body: Vec<u8>,
    },
}

impl Ask {
    /// The question's number.
    pub fn kind(&self) -> AskKind {
        match self {
            Ask::Classify { .. } => AskKind::Classify,
            Ask::Segment { .. } => AskKind::Segment,
            Ask::Unknown { kind, .. } => AskKind::Unknown(*kind),
        }
    }
}

impl Request {
    /// The message's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::new(FrameType::Request.into());
        writer.u64(self.id);
        writer.u8(self.bundle);
        writer.u32(self.budget.map_or(NO_BUDGET, |budget| micros(budget).min(NO_BUDGET - 1)));
        if self.wants.is_empty() {
            return Err(Error::Invalid { field: "wants", reason: "a request asks for at least one task" });
        }
        writer.count("wants", self.wants.len(), MAX_TASKS)?;
        for (place, want) in self.wants.iter().enumerate() {
            if self.wants[..place].iter().any(|other| other.task == want.task) {
                return Err(Error::Invalid { field: "wants", reason: "a task is asked for twice" });
            }
            want.write(&mut writer)?;
        }
        if self.payload.is_empty() {
            return Err(Error::Invalid { field: "payload", reason: "the packet is empty" });
        }
        writer.block("payload", &self.payload, MAX_PACKET)?;
        writer.finish("request", MAX_REQUEST)
    }

    /// Reads the message; every malformed one is an error.
    pub fn parse(bytes: &[u8]) -> Result<Request, Error> {
        let mut reader = Reader::bounded("request", bytes, MAX_REQUEST)?;
        expect_type(&mut reader, FrameType::Request, "request")?;
        let id = reader.u64("id")?;
        let bundle = reader.u8("bundle")?;
        let budget = match reader.u32("budget")? {
            NO_BUDGET => None,
            micros => Some(Duration::from_micros(micros.into())),
        };
        let count = reader.count("wants", MAX_TASKS)?;
        if count == 0 {
            return Err(reader.invalid("wants", "a request asks for at least one task"));
        }
        let mut wants: Vec<Want> = Vec::with_capacity(count);
        for _ in 0..count {
            let want = Want::read(&mut reader)?;
            if wants.iter().any(|other| other.task == want.task) {
                return Err(reader.invalid("wants", "a task is asked for twice"));
            }
            wants.push(want);
        }
        let payload = reader.block("payload", MAX_PACKET)?.to_vec();
        if payload.is_empty() {
            return Err(reader.invalid("payload", "the packet is empty"));
        }
        reader.finish()?;
        Ok(Request { id, bundle, budget, wants, payload })
    }
}

impl Want {
    fn write(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.u8(self.task);
        writer.u8(self.ask.kind().into());
        let mut body = Writer::part();
        match &self.ask {
            Ask::Classify { top_k } => {
                check_top_k(*top_k).map_err(|reason| Error::Invalid { field: "top_k", reason })?;
                body.u16(*top_k);
            }
            Ask::Segment { size } => {
                let (width, height) = size.unwrap_or((0, 0));
                if size.is_some() {
                    check_size(width, height)
                        .map_err(|reason| Error::Invalid { field: "map size", reason })?;
                }
                body.u16(width);
                body.u16(height);
            }
            Ask::Unknown { kind, body: bytes } => {
                if !matches!(AskKind::from(*kind), AskKind::Unknown(_)) {
                    return Err(Error::Invalid { field: "ask", reason: "a known kind given as unknown" });
                }
                body.bytes(bytes);
            }
        }
        let body = body.finish("ask", MAX_ASK)?;
        writer.count("ask", body.len(), MAX_ASK)?;
        writer.bytes(&body);
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Want, Error> {
        let task = reader.u8("task")?;
        let kind = AskKind::from(reader.u8("ask kind")?);
        let length = reader.count("ask length", MAX_ASK)?;
        let mut body = Reader::new("request", reader.bytes("ask", length)?);
        let ask = match kind {
            AskKind::Classify => {
                let top_k = body.u16("top_k")?;
                check_top_k(top_k).map_err(|reason| body.invalid("top_k", reason))?;
                body.finish()?;
                Ask::Classify { top_k }
            }
            AskKind::Segment => {
                let (width, height) = (body.u16("map width")?, body.u16("map height")?);
                let size = (width, height) != (0, 0);
                if size {
                    check_size(width, height).map_err(|reason| body.invalid("map size", reason))?;
                }
                body.finish()?;
                Ask::Segment { size: size.then_some((width, height)) }
            }
            AskKind::Unknown(kind) => Ask::Unknown { kind, body: body.bytes("ask", length)?.to_vec() },
        };
        Ok(Want { task, ask })
    }
}

/// Microseconds as they travel, saturated.
pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn check_top_k(top_k: u16) -> Result<(), &'static str> {
    if (1..=MAX_TOP_K).contains(&top_k) { Ok(()) } else { Err("must be 1 to 1000") }
}

/// Bounds of a class map's size, in questions and in answers.
pub(crate) fn check_size(width: u16, height: u16) -> Result<(), &'static str> {
    if width == 0 || height == 0 {
        return Err("a side is zero");
    }
    if width > MAX_MAP_SIDE || height > MAX_MAP_SIDE {
        return Err("a side is over 4096");
    }
    if usize::from(width) * usize::from(height) > MAX_MAP_PIXELS {
        return Err("more than 2097152 pixels");
    }
    Ok(())
}
