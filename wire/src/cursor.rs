//! The reader and the writer of the protocol's bytes, which all messages use. Integers are little-endian.

use std::time::Duration;

use crate::{
    codes::RefusalCode,
    error::{Error, Problem},
    limits,
    refusal::Refusal,
};

/// Reads one message from its first byte to its last. Every error names the message and the field.
pub(crate) struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`, which are a message of this name.
    pub(crate) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Reader { message, rest: bytes }
    }

    /// A reader of a whole message, whose length is checked against `limit` first.
    pub(crate) fn bounded(message: &'static str, bytes: &'a [u8], limit: usize) -> Result<Self, Error> {
        let reader = Reader::new(message, bytes);
        reader.check("length", bytes.len(), limit)?;
        Ok(reader)
    }

    /// An error in this field.
    pub(crate) fn error(&self, field: &'static str, problem: Problem) -> Error {
        Error::Malformed { message: self.message, field, problem }
    }

    /// An error for a value that the field must not have.
    pub(crate) fn invalid(&self, field: &'static str, reason: &'static str) -> Error {
        self.error(field, Problem::Invalid(reason))
    }

    /// Checks a count or length against its limit.
    pub(crate) fn check(&self, field: &'static str, got: usize, limit: usize) -> Result<(), Error> {
        if got > limit { Err(self.error(field, Problem::OverLimit { limit, got })) } else { Ok(()) }
    }

    /// Reads `count` bytes.
    pub(crate) fn bytes(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], Error> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.error(field, Problem::Truncated { missing: count - self.rest.len() }));
        };
        self.rest = rest;
        Ok(head)
    }

    /// Reads a field of `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(field, N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Error> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Error> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Error> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Error> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn f32(&mut self, field: &'static str) -> Result<f32, Error> {
        self.array(field).map(f32::from_le_bytes)
    }

    pub(crate) fn digest(&mut self, field: &'static str) -> Result<[u8; 32], Error> {
        self.array(field)
    }

    /// Reads a count of one byte, at most `limit`.
    pub(crate) fn count(&mut self, field: &'static str, limit: usize) -> Result<usize, Error> {
        let count = usize::from(self.u8(field)?);
        self.check(field, count, limit)?;
        Ok(count)
    }

    /// Reads a length of four bytes, at most `limit`, and as many bytes.
    pub(crate) fn block(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], Error> {
        let length = self.u32(field)? as usize;
        self.check(field, length, limit)?;
        self.bytes(field, length)
    }

    /// Reads a task's name: a length of one byte, then the characters.
    pub(crate) fn name(&mut self, field: &'static str) -> Result<String, Error> {
        let length = self.count(field, limits::MAX_NAME)?;
        let bytes = self.bytes(field, length)?;
        match std::str::from_utf8(bytes) {
            Ok(name) if is_name(name) => Ok(name.to_owned()),
            _ => Err(self.invalid(field, "a name is 1 to 64 characters of a-z 0-9 . _ -")),
        }
    }

    /// Reads text for people: a length of two bytes, then UTF-8.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, Error> {
        let length = usize::from(self.u16(field)?);
        self.check(field, length, limits::MAX_TEXT)?;
        let bytes = self.bytes(field, length)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| self.invalid(field, "the text is not UTF-8"))
    }

    /// Reads a refusal: its code, its retry hint in milliseconds, and its text.
    pub(crate) fn refusal(&mut self) -> Result<Refusal, Error> {
        let code = RefusalCode::from(self.u16("code")?);
        let retry = self.u32("retry")?;
        let text = self.text("text")?;
        let retry = (retry > 0).then(|| Duration::from_millis(retry.into()));
        Ok(Refusal { code, retry, text })
    }

    /// The number of bytes that have not been read.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Checks that the whole message has been read; bytes that remain are an error.
    pub(crate) fn finish(self) -> Result<(), Error> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(self.error("end", Problem::Trailing { extra })),
        }
    }
}

/// Whether the text is a name (models/BUNDLE.md section 2): 1 to 64 characters of `a-z 0-9 . _ -`.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=limits::MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

/// Writes one message. The caller's values are checked against the same limits that the reader checks.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// A writer of a message whose first byte is its type.
    pub(crate) fn new(first: u8) -> Self {
        Writer(vec![first])
    }

    /// A writer of a part of a message.
    pub(crate) fn part() -> Self {
        Writer(Vec::new())
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, value: f32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub(crate) fn count(&mut self, field: &'static str, count: usize, limit: usize) -> Result<(), Error> {
        let byte = u8::try_from(within_limit(field, count, limit)?);
        self.u8(byte.map_err(|_| Error::OverLimit { field, limit: 255, got: count })?);
        Ok(())
    }

    pub(crate) fn block(&mut self, field: &'static str, bytes: &[u8], limit: usize) -> Result<(), Error> {
        let length = u32::try_from(within_limit(field, bytes.len(), limit)?);
        self.u32(length.map_err(|_| Error::OverLimit { field, limit, got: bytes.len() })?);
        self.bytes(bytes);
        Ok(())
    }

    pub(crate) fn name(&mut self, field: &'static str, name: &str) -> Result<(), Error> {
        if !is_name(name) {
            return Err(Error::Invalid { field, reason: "a name is 1 to 64 characters of a-z 0-9 . _ -" });
        }
        self.count(field, name.len(), limits::MAX_NAME)?;
        self.bytes(name.as_bytes());
        Ok(())
    }

    /// Writes text for people. Text over the limit is cut at a character boundary.
    pub(crate) fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(limits::MAX_TEXT)];
        self.u16(text.len() as u16);
        self.bytes(text.as_bytes());
    }

    /// Writes a refusal. A retry hint of less than a millisecond is written as one millisecond, because 0 is no hint.
    pub(crate) fn refusal(&mut self, refusal: &Refusal) {
        let millis = |wait: Duration| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
        self.u16(refusal.code.into());
        self.u32(refusal.retry.map_or(0, millis));
        self.text(&refusal.text);
    }

    /// The bytes written, if they are within the limit of the message.
    pub(crate) fn finish(self, field: &'static str, limit: usize) -> Result<Vec<u8>, Error> {
        within_limit(field, self.0.len(), limit)?;
        Ok(self.0)
    }
}

/// Checks a caller's count or length against its limit, and returns it.
pub(crate) fn within_limit(field: &'static str, got: usize, limit: usize) -> Result<usize, Error> {
    if got > limit { Err(Error::OverLimit { field, limit, got }) } else { Ok(got) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_past_the_end_names_message_and_field() {
        let mut reader = Reader::new("request", &[1, 2, 3]);
        assert_eq!(reader.u16("bundle"), Ok(0x0201));
        let error = reader.u32("budget").unwrap_err();
        assert_eq!(error.to_string(), "malformed request: budget: the message ends 3 bytes too early");
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        let error = Reader::new("hello", &[0; 2]).finish().unwrap_err();
        assert_eq!(error.to_string(), "malformed hello: end: 2 bytes too many");
    }

    #[test]
    fn a_length_is_checked_before_its_bytes() {
        let mut reader = Reader::new("reply", &[255, 255, 255, 255]);
        let error = reader.block("body", 10).unwrap_err();
        assert_eq!(error.to_string(), "malformed reply: body: 4294967295 is over the limit of 10");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let mut writer = Writer::part();
        writer.text(&"ä".repeat(400));
        let bytes = writer.finish("text", 1000).unwrap();
        assert_eq!(bytes.len(), 2 + 512);
        assert_eq!(Reader::new("refusal", &bytes).text("text").unwrap(), "ä".repeat(256));
    }

    #[test]
    fn names_follow_the_bundle_document() {
        assert!(is_name("classify") && is_name("a-1_b.c") && is_name(&"a".repeat(64)));
        assert!(!is_name("") && !is_name("Upper") && !is_name("a b") && !is_name(&"a".repeat(65)));
    }
}
