//! The only reader and the only writer of the protocol's bytes. All integers are little-endian.

use crate::{
    error::{Error, Problem},
    limits,
};

/// Reads one message front to back; every failure names the message and the field.
pub(crate) struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Reader { message, rest: bytes }
    }

    /// A message over `limit` is refused before anything of it is read.
    pub(crate) fn bounded(message: &'static str, bytes: &'a [u8], limit: usize) -> Result<Self, Error> {
        let reader = Reader::new(message, bytes);
        reader.check("length", bytes.len(), limit)?;
        Ok(reader)
    }

    pub(crate) fn error(&self, field: &'static str, problem: Problem) -> Error {
        Error::Malformed { message: self.message, field, problem }
    }

    pub(crate) fn invalid(&self, field: &'static str, reason: &'static str) -> Error {
        self.error(field, Problem::Invalid(reason))
    }

    pub(crate) fn check(&self, field: &'static str, got: usize, limit: usize) -> Result<(), Error> {
        if got > limit { Err(self.error(field, Problem::OverLimit { limit, got })) } else { Ok(()) }
    }

    pub(crate) fn bytes(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], Error> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.error(field, Problem::Truncated { missing: count - self.rest.len() }));
        };
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Error> {
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

    /// A count of at most `limit`, one byte.
    pub(crate) fn count(&mut self, field: &'static str, limit: usize) -> Result<usize, Error> {
        let count = usize::from(self.u8(field)?);
        self.check(field, count, limit)?;
        Ok(count)
    }

    /// A length of at most `limit`, four bytes, and that many bytes.
    pub(crate) fn block(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], Error> {
        let length = self.u32(field)? as usize;
        self.check(field, length, limit)?;
        self.bytes(field, length)
    }

    /// A task's name: length in one byte, then the characters.
    pub(crate) fn name(&mut self, field: &'static str) -> Result<String, Error> {
        let length = self.count(field, limits::MAX_NAME)?;
        let bytes = self.bytes(field, length)?;
        match std::str::from_utf8(bytes) {
            Ok(name) if is_name(name) => Ok(name.to_owned()),
            _ => Err(self.invalid(field, "a name is 1 to 64 characters of a-z 0-9 . _ -")),
        }
    }

    /// Free text for people: length in two bytes, then UTF-8.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, Error> {
        let length = usize::from(self.u16(field)?);
        self.check(field, length, limits::MAX_TEXT)?;
        let bytes = self.bytes(field, length)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| self.invalid(field, "the text is not UTF-8"))
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The end of the message: trailing bytes are an error.
    pub(crate) fn finish(self) -> Result<(), Error> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(self.error("end", Problem::Trailing { extra })),
        }
    }
}

/// True for a name of models/BUNDLE.md: 1 to 64 characters of `a-z 0-9 . _ -`.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=limits::MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

/// Writes one message; the caller's values are checked against the limits that the reader checks.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(first: u8) -> Self {
        Writer(vec![first])
    }

    /// A writer for a part of a message.
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
        let byte = u8::try_from(over_limit(field, count, limit)?);
        self.u8(byte.map_err(|_| Error::OverLimit { field, limit: 255, got: count })?);
        Ok(())
    }

    pub(crate) fn block(&mut self, field: &'static str, bytes: &[u8], limit: usize) -> Result<(), Error> {
        let length = u32::try_from(over_limit(field, bytes.len(), limit)?);
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

    /// Free text; what is over the limit is cut at a character.
    pub(crate) fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(limits::MAX_TEXT)];
        self.u16(text.len() as u16);
        self.bytes(text.as_bytes());
    }

    pub(crate) fn finish(self, field: &'static str, limit: usize) -> Result<Vec<u8>, Error> {
        over_limit(field, self.0.len(), limit)?;
        Ok(self.0)
    }
}

/// The value itself when it is within the limit.
pub(crate) fn over_limit(field: &'static str, got: usize, limit: usize) -> Result<usize, Error> {
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
