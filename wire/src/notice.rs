//! Notices: what a server tells a client of its own accord (PROTOCOL.md section 8).

use crate::{
    bundle::BundleId,
    codes::FrameType,
    cursor::{Reader, Writer},
    error::Error,
    hello::expect_type,
    limits::MAX_NOTICE,
};

/// The version from which on a server may send notices.
pub const NOTICES_SINCE: u16 = 3;

/// Another version of a bundle of this connection is served, which clients are to take from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleNotice {
    /// The index of the client's bundle in the welcome.
    pub bundle: u8,
    /// Identity of the other version.
    pub served: BundleId,
    /// Whether the client's version is served only as long as connections use it.
    pub is_leaving: bool,
    /// The other version as its manifest names it, for people.
    pub version: String,
}

impl BundleNotice {
    /// The message's bytes.
    ///
    /// # Errors
    /// [`Error::OverLimit`] for values that cannot be expressed.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::new(FrameType::BundleNotice.into());
        writer.u8(self.bundle);
        writer.bytes(&self.served.0);
        writer.u8(u8::from(self.is_leaving));
        writer.text(&self.version);
        writer.finish("bundle notice", MAX_NOTICE)
    }

    /// Reads the message. `None` is a notice that this version does not know.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Unexpected`] for bytes that are no notice.
    pub fn parse(bytes: &[u8]) -> Result<Option<BundleNotice>, Error> {
        let mut reader = Reader::bounded("notice", bytes, MAX_NOTICE)?;
        if let Some(FrameType::Unknown(_)) = bytes.first().map(|&first| FrameType::from(first)) {
            return Ok(None);
        }
        expect_type(&mut reader, FrameType::BundleNotice, "notice")?;
        let bundle = reader.u8("bundle")?;
        let served = BundleId(reader.digest("served")?);
        let is_leaving = match reader.u8("leaving")? {
            0 => false,
            1 => true,
            _ => return Err(reader.invalid("leaving", "is 0 or 1")),
        };
        let version = reader.text("version")?;
        reader.finish()?;
        Ok(Some(BundleNotice { bundle, served, is_leaving, version }))
    }
}
