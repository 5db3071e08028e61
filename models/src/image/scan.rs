//! The entropy-coded data of a sequential JPEG scan (ITU-T T.81, annex F.2.2), followed without computing coefficients, to
//! find where it ends.

/// Bits that a code is looked up by at once; longer codes are compared by length.
const LOOKUP: u32 = 9;
/// Masks by which a byte of ff is found among eight.
const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
const ONES: u64 = 0x0101_0101_0101_0101;

/// The components and tables that a file has defined so far, and after [`Layout::scan`] those of one scan.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    width: usize,
    height: usize,
    components: Vec<Component>,
    tables: Tables,
    /// Data units between restart markers; 0 for none.
    restart_interval: usize,
    /// Data units of the scan, each of these blocks.
    units: usize,
    blocks: Vec<(usize, usize)>,
}

#[derive(Debug, Clone, Copy)]
struct Component {
    id: u8,
    across: usize,
    down: usize,
    is_scanned: bool,
}

#[derive(Debug, Clone, Default)]
struct Tables {
    dc: [Option<Box<Table>>; 4],
    ac: [Option<Box<Table>>; 4],
}

/// A Huffman table.
#[derive(Debug, Clone)]
struct Table {
    /// Length and symbol by the first [`LOOKUP`] bits; length 0 where the code is longer.
    lookup: [(u8, u8); 1 << LOOKUP],
    /// By length: one above the last code, left-aligned in 16 bits, and the place of the first code's symbol less that code.
    limits: [(u32, i32); 17],
    symbols: Vec<u8>,
}

/// Why a scan's data cannot be followed to its end.
enum Stop {
    /// The data ends early.
    Short,
    /// A code that the tables do not have, or a restart marker out of place.
    Damaged,
}

impl Layout {
    /// Takes size and components from the content of a frame header.
    pub(super) fn set_frame(&mut self, segment: &[u8]) {
        let [_, h1, h0, w1, w0, _, rest @ ..] = segment else { return };
        self.height = usize::from(u16::from_be_bytes([*h1, *h0]));
        self.width = usize::from(u16::from_be_bytes([*w1, *w0]));
        let component = |entry: &[u8]| Component {
            id: entry[0],
            across: usize::from(entry[1] >> 4).clamp(1, 4),
            down: usize::from(entry[1] & 15).clamp(1, 4),
            is_scanned: false,
        };
        self.components = rest.chunks_exact(3).take(4).map(component).collect();
    }

    /// Takes the tables in the content of a DHT segment.
    pub(super) fn define_tables(&mut self, mut segment: &[u8]) {
        while let [class, rest @ ..] = segment
            && let Some((counts, rest)) = rest.split_first_chunk::<16>()
        {
            let total = counts.iter().map(|&count| usize::from(count)).sum::<usize>();
            let Some((symbols, rest)) = rest.split_at_checked(total) else { return };
            let tables = if class >> 4 == 0 { &mut self.tables.dc } else { &mut self.tables.ac };
            tables[usize::from(class & 3)] = Some(Box::new(Table::new(counts, symbols)));
            segment = rest;
        }
    }

    /// Takes the interval from the content of a DRI segment.
    pub(super) fn set_restart_interval(&mut self, segment: &[u8]) {
        if let [high, low, ..] = segment {
            self.restart_interval = usize::from(u16::from_be_bytes([*high, *low]));
        }
    }

    /// Whether any table is defined.
    pub(super) fn has_tables(&self) -> bool {
        self.tables.dc.iter().chain(&self.tables.ac).any(Option::is_some)
    }

    /// Whether a scan was begun for every component.
    pub(super) fn is_every_component_scanned(&self) -> bool {
        self.components.iter().all(|component| component.is_scanned)
    }

    /// The layout of the scan that the content of a scan header describes; `None` if it does not fit the frame.
    pub(super) fn scan(&mut self, segment: &[u8]) -> Option<Layout> {
        let (&count, entries) = segment.split_first()?;
        let entries: Vec<&[u8]> = entries.chunks_exact(2).take(count.into()).collect();
        let most = |side: fn(&Component) -> usize| self.components.iter().map(side).max().unwrap_or(1);
        let (across, down) = (most(|component| component.across), most(|component| component.down));
        let (mut units, mut blocks) = (0, Vec::new());
        for entry in &entries {
            let component = self.components.iter_mut().find(|component| component.id == entry[0])?;
            component.is_scanned = true;
            let tables = (usize::from(entry[1] >> 4 & 3), usize::from(entry[1] & 3));
            let (per_unit, size) = match entries.len() {
                // A component alone: a unit is one block, and there are none beyond the component's own size.
                1 => {
                    let wide = (self.width * component.across).div_ceil(across).div_ceil(8);
                    let high = (self.height * component.down).div_ceil(down).div_ceil(8);
                    (1, wide * high)
                }
                _ => {
                    let size = self.width.div_ceil(8 * across) * self.height.div_ceil(8 * down);
                    (component.across * component.down, size)
                }
            };
            units = size;
            blocks.extend(std::iter::repeat_n(tables, per_unit));
        }
        (!blocks.is_empty()).then(|| Layout { units, blocks, ..self.clone() })
    }

    /// Whether the scan's data ends before its last unit.
    pub(super) fn is_cut(&self, data: &[u8]) -> bool {
        matches!(self.follow(data), Err(Stop::Short))
    }

    /// Where the scan ends in `data`, if it does.
    pub(super) fn end(&self, data: &[u8]) -> Option<usize> {
        self.follow(data).ok()
    }

    fn follow(&self, data: &[u8]) -> Result<usize, Stop> {
        let mut blocks = Vec::new();
        for &(dc, ac) in &self.blocks {
            let (dc, ac) = (self.tables.dc[dc].as_deref(), self.tables.ac[ac].as_deref());
            blocks.push(dc.zip(ac).ok_or(Stop::Damaged)?);
        }
        let mut bits = Bits { data, at: 0, held: 0, count: 0 };
        for unit in 0..self.units {
            if self.restart_interval > 0 && unit > 0 && unit % self.restart_interval == 0 {
                bits.restart()?;
            }
            for (dc, ac) in &blocks {
                bits.coefficient(dc)?;
                let mut place = 1;
                while place < 64 {
                    let (run, size) = bits.coefficient(ac)?;
                    match (run, size) {
                        (15, 0) => place += 16,
                        (_, 0) => break,
                        _ => place += run + 1,
                    }
                }
            }
        }
        Ok(bits.place())
    }
}

impl Table {
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Self {
        let mut table =
            Table { lookup: [(0, 0); 1 << LOOKUP], limits: [(0, 0); 17], symbols: symbols.to_vec() };
        let (mut code, mut first) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            let count = usize::from(count);
            table.limits[length as usize] =
                ((code + count as u32) << (16 - length), first as i32 - code as i32);
            if length <= LOOKUP {
                for (symbol, code) in symbols[first..first + count].iter().zip(code..) {
                    let start = (code as usize) << (LOOKUP - length);
                    let end = (start + (1 << (LOOKUP - length))).min(1 << LOOKUP);
                    // A malformed table may have more codes than its lengths have room for.
                    table.lookup.get_mut(start..end).into_iter().flatten().for_each(|entry| {
                        *entry = (length as u8, *symbol);
                    });
                }
            }
            first += count;
            code = (code + count as u32) << 1;
        }
        table
    }

    /// Length and symbol of the code at the front of 16 bits.
    fn find(&self, front: u32) -> Option<(u32, u8)> {
        let (length, symbol) = self.lookup[(front >> (16 - LOOKUP)) as usize];
        if length > 0 {
            return Some((length.into(), symbol));
        }
        let length = (LOOKUP + 1..=16).find(|&length| front < self.limits[length as usize].0)?;
        let place = (front >> (16 - length)) as i32 + self.limits[length as usize].1;
        Some((length, *self.symbols.get(usize::try_from(place).ok()?)?))
    }
}

/// Bits of entropy-coded data, up to the next marker.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next `count` bits, left-aligned.
    held: u64,
    count: u32,
}

impl Bits<'_> {
    fn fill(&mut self) {
        if self.count > 56 {
            return;
        }
        if let Some(bytes) = self.data.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let next = u64::from_be_bytes(*bytes);
            // Without a byte of ff, which begins a marker or is stuffed, they are taken at once.
            if next & (next & LOW_BITS).wrapping_add(ONES) & HIGH_BITS == 0 {
                let taken = (64 - self.count) / 8;
                self.held |= (next >> (64 - 8 * taken)) << (64 - 8 * taken) >> self.count;
                self.at += taken as usize;
                self.count += 8 * taken;
                return;
            }
        }
        while self.count <= 56 {
            let Some(&byte) = self.data.get(self.at) else { return };
            match (byte, self.data.get(self.at + 1)) {
                (0xff, Some(0)) => self.at += 2,
                (0xff, _) => return,
                _ => self.at += 1,
            }
            self.held |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Skips a coefficient: a code, and behind it as many bits as it says. Returns the run of zeros before it and that size.
    fn coefficient(&mut self, table: &Table) -> Result<(u32, u32), Stop> {
        // At most 16 bits of code and 15 of value.
        if self.count < 32 {
            self.fill();
        }
        let (length, symbol) = match table.find((self.held >> 48) as u32) {
            Some(found) => found,
            None if self.count < 16 => return Err(self.stop()),
            None => return Err(Stop::Damaged),
        };
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if length + size > self.count {
            return Err(self.stop());
        }
        self.held <<= length + size;
        self.count -= length + size;
        Ok((run, size))
    }

    /// Why there are no more bits: a restart marker before its time says that data within was lost.
    fn stop(&self) -> Stop {
        match self.data.get(self.at + 1) {
            Some(0xd0..=0xd7) => Stop::Damaged,
            _ => Stop::Short,
        }
    }

    fn restart(&mut self) -> Result<(), Stop> {
        self.fill();
        // An encoder may fill up more than the last byte.
        if self.count >= 24 {
            return Err(Stop::Damaged);
        }
        while self.data.get(self.at + 1) == Some(&0xff) {
            self.at += 1;
        }
        match self.data.get(self.at + 1) {
            Some(0xd0..=0xd7) => {
                *self = Bits { data: self.data, at: self.at + 2, held: 0, count: 0 };
                Ok(())
            }
            Some(_) => Err(Stop::Damaged),
            None => Err(Stop::Short),
        }
    }

    /// The place behind the last byte of which bits were used.
    fn place(&self) -> usize {
        let mut at = self.at;
        for _ in 0..self.count / 8 {
            // A stuffed zero belongs to the byte before it.
            at -= if at >= 2 && self.data[at - 2..at] == [0xff, 0] { 2 } else { 1 };
        }
        at
    }
}
