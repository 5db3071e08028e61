//! A request: one frame's packet or image and what is asked of it (PROTOCOL.md section 4).

use std::time::Duration;

use crate::codes::{AskKind, FrameType, Framing, ImageFormat, Path, PayloadKind};
use crate::cursor::{Reader, Writer, over_limit};
use crate::error::Error;
use crate::hello::expect_type;
use crate::limits::{
    MAX_ASK, MAX_IMAGE, MAX_MAP_PIXELS, MAX_MAP_SIDE, MAX_PACKET, MAX_REQUEST, MAX_TASKS, MAX_TOP_K,
};

/// The wire's value of "no deadline".
const NO_BUDGET: u32 = u32::MAX;
/// Bytes before the file in an image's payload.
const IMAGE_HEADER: usize = 3;

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
    /// What the network is to see.
    pub payload: Payload,
}

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payload {
    /// A codec packet; its header carries level and geometry (codec/FORMAT.md). 1 to [`MAX_PACKET`] bytes.
    Packet(Vec<u8>),
    /// An image for the whole network.
    Image(Image),
    /// A payload this version does not know; a server refuses it.
    Unknown {
        /// Its number.
        kind: u8,
        /// Its bytes, as many as an image's payload may have at most.
        body: Vec<u8>,
    },
}

/// An encoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The index of the geometry in the bundle's manifest: the network's input.
    pub geometry: u8,
    /// The file's format.
    pub format: ImageFormat,
    /// Whether the server is to fit it to the geometry.
    pub framing: Framing,
    /// The file, 1 to [`MAX_IMAGE`] bytes.
    pub file: Vec<u8>,
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
        self.payload.write(&mut writer)?;
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
        let payload = Payload::read(&mut reader)?;
        reader.finish()?;
        Ok(Request { id, bundle, budget, wants, payload })
    }
}

impl Payload {
    /// The payload's number.
    pub fn kind(&self) -> PayloadKind {
        match self {
            Payload::Packet(_) => PayloadKind::Packet,
            Payload::Image(_) => PayloadKind::Image,
            Payload::Unknown { kind, .. } => PayloadKind::Unknown(*kind),
        }
    }

    /// The path that answers it, if this version knows it.
    pub fn path(&self) -> Option<Path> {
        match self {
            Payload::Packet(_) => Some(Path::Split),
            Payload::Image(_) => Some(Path::Image),
            Payload::Unknown { .. } => None,
        }
    }

    /// Bytes of the packet or the file, without what the request says about it.
    pub fn size(&self) -> usize {
        match self {
            Payload::Packet(packet) => packet.len(),
            Payload::Image(image) => image.file.len(),
            Payload::Unknown { body, .. } => body.len(),
        }
    }

    fn write(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.u8(self.kind().into());
        match self {
            Payload::Packet(packet) if packet.is_empty() => {
                Err(Error::Invalid { field: "payload", reason: "the packet is empty" })
            }
            Payload::Packet(packet) => writer.block("payload", packet, MAX_PACKET),
            Payload::Image(image) if image.file.is_empty() => {
                Err(Error::Invalid { field: "payload", reason: "the image is empty" })
            }
            Payload::Image(image) => {
                over_limit("image", image.file.len(), MAX_IMAGE)?;
                // Within the limit, so within four bytes.
                writer.u32((IMAGE_HEADER + image.file.len()) as u32);
                writer.u8(image.geometry);
                writer.u8(image.format.into());
                writer.u8(image.framing.into());
                writer.bytes(&image.file);
                Ok(())
            }
            Payload::Unknown { kind, .. } if !matches!(PayloadKind::from(*kind), PayloadKind::Unknown(_)) => {
                Err(Error::Invalid { field: "payload", reason: "a known kind given as unknown" })
            }
            Payload::Unknown { body, .. } => writer.block("payload", body, IMAGE_HEADER + MAX_IMAGE),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Payload, Error> {
        let kind = PayloadKind::from(reader.u8("payload kind")?);
        let limit = if kind == PayloadKind::Packet { MAX_PACKET } else { IMAGE_HEADER + MAX_IMAGE };
        let bytes = reader.block("payload", limit)?;
        let mut body = Reader::new("request", bytes);
        match kind {
            PayloadKind::Packet if bytes.is_empty() => Err(reader.invalid("payload", "the packet is empty")),
            PayloadKind::Packet => Ok(Payload::Packet(bytes.to_vec())),
            PayloadKind::Image => {
                let geometry = body.u8("image geometry")?;
                let format = ImageFormat::from(body.u8("image format")?);
                let framing = Framing::from(body.u8("image framing")?);
                let file = body.bytes("image", body.remaining())?.to_vec();
                if file.is_empty() {
                    return Err(reader.invalid("payload", "the image is empty"));
                }
                Ok(Payload::Image(Image { geometry, format, framing, file }))
            }
            PayloadKind::Unknown(kind) => Ok(Payload::Unknown { kind, body: bytes.to_vec() }),
        }
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
