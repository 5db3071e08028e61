//! The bits of a scan.

use super::huffman::{APART, DcTable, LOOKUP, Table};

/// Reads bits of entropy-coded data, from the highest of each byte down. Behind the end come zeros, and `position` tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The next byte.
    at: usize,
    /// The next bits, from the highest down.
    buffer: u64,
    /// How many bits of `buffer` are there.
    count: u32,
}

impl<'a> Bits<'a> {
    /// Reads `data`, which has eight bytes behind its end.
    pub(super) fn new(data: &'a [u8]) -> Self {
        Bits { data, at: 0, buffer: 0, count: 0 }
    }

    /// Bytes that were begun.
    pub(super) fn position(&self) -> usize {
        self.at - (self.count / 8) as usize
    }

    /// Makes at least 32 bits available.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count < 32 {
            let next = match self.data.get(self.at..self.at + 8) {
                Some(bytes) => u64::from_be_bytes(bytes.try_into().unwrap_or_default()),
                None => 0,
            };
            self.buffer |= next >> self.count;
            let taken = (63 - self.count) >> 3;
            self.at += taken as usize;
            self.count += 8 * taken;
        }
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.count -= count;
    }

    /// The next coefficients of a block behind the first one: how many are passed over, counting this one, and its value. The
    /// end of the block passes over all.
    #[inline(always)]
    pub(super) fn coefficient(&mut self, table: &Table) -> Option<(usize, i32)> {
        self.refill();
        let entry = table.fast[(self.buffer >> (64 - LOOKUP)) as usize];
        if entry & APART == 0 {
            self.skip(entry & 31);
            return Some(((entry >> 8 & 0xff) as usize, entry as i32 >> 16));
        }
        let (length, distance, size) = match entry & 31 {
            0 => table.coefficient((self.buffer >> 48) as u32)?,
            length => (length, entry >> 8 & 0xff, entry >> 16),
        };
        self.skip(length);
        Some((distance as usize, if size == 0 { 0 } else { self.value(size) }))
    }

    /// The difference of a block's first coefficient from that of the one before.
    #[inline(always)]
    pub(super) fn difference(&mut self, table: &DcTable) -> Option<i32> {
        self.refill();
        let (length, size) = table.size((self.buffer >> 48) as u32)?;
        self.skip(length);
        Some(if size == 0 { 0 } else { self.value(size) })
    }

    /// A value of `size` bits, 1 to 16.
    #[inline(always)]
    fn value(&mut self, size: u32) -> i32 {
        let bits = (self.buffer >> (64 - size)) as i32;
        self.skip(size);
        if bits >> (size - 1) == 0 { bits - (1 << size) + 1 } else { bits }
    }
}
