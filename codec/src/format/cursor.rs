//! A bounds-checked reader of little-endian fields. Every parser of the crate reads through it.

use crate::Error;

/// The largest size of a LEB128 number, in bytes.
const NUMBER_BYTES_MAX: usize = 4;

/// A position in a packet or a tables file.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
}

/// The bytes ended inside the named field. Which [`Error`] that is depends on what is parsed.
pub(crate) struct Truncated(pub(crate) &'static str);

impl Truncated {
    /// The error for a packet.
    pub(crate) fn packet(self) -> Error {
        Error::PacketTruncated { field: self.0 }
    }

    /// The error for a tables file.
    pub(crate) fn tables(self) -> Error {
        Error::TablesTruncated { field: self.0 }
    }
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes that are not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Reads `len` bytes.
    pub(crate) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(Truncated(field))?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Reads `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Truncated> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(Truncated(field))?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Truncated> {
        self.array(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Truncated> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn i16(&mut self, field: &'static str) -> Result<i16, Truncated> {
        self.array(field).map(i16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Truncated> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Reads `count` integers of 16 bits.
    pub(crate) fn u16s(&mut self, count: usize, field: &'static str) -> Result<Box<[u16]>, Truncated> {
        let bytes = self.take(2 * count, field)?;
        Ok(bytes.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair)).collect())
    }

    /// Reads a LEB128 number (FORMAT.md, section 1). `None` when it is longer than necessary or than
    /// [`NUMBER_BYTES_MAX`].
    pub(crate) fn number(&mut self, field: &'static str) -> Result<Option<usize>, Truncated> {
        let mut value = 0;
        for place in 0..NUMBER_BYTES_MAX {
            let byte = self.u8(field)?;
            value |= usize::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok((byte != 0 || place == 0).then_some(value));
            }
        }
        Ok(None)
    }
}

/// Appends a number below 2^28 in LEB128 (FORMAT.md, section 1).
pub(crate) fn push_number(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_names_the_field_and_takes_nothing() {
        let mut cursor = Cursor::new(&[1, 2, 3]);
        assert!(matches!(cursor.u32("four"), Err(Truncated("four"))));
        assert!(cursor.u16("two").is_ok_and(|value| value == 0x0201));
        assert_eq!(cursor.rest(), [3]);
        assert!(matches!(cursor.take(2, "rest"), Err(Truncated("rest"))));
    }

    #[test]
    fn numbers_have_one_form() {
        let read = |bytes: &[u8]| Cursor::new(bytes).number("number");
        for value in [0, 1, 127, 128, 16383, 16384, (1 << 28) - 1] {
            let mut bytes = Vec::new();
            push_number(value, &mut bytes);
            assert!(read(&bytes).is_ok_and(|found| found == Some(value)), "{value}");
            assert!(matches!(read(&bytes[..bytes.len() - 1]), Err(Truncated("number"))), "{value}");
        }
        for bytes in [&[0x80, 0][..], &[0xff, 0x80, 0], &[0x80, 0x80, 0x80, 0x80, 1]] {
            assert!(matches!(read(bytes), Ok(None)), "{bytes:x?}");
        }
    }
}
