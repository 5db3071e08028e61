//! The one reader of bytes from outside: bounds-checked, and it names what it was reading.

/// Bytes not yet read.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
}

/// The field that the bytes ran out in.
pub(crate) struct CutOff(pub(crate) &'static str);

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], CutOff> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(CutOff(field))?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CutOff> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(CutOff(field))?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, CutOff> {
        self.array(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, CutOff> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn i16(&mut self, field: &'static str) -> Result<i16, CutOff> {
        self.array(field).map(i16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, CutOff> {
        self.array(field).map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_names_the_field_and_takes_nothing() {
        let mut cursor = Cursor::new(&[1, 2, 3]);
        assert!(matches!(cursor.u32("four"), Err(CutOff("four"))));
        assert!(cursor.u16("two").is_ok_and(|value| value == 0x0201));
        assert_eq!(cursor.rest(), [3]);
        assert!(matches!(cursor.take(2, "rest"), Err(CutOff("rest"))));
    }
}
