//! Requests: one frame, as a packet or an image, and the queries to the tasks (PROTOCOL.md section 4).

use std::time::Duration;

use crate::{
    codes::{FrameType, Framing, ImageFormat, Path, PayloadKind, QueryKind},
    cursor::{Reader, Writer, within_limit},
    error::Error,
    hello::expect_type,
    limits::{
        MAX_IMAGE, MAX_MAP_PIXELS, MAX_MAP_SIDE, MAX_PACKET, MAX_QUERY, MAX_REQUEST, MAX_TASKS, MAX_TOP_K,
    },
};

/// The budget that stands for "no deadline".
const NO_BUDGET: u32 = u32::MAX;

/// Bytes before the file in the payload of an image.
const IMAGE_HEADER: usize = 3;

/// Bytes before the packet in the payload of a truncatable packet.
const TRUNCATABLE_HEADER: usize = 4;

/// Bytes of a request up to the end of the frame's number.
pub const REQUEST_PREFIX: usize = 9;

/// The request for one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's number of the frame, unique among the frames in flight on the connection.
    pub id: u64,
    /// The index of the bundle in the welcome.
    pub bundle: u8,
    /// The time that remains until the frame's deadline when the request is sent; `None` is no deadline. It is sent in
    /// microseconds, and more than 71 minutes are sent as 71 minutes.
    pub budget: Option<Duration>,
    /// The queries, to 1 to [`MAX_TASKS`] tasks, each once.
    pub task_requests: Vec<TaskRequest>,
    /// The frame, as a packet or an image.
    pub payload: Payload,
}

/// The payload of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payload {
    /// A codec packet of 1 to [`MAX_PACKET`] bytes. Its header holds the rate level and the geometry (codec/FORMAT.md).
    Packet(Vec<u8>),
    /// An image for the unsplit network.
    Image(Image),
    /// A codec packet that may end early.
    Truncatable(Truncatable),
    /// A payload of a kind that this version does not know; a server refuses it.
    Unknown {
        /// The number of its kind.
        kind: u8,
        /// Its bytes, as many as an image's payload may have at most.
        body: Vec<u8>,
    },
}

/// An encoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The index of the geometry, which is the network's input size, in the bundle's manifest.
    pub geometry: u8,
    /// The file's format.
    pub format: ImageFormat,
    /// Whether the image has been fitted to the geometry.
    pub framing: Framing,
    /// The file, 1 to [`MAX_IMAGE`] bytes.
    pub file: Vec<u8>,
}

/// A codec packet of which the server uses what has arrived when its stream ends or the time is over.
///
/// The client sends the bytes of [`Request::encode`] up to where it wants the packet to end, at the end of any group of
/// channels or elsewhere, and ends the stream there. What follows the last whole group is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncatable {
    /// The time from the arrival of the request's first byte to when the server uses what it has. It is sent in microseconds.
    pub wait: Duration,
    /// The packet, in a message that was received its first bytes; at most [`MAX_PACKET`] bytes.
    pub packet: Vec<u8>,
}

/// A query to one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRequest {
    /// The index of the task in the bundle's manifest.
    pub task: u8,
    /// The query.
    pub query: Query,
}

/// What a task is to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Query {
    /// The most probable classes.
    Classify {
        /// The number of classes, 1 to [`MAX_TOP_K`].
        top_k: u16,
    },
    /// A class per pixel.
    Segment {
        /// Width and height of the map; `None` is the size of the network's output.
        size: Option<(u16, u16)>,
    },
    /// A query of a kind that this version does not know; a server refuses it.
    Unknown {
        /// The number of its kind.
        kind: u8,
        /// Its parameters, at most [`MAX_QUERY`] bytes.
        body: Vec<u8>,
    },
}

impl Query {
    /// The kind of the query.
    #[must_use]
    pub fn kind(&self) -> QueryKind {
        match self {
            Query::Classify { .. } => QueryKind::Classify,
            Query::Segment { .. } => QueryKind::Segment,
            Query::Unknown { kind, .. } => QueryKind::Unknown(*kind),
        }
    }
}

impl Request {
    /// The message's bytes.
    ///
    /// # Errors
    /// [`Error::OverLimit`] or [`Error::Invalid`] for values that cannot be expressed.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::new(FrameType::Request.into());
        writer.u64(self.id);
        writer.u8(self.bundle);
        writer.u32(self.budget.map_or(NO_BUDGET, |budget| micros(budget).min(NO_BUDGET - 1)));
        if self.task_requests.is_empty() {
            return Err(Error::Invalid {
                field: "task_requests",
                reason: "a request asks for at least one task",
            });
        }
        writer.count("task_requests", self.task_requests.len(), MAX_TASKS)?;
        for (index, task_request) in self.task_requests.iter().enumerate() {
            if self.task_requests[..index].iter().any(|other| other.task == task_request.task) {
                return Err(Error::Invalid { field: "task_requests", reason: "a task is asked for twice" });
            }
            task_request.write(&mut writer)?;
        }
        self.payload.write(&mut writer)?;
        writer.finish("request", MAX_REQUEST)
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Unexpected`] for bytes that are not a request.
    pub fn parse(bytes: &[u8]) -> Result<Request, Error> {
        let mut reader = Reader::bounded("request", bytes, MAX_REQUEST)?;
        expect_type(&mut reader, FrameType::Request, "request")?;
        let id = reader.u64("id")?;
        let bundle = reader.u8("bundle")?;
        let budget = match reader.u32("budget")? {
            NO_BUDGET => None,
            micros => Some(Duration::from_micros(micros.into())),
        };
        let count = reader.count("task_requests", MAX_TASKS)?;
        if count == 0 {
            return Err(reader.invalid("task_requests", "a request asks for at least one task"));
        }
        let mut task_requests: Vec<TaskRequest> = Vec::with_capacity(count);
        for _ in 0..count {
            let task_request = TaskRequest::read(&mut reader)?;
            if task_requests.iter().any(|other| other.task == task_request.task) {
                return Err(reader.invalid("task_requests", "a task is asked for twice"));
            }
            task_requests.push(task_request);
        }
        let payload = Payload::read(&mut reader)?;
        reader.finish()?;
        Ok(Request { id, bundle, budget, task_requests, payload })
    }
}

/// The number of the frame in the beginning of a request, so that a request that is not read to its end can be refused.
/// `None` if the bytes are not those of a request or are fewer than [`REQUEST_PREFIX`].
#[must_use]
pub fn request_id(bytes: &[u8]) -> Option<u64> {
    let (kind, rest) = bytes.split_first()?;
    let id = rest.first_chunk().copied().map(u64::from_le_bytes);
    id.filter(|_| FrameType::from(*kind) == FrameType::Request)
}

/// How long after the arrival of a request's first byte the server uses what has arrived, if the bytes are the beginning of
/// a request with a [`Truncatable`] packet and hold everything before the packet.
#[must_use]
pub fn truncatable_wait(bytes: &[u8]) -> Option<Duration> {
    match Request::parse(bytes) {
        Ok(Request { payload: Payload::Truncatable(packet), .. }) => Some(packet.wait),
        _ => None,
    }
}

impl Payload {
    /// The kind of the payload.
    #[must_use]
    pub fn kind(&self) -> PayloadKind {
        match self {
            Payload::Packet(_) => PayloadKind::Packet,
            Payload::Image(_) => PayloadKind::Image,
            Payload::Truncatable(_) => PayloadKind::Truncatable,
            Payload::Unknown { kind, .. } => PayloadKind::Unknown(*kind),
        }
    }

    /// The path that a frame with this payload takes, if this version knows the kind.
    #[must_use]
    pub fn path(&self) -> Option<Path> {
        match self {
            Payload::Packet(_) | Payload::Truncatable(_) => Some(Path::Split),
            Payload::Image(_) => Some(Path::Image),
            Payload::Unknown { .. } => None,
        }
    }

    /// Bytes of the packet or of the image file.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Payload::Packet(packet) => packet.len(),
            Payload::Image(image) => image.file.len(),
            Payload::Truncatable(Truncatable { packet, .. }) => packet.len(),
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
                within_limit("image", image.file.len(), MAX_IMAGE)?;
                // The limit fits into four bytes.
                writer.u32((IMAGE_HEADER + image.file.len()) as u32);
                writer.u8(image.geometry);
                writer.u8(image.format.into());
                writer.u8(image.framing.into());
                writer.bytes(&image.file);
                Ok(())
            }
            Payload::Truncatable(Truncatable { packet, .. }) if packet.is_empty() => {
                Err(Error::Invalid { field: "payload", reason: "the packet is empty" })
            }
            Payload::Truncatable(Truncatable { wait, packet }) => {
                within_limit("packet", packet.len(), MAX_PACKET)?;
                // The limit fits into four bytes.
                writer.u32((TRUNCATABLE_HEADER + packet.len()) as u32);
                writer.u32(micros(*wait));
                writer.bytes(packet);
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
        match kind {
            PayloadKind::Truncatable => Truncatable::read(reader).map(Payload::Truncatable),
            _ => Payload::read_block(reader, kind),
        }
    }

    /// Reads a payload that is a block.
    fn read_block(reader: &mut Reader<'_>, kind: PayloadKind) -> Result<Payload, Error> {
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
            kind => Ok(Payload::Unknown { kind: kind.into(), body: bytes.to_vec() }),
        }
    }
}

impl Truncatable {
    /// Reads the payload, whose packet ends where the message ends, at the latest after the length that it states.
    fn read(reader: &mut Reader<'_>) -> Result<Truncatable, Error> {
        let length = reader.u32("payload")? as usize;
        reader.check("payload", length, TRUNCATABLE_HEADER + MAX_PACKET)?;
        if length <= TRUNCATABLE_HEADER {
            return Err(reader.invalid("payload", "the packet is empty"));
        }
        let wait = Duration::from_micros(reader.u32("wait")?.into());
        let arrived = reader.remaining().min(length - TRUNCATABLE_HEADER);
        Ok(Truncatable { wait, packet: reader.bytes("packet", arrived)?.to_vec() })
    }
}

impl TaskRequest {
    fn write(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.u8(self.task);
        writer.u8(self.query.kind().into());
        let mut body = Writer::part();
        match &self.query {
            Query::Classify { top_k } => {
                check_top_k(*top_k).map_err(|reason| Error::Invalid { field: "top_k", reason })?;
                body.u16(*top_k);
            }
            Query::Segment { size } => {
                let (width, height) = size.unwrap_or((0, 0));
                if size.is_some() {
                    check_size(width, height)
                        .map_err(|reason| Error::Invalid { field: "map size", reason })?;
                }
                body.u16(width);
                body.u16(height);
            }
            Query::Unknown { kind, body: bytes } => {
                if !matches!(QueryKind::from(*kind), QueryKind::Unknown(_)) {
                    return Err(Error::Invalid { field: "query", reason: "a known kind given as unknown" });
                }
                body.bytes(bytes);
            }
        }
        let body = body.finish("query", MAX_QUERY)?;
        writer.count("query", body.len(), MAX_QUERY)?;
        writer.bytes(&body);
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<TaskRequest, Error> {
        let task = reader.u8("task")?;
        let kind = QueryKind::from(reader.u8("query kind")?);
        let length = reader.count("query length", MAX_QUERY)?;
        let mut body = Reader::new("request", reader.bytes("query", length)?);
        let query = match kind {
            QueryKind::Classify => {
                let top_k = body.u16("top_k")?;
                check_top_k(top_k).map_err(|reason| body.invalid("top_k", reason))?;
                body.finish()?;
                Query::Classify { top_k }
            }
            QueryKind::Segment => {
                let (width, height) = (body.u16("map width")?, body.u16("map height")?);
                let size = (width, height) != (0, 0);
                if size {
                    check_size(width, height).map_err(|reason| body.invalid("map size", reason))?;
                }
                body.finish()?;
                Query::Segment { size: size.then_some((width, height)) }
            }
            QueryKind::Unknown(kind) => Query::Unknown { kind, body: body.bytes("query", length)?.to_vec() },
        };
        Ok(TaskRequest { task, query })
    }
}

/// Microseconds in four bytes; longer durations become the largest value.
pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn check_top_k(top_k: u16) -> Result<(), &'static str> {
    if (1..=MAX_TOP_K).contains(&top_k) { Ok(()) } else { Err("must be 1 to 1000") }
}

/// Checks the size of a class map, in queries and in answers.
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
