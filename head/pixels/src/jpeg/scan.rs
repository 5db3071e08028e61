//! The entropy-coded data of a scan (ITU-T T.81, annex F.2).

use std::ops::Range;

use fearless_simd::{Level, dispatch};

use super::{
    bits::Bits,
    header::Header,
    huffman::{DcTable, END, Table},
    part::Part,
    transform::{QUANTISER, transform},
    untaken::Untaken,
};
use crate::planes::Planes;

/// A scan's data without stuffed bytes, and its parts between restart markers.
#[derive(Debug, Default)]
struct Clean {
    bytes: Vec<u8>,
    parts: Vec<Range<usize>>,
}

/// Bytes behind the end of each part, so that whole words can be read.
const ROOM: usize = 16;

const DAMAGED: Untaken = Untaken("the data of the scan is damaged");

impl Clean {
    /// Takes the data of a scan up to the end of the image.
    fn set(&mut self, data: &[u8]) -> Result<(), Untaken> {
        self.parts.clear();
        // Room for the zeros behind each part is made as parts are found.
        self.bytes.clear();
        self.bytes.resize(data.len() + ROOM, 0);
        let (mut at, mut to, mut begin) = (0, 0, 0);
        loop {
            // Eight bytes at once where none of them is ff.
            while let (Some(word), Some(place)) = (data.get(at..at + 8), self.bytes.get_mut(to..to + 8)) {
                place.copy_from_slice(word);
                let inverse = !u64::from_le_bytes(word.try_into().unwrap_or_default());
                let zeros = inverse.wrapping_sub(0x0101_0101_0101_0101) & !inverse & 0x8080_8080_8080_8080;
                if zeros != 0 {
                    let before = zeros.trailing_zeros() as usize / 8;
                    (at, to) = (at + before, to + before);
                    break;
                }
                (at, to) = (at + 8, to + 8);
            }
            let &byte = data.get(at).ok_or(DAMAGED)?;
            if byte != 0xff {
                self.bytes[to] = byte;
                (at, to) = (at + 1, to + 1);
                continue;
            }
            match *data.get(at + 1).ok_or(DAMAGED)? {
                0 => {
                    self.bytes[to] = 0xff;
                    (at, to) = (at + 2, to + 1);
                }
                0xff => at += 1,
                marker @ (0xd0..=0xd7 | 0xd9) => {
                    self.parts.push(begin..to);
                    if marker == 0xd9 {
                        break;
                    }
                    if usize::from(marker & 7) != (self.parts.len() - 1) % 8 {
                        return Err(Untaken("a restart marker is out of place"));
                    }
                    at += 2;
                    to += ROOM;
                    begin = to;
                    self.bytes.resize(self.bytes.len() + ROOM, 0);
                    // What was copied before a marker was found is no part of the data.
                    self.bytes[to - ROOM..to].fill(0);
                }
                _ => return Err(Untaken("more than one scan")),
            }
        }
        self.bytes[to..].fill(0);
        Ok(())
    }
}

/// One block of every data unit.
struct Slot<'a> {
    component: usize,
    dc: &'a DcTable,
    ac: &'a Table,
    order: &'a [(u32, i32); 64],
    /// Its column of blocks within a unit, of so many.
    column: usize,
    of: usize,
    line: usize,
    /// Where the runs of its row of blocks begin.
    runs: usize,
    /// The first block that is decoded, and how many are in the present row of units.
    first: usize,
    count: usize,
}

/// Decodes scans, with buffers that are kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    clean: Clean,
    coefficients: Vec<i16>,
    spare: Vec<i16>,
}

impl Scanner {
    /// Decodes the scan that begins `data` and has the segments of `header` before it.
    pub(super) fn scan(
        &mut self,
        header: &Header,
        data: &[u8],
        parts: &[Part],
        planes: &mut Planes,
    ) -> Result<(), Untaken> {
        self.clean.set(data)?;
        let result = self.blocks(header, parts, planes);
        if result.is_err() {
            // What was read is zero again only where all of it was transformed.
            self.coefficients.fill(0);
        }
        result
    }

    fn blocks(&mut self, header: &Header, parts: &[Part], planes: &mut Planes) -> Result<(), Untaken> {
        let Self { clean, coefficients, spare } = self;
        let frame = header.frame();
        // Runs of coefficients for a row of units, and for each row of blocks one run for those that are not used.
        let (mut slots, mut room) = (Vec::new(), 0);
        for (component, (part, of)) in parts.iter().zip(&frame.components).enumerate() {
            let tables = header.dc[of.dc].as_ref().zip(header.ac[of.ac].as_ref());
            let ((dc, ac), order) = tables.zip(part.order.first_chunk()).ok_or(DAMAGED)?;
            for line in 0..of.down {
                for column in 0..of.across {
                    let (of, first, count) = (of.across, part.across.start, 0);
                    slots.push(Slot { component, dc, ac, order, column, of, line, runs: room, first, count });
                }
                room += (part.size * part.size + 1) * part.blocks;
            }
        }
        if coefficients.len() < room {
            coefficients.resize(room, 0);
            spare.resize(room, 0);
        }
        let interval = match frame.restart_interval {
            0 => usize::MAX,
            interval => interval,
        };
        let mut segments = clean.parts.iter();
        let mut next = || {
            let part = segments.next().ok_or(DAMAGED)?;
            Ok((Bits::new(&clean.bytes[part.start..part.end + ROOM]), part.len()))
        };
        let (mut bits, mut length) = next()?;
        let mut before = [0i32; 3];
        let mut left = interval;
        let level = Level::new();
        for row in 0..frame.units.1 {
            for slot in &mut slots {
                let part = &parts[slot.component];
                let block = row * frame.components[slot.component].down + slot.line;
                slot.count = if part.down.contains(&block) { part.across.len() } else { 0 };
            }
            for column in 0..frame.units.0 {
                if left == 0 {
                    if bits.position() > length {
                        return Err(DAMAGED);
                    }
                    (bits, length) = next()?;
                    before = [0; 3];
                    left = interval;
                }
                left -= 1;
                for slot in &slots {
                    let lane = (column * slot.of + slot.column).wrapping_sub(slot.first);
                    let before = &mut before[slot.component];
                    let difference = bits.difference(slot.dc).ok_or(DAMAGED)?;
                    *before = before.wrapping_add(difference);
                    if lane < slot.count {
                        let runs = &mut coefficients[slot.runs + lane..];
                        bits = block(bits, slot.ac, *before, slot.order, runs).ok_or(DAMAGED)?;
                    } else {
                        bits = pass(bits, slot.ac).ok_or(DAMAGED)?;
                    }
                }
            }
            for slot in slots.iter().filter(|slot| slot.count > 0 && slot.column == 0) {
                let (part, plane) = (&parts[slot.component], &mut planes.planes[slot.component]);
                let block = row * frame.components[slot.component].down + slot.line;
                let height = part.size * plane.stride;
                let rows = &mut plane.samples[(block - part.down.start) * height..][..height];
                let runs = &mut coefficients[slot.runs..];
                dispatch!(level, _simd => transform(part.size, runs, spare, rows, part.blocks));
                let used = part.size * part.size * part.blocks;
                if part.size < 8 {
                    runs[used..used + part.blocks].fill(0);
                }
            }
        }
        let is_whole = bits.position() <= length && segments.next().is_none();
        if is_whole { Ok(()) } else { Err(DAMAGED) }
    }
}

/// Reads the coefficients of a block behind the first into the runs that begin at its lane; `first` is the first.
#[inline(always)]
fn block<'a>(
    mut bits: Bits<'a>,
    ac: &Table,
    first: i32,
    order: &[(u32, i32); 64],
    runs: &mut [i16],
) -> Option<Bits<'a>> {
    let scaled = |value: i32, factor: i32| {
        (value.wrapping_mul(factor).wrapping_add(1 << (QUANTISER - 1)) >> QUANTISER) as i16
    };
    runs[0] = scaled(first, order[0].1);
    let mut at = 0;
    while at < 63 {
        let (distance, value) = bits.coefficient(ac)?;
        at += distance;
        if at > 63 {
            // Anything but the end of the block is a coefficient behind its last.
            return (distance == END as usize).then_some(bits);
        }
        let (run, factor) = order[at];
        runs[run as usize] = scaled(value, factor);
    }
    Some(bits)
}

/// Passes over the coefficients of a block behind the first.
#[inline(always)]
fn pass<'a>(mut bits: Bits<'a>, ac: &Table) -> Option<Bits<'a>> {
    let mut at = 0;
    while at < 63 {
        let (distance, _) = bits.coefficient(ac)?;
        at += distance;
        if at > 63 {
            return (distance == END as usize).then_some(bits);
        }
    }
    Some(bits)
}
