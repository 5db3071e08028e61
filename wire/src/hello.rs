//! The hello and its answers, which settle the version and the bundles of a connection before the first frame (PROTOCOL.md
//! section 3).

use std::time::Duration;

use crate::{
    bundle::BundleId,
    codes::FrameType,
    cursor::{Reader, Writer, within_limit},
    error::Error,
    limits::{MAX_BUNDLES, MAX_HELLO, MAX_IN_FLIGHT, MAX_TASKS, MAX_TEXT},
    refusal::HelloRefusal,
};

/// The version from which on a welcome states the server's standing.
pub(crate) const STANDING_SINCE: u16 = 2;

/// The client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest protocol version the client speaks.
    pub oldest: u16,
    /// The newest protocol version the client speaks.
    pub newest: u16,
    /// The bundles the client holds, 1 to [`MAX_BUNDLES`], each once.
    pub bundles: Vec<BundleId>,
    /// The names of the tasks that the client will query, at most [`MAX_TASKS`].
    pub tasks: Vec<String>,
}

impl Hello {
    /// A hello with the protocol versions of this crate.
    #[must_use]
    pub fn new(bundles: Vec<BundleId>, tasks: Vec<String>) -> Hello {
        Hello { oldest: crate::VERSIONS.0, newest: crate::VERSIONS.1, bundles, tasks }
    }

    /// The message's bytes.
    ///
    /// # Errors
    /// [`Error::OverLimit`] or [`Error::Invalid`] for values that cannot be expressed.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::new(FrameType::Hello.into());
        if self.oldest > self.newest {
            return Err(Error::Invalid { field: "versions", reason: "oldest is above newest" });
        }
        writer.u16(self.oldest);
        writer.u16(self.newest);
        if self.bundles.is_empty() {
            return Err(Error::Invalid { field: "bundles", reason: "a hello names at least one bundle" });
        }
        write_bundles(&mut writer, &self.bundles)?;
        write_names(&mut writer, &self.tasks)?;
        writer.finish("hello", MAX_HELLO)
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Unexpected`] for bytes that are not a hello.
    pub fn parse(bytes: &[u8]) -> Result<Hello, Error> {
        let mut reader = Reader::bounded("hello", bytes, MAX_HELLO)?;
        expect_type(&mut reader, FrameType::Hello, "hello")?;
        let (oldest, newest) = (reader.u16("oldest")?, reader.u16("newest")?);
        if oldest > newest {
            return Err(reader.invalid("versions", "oldest is above newest"));
        }
        let bundles = read_bundles(&mut reader)?;
        if bundles.is_empty() {
            return Err(reader.invalid("bundles", "a hello names at least one bundle"));
        }
        let tasks = read_names(&mut reader)?;
        reader.finish()?;
        Ok(Hello { oldest, newest, bundles, tasks })
    }
}

/// The server's answer to a hello that it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version of this connection.
    pub version: u16,
    /// Frames that may be in flight at once on this connection, 1 to [`MAX_IN_FLIGHT`].
    pub max_in_flight: u16,
    /// The bundles that both sides have. Requests name a bundle by its index in this list.
    pub bundles: Vec<WelcomeBundle>,
    /// How the server stands among others; from version 2 on, and not before.
    pub standing: Option<Standing>,
}

/// What a client that knows several servers chooses among them by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The mean time that frames waited of late before work on them began, in microseconds on the wire.
    pub wait: Duration,
    /// Connections that are open.
    pub connections: u32,
    /// Address of the server to go to when this one shuts down, `HOST:PORT`; empty if there is none. At most
    /// [`MAX_TEXT`] bytes.
    pub next: String,
}

/// One bundle of a [`Welcome`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WelcomeBundle {
    /// Its identity.
    pub id: BundleId,
    /// The names of its tasks, in the manifest's order. Requests name a task by its index in this list.
    pub tasks: Vec<String>,
}

impl Welcome {
    /// The message's bytes.
    ///
    /// # Errors
    /// [`Error::OverLimit`] or [`Error::Invalid`] for values that cannot be expressed.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::new(FrameType::Welcome.into());
        writer.u16(self.version);
        if !(1..=MAX_IN_FLIGHT).contains(&self.max_in_flight) {
            return Err(Error::Invalid { field: "max_in_flight", reason: "must be 1 to 256" });
        }
        writer.u16(self.max_in_flight);
        if self.bundles.is_empty() {
            return Err(Error::Invalid { field: "bundles", reason: "a welcome names at least one bundle" });
        }
        writer.count("bundles", self.bundles.len(), MAX_BUNDLES)?;
        for (index, served) in self.bundles.iter().enumerate() {
            if self.bundles[..index].iter().any(|other| other.id == served.id) {
                return Err(Error::Invalid { field: "bundles", reason: "a bundle is listed twice" });
            }
            writer.bytes(&served.id.0);
            write_names(&mut writer, &served.tasks)?;
        }
        match &self.standing {
            Some(standing) if self.version >= STANDING_SINCE => {
                within_limit("next", standing.next.len(), MAX_TEXT)?;
                writer.u32(u32::try_from(standing.wait.as_micros()).unwrap_or(u32::MAX));
                writer.u32(standing.connections);
                writer.text(&standing.next);
            }
            None if self.version < STANDING_SINCE => {}
            _ => {
                let reason = "from version 2 on a welcome has it, and not before";
                return Err(Error::Invalid { field: "standing", reason });
            }
        }
        writer.finish("welcome", MAX_HELLO)
    }

    fn read(mut reader: Reader<'_>) -> Result<Welcome, Error> {
        let version = reader.u16("version")?;
        let max_in_flight = reader.u16("max_in_flight")?;
        if !(1..=MAX_IN_FLIGHT).contains(&max_in_flight) {
            return Err(reader.invalid("max_in_flight", "must be 1 to 256"));
        }
        let count = reader.count("bundles", MAX_BUNDLES)?;
        if count == 0 {
            return Err(reader.invalid("bundles", "a welcome names at least one bundle"));
        }
        let mut bundles: Vec<WelcomeBundle> = Vec::with_capacity(count);
        for _ in 0..count {
            let id = BundleId(reader.digest("bundle")?);
            if bundles.iter().any(|other| other.id == id) {
                return Err(reader.invalid("bundles", "a bundle is listed twice"));
            }
            bundles.push(WelcomeBundle { id, tasks: read_names(&mut reader)? });
        }
        let standing = match version >= STANDING_SINCE {
            true => Some(Standing {
                wait: Duration::from_micros(reader.u32("wait")?.into()),
                connections: reader.u32("connections")?,
                next: reader.text("next")?,
            }),
            false => None,
        };
        reader.finish()?;
        Ok(Welcome { version, max_in_flight, bundles, standing })
    }
}

impl HelloRefusal {
    /// The message's bytes.
    ///
    /// # Errors
    /// [`Error::OverLimit`] or [`Error::Invalid`] for values that cannot be expressed.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::new(FrameType::HelloRefusal.into());
        writer.refusal(&self.refusal);
        writer.u16(self.oldest);
        writer.u16(self.newest);
        write_bundles(&mut writer, &self.serves)?;
        writer.finish("hello refusal", MAX_HELLO)
    }

    fn read(mut reader: Reader<'_>) -> Result<HelloRefusal, Error> {
        let refusal = reader.refusal()?;
        let (oldest, newest) = (reader.u16("oldest")?, reader.u16("newest")?);
        let serves = read_bundles(&mut reader)?;
        reader.finish()?;
        Ok(HelloRefusal { refusal, oldest, newest, serves })
    }
}

/// The server's answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloReply {
    /// The connection is open for requests.
    Welcome(Welcome),
    /// The hello is not accepted; the server closes the connection.
    Refused(HelloRefusal),
}

impl HelloReply {
    /// The message's bytes.
    ///
    /// # Errors
    /// [`Error::OverLimit`] or [`Error::Invalid`] for values that cannot be expressed.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        match self {
            HelloReply::Welcome(welcome) => welcome.encode(),
            HelloReply::Refused(refusal) => refusal.encode(),
        }
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Unexpected`] for bytes that are neither answer.
    pub fn parse(bytes: &[u8]) -> Result<HelloReply, Error> {
        let mut reader = Reader::bounded("hello reply", bytes, MAX_HELLO)?;
        match FrameType::from(reader.u8("type")?) {
            FrameType::Welcome => Welcome::read(reader).map(HelloReply::Welcome),
            FrameType::HelloRefusal => HelloRefusal::read(reader).map(HelloReply::Refused),
            got => Err(Error::Unexpected { got, expected: "welcome or hello refusal" }),
        }
    }
}

/// Reads the first byte and checks that it is the expected message type.
pub(crate) fn expect_type(
    reader: &mut Reader<'_>,
    allowed: FrameType,
    expected: &'static str,
) -> Result<(), Error> {
    let got = FrameType::from(reader.u8("type")?);
    if got == allowed { Ok(()) } else { Err(Error::Unexpected { got, expected }) }
}

fn write_bundles(writer: &mut Writer, bundles: &[BundleId]) -> Result<(), Error> {
    writer.count("bundles", bundles.len(), MAX_BUNDLES)?;
    for (index, id) in bundles.iter().enumerate() {
        if bundles[..index].contains(id) {
            return Err(Error::Invalid { field: "bundles", reason: "a bundle is listed twice" });
        }
        writer.bytes(&id.0);
    }
    Ok(())
}

fn read_bundles(reader: &mut Reader<'_>) -> Result<Vec<BundleId>, Error> {
    let count = reader.count("bundles", MAX_BUNDLES)?;
    let mut bundles = Vec::with_capacity(count);
    for _ in 0..count {
        let id = BundleId(reader.digest("bundle")?);
        if bundles.contains(&id) {
            return Err(reader.invalid("bundles", "a bundle is listed twice"));
        }
        bundles.push(id);
    }
    Ok(bundles)
}

fn write_names(writer: &mut Writer, names: &[String]) -> Result<(), Error> {
    writer.count("tasks", names.len(), MAX_TASKS)?;
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(Error::Invalid { field: "tasks", reason: "a task is listed twice" });
        }
        writer.name("task", name)?;
    }
    Ok(())
}

fn read_names(reader: &mut Reader<'_>) -> Result<Vec<String>, Error> {
    let count = reader.count("tasks", MAX_TASKS)?;
    let mut names = Vec::with_capacity(count);
    for _ in 0..count {
        let name = reader.name("task")?;
        if names.contains(&name) {
            return Err(reader.invalid("tasks", "a task is listed twice"));
        }
        names.push(name);
    }
    Ok(names)
}
