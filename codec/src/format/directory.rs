//! The directory of a packet that may be cut (FORMAT.md, sections 4 and 4.1).

use crate::{
    Error, GROUPS_MAX, HEADER_BYTES, Header,
    format::{
        cursor::{Cursor, Truncated},
        states,
    },
};

/// What the directory holds of one channel group.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupEnd {
    /// Words from the first group to the end of this one.
    pub(crate) words: u64,
    /// The low 16 bits of the checksum up to the end of this group.
    pub(crate) check: u16,
}

/// The parsed directory: the end of every group but the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory {
    group_ends: [GroupEnd; GROUPS_MAX],
    groups: usize,
}

impl Directory {
    /// Parses the directory of a packet of `groups` groups, 1 to [`GROUPS_MAX`].
    ///
    /// # Errors
    /// [`Error::PacketTruncated`] and [`Error::Number`].
    pub(crate) fn parse(cursor: &mut Cursor<'_>, groups: usize) -> Result<Self, Error> {
        let mut group_ends = [GroupEnd::default(); GROUPS_MAX];
        let mut words = 0;
        for group_end in &mut group_ends[..groups - 1] {
            let number = cursor.number("directory").map_err(Truncated::packet)?;
            words += number.ok_or(Error::Number { field: "directory" })? as u64;
            let check = cursor.u16("directory").map_err(Truncated::packet)?;
            *group_end = GroupEnd { words, check };
        }
        Ok(Self { group_ends, groups })
    }

    /// The end of every group but the last.
    pub(crate) fn group_ends(&self) -> &[GroupEnd] {
        &self.group_ends[..self.groups - 1]
    }

    /// The number of whole groups in a packet, whole or cut, that has `words` words.
    ///
    /// # Errors
    /// [`Error::PacketTruncated`] when the words end inside a group.
    pub(crate) fn groups_decoded(&self, words: usize) -> Result<usize, Error> {
        let words = words as u64;
        match self.group_ends().iter().rposition(|group_end| group_end.words <= words) {
            Some(last) if self.group_ends[last].words == words => Ok(last + 1),
            Some(last) if last + 2 < self.groups => Err(Error::PacketTruncated { field: "words" }),
            None if self.groups > 1 => Err(Error::PacketTruncated { field: "words" }),
            _ => Ok(self.groups),
        }
    }
}

/// The lengths in bytes at which `packet` may be cut so that what remains can be decoded, shortest first. The last one
/// is the length of the packet itself.
///
/// # Errors
/// An [`Error`] of kind [`ErrorKind::Peer`](crate::ErrorKind::Peer) that names the field.
pub fn prefixes(packet: &[u8]) -> Result<impl Iterator<Item = usize>, Error> {
    let header = Header::parse(packet)?;
    let mut cursor = Cursor::new(packet);
    cursor.take(HEADER_BYTES, "header").map_err(Truncated::packet)?;
    let directory = Directory::parse(&mut cursor, header.groups())?;
    if header.mode.is_coded() {
        states::skip(&mut cursor, header.lanes())?;
    }
    let first_word = packet.len() - cursor.rest().len();
    let len = packet.len();
    let group_ends = directory.group_ends;
    let inner = (0..header.groups() - 1).map(move |group| first_word as u64 + 2 * group_ends[group].words);
    Ok(inner.filter(move |end| *end < len as u64).map(|end| end as usize).chain([len]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::cursor::push_number;

    #[test]
    fn only_whole_groups_are_decoded() {
        let mut bytes = Vec::new();
        for words in [3_usize, 0, 200] {
            push_number(words, &mut bytes);
            bytes.extend([0, 0]);
        }
        let directory = Directory::parse(&mut Cursor::new(&bytes), 4).unwrap();
        for (words, groups) in
            [(3, Some(2)), (203, Some(3)), (204, Some(4)), (2, None), (202, None), (0, None)]
        {
            assert_eq!(directory.groups_decoded(words).ok(), groups, "{words}");
        }
    }
}
