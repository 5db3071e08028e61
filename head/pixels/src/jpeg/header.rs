//! The segments before a scan (ITU-T T.81, annex B.2).

use narrows_models::image::STANDARD_TABLES;

use super::{
    huffman::{DcTable, Table},
    untaken::Untaken,
};

/// Most pixels of a frame. Memory for its planes is taken before its data is read.
const PIXELS_MAX: u32 = 1 << 24;

/// Row and column of each coefficient in the order of the file: 8 · row + column.
#[rustfmt::skip]
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// What the segments of a file say. Tables of Huffman codes are kept: a camera sends the same with every frame.
#[derive(Debug, Default)]
pub(super) struct Header {
    frame: Frame,
    steps: [Option<[u16; 64]>; 4],
    /// The content of the DHT segments that the tables are from.
    defined: Vec<u8>,
    pub(super) dc: [Option<DcTable>; 4],
    pub(super) ac: [Option<Table>; 4],
}

/// Size and components.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) components: Vec<Component>,
    /// Data units between restart markers; 0 for none.
    pub(super) restart_interval: usize,
    /// Data units across and down; each has all blocks of one place.
    pub(super) units: (usize, usize),
}

#[derive(Debug, Clone)]
pub(super) struct Component {
    id: u8,
    /// Blocks of a unit, each way.
    pub(super) across: usize,
    pub(super) down: usize,
    quantiser: usize,
    /// The steps of its coefficients in the order of the file.
    pub(super) steps: [u16; 64],
    pub(super) dc: usize,
    pub(super) ac: usize,
}

impl Frame {
    /// The most blocks of a unit that a component has, each way.
    pub(super) fn most(&self) -> (usize, usize) {
        let most = |side: fn(&Component) -> usize| self.components.iter().map(side).max().unwrap_or(1);
        (most(|component| component.across), most(|component| component.down))
    }
}

const CUT: Untaken = Untaken("a segment is cut");

impl Header {
    pub(super) fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Reads the segments up to the scan; returns where its data begins.
    pub(super) fn read(&mut self, file: &[u8]) -> Result<usize, Untaken> {
        self.frame = Frame::default();
        self.steps = Default::default();
        let mut defined = Vec::new();
        let mut at = match file {
            [0xff, 0xd8, ..] => 2,
            _ => return Err(Untaken("no start of an image")),
        };
        loop {
            let &[0xff, marker] = file.get(at..at + 2).ok_or(CUT)? else {
                return Err(Untaken("no marker where one must be"));
            };
            if marker == 0xff {
                // A fill byte.
                at += 1;
                continue;
            }
            let length = file.get(at + 2..at + 4).ok_or(CUT)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let segment = file.get(at + 4..at + 2 + length.max(2)).ok_or(CUT)?;
            at += 2 + length;
            match marker {
                0xdb => self.quantisers(segment)?,
                0xc4 => defined.extend_from_slice(segment),
                0xc0 | 0xc1 => self.begin(segment)?,
                0xdd => match segment {
                    [high, low] => {
                        self.frame.restart_interval = usize::from(u16::from_be_bytes([*high, *low]));
                    }
                    _ => return Err(CUT),
                },
                0xda => {
                    self.scan(segment)?;
                    break;
                }
                0xe1 if segment.starts_with(b"Exif\0") && is_turned(segment) => {
                    return Err(Untaken("it is to be turned"));
                }
                0xee if matches!(segment, [b'A', b'd', b'o', b'b', b'e', .., transform] if *transform != 1) =>
                {
                    return Err(Untaken("its colours are not YCbCr"));
                }
                0xe0..=0xef | 0xfe => {}
                _ => return Err(Untaken("a process or a segment that cameras do not use")),
            }
        }
        self.tables(if defined.is_empty() { &STANDARD_TABLES[4..] } else { &defined })?;
        let has_tables =
            |component: &Component| self.dc[component.dc].is_some() && self.ac[component.ac].is_some();
        let has_tables = self.frame.components.iter().all(has_tables);
        if has_tables { Ok(at) } else { Err(Untaken("a table is missing")) }
    }

    fn quantisers(&mut self, mut segment: &[u8]) -> Result<(), Untaken> {
        while let Some((&place, rest)) = segment.split_first() {
            let wide = place >> 4 == 1;
            let (bytes, rest) = rest.split_at_checked(if wide { 128 } else { 64 }).ok_or(CUT)?;
            let steps = match wide {
                true => std::array::from_fn(|at| u16::from_be_bytes([bytes[2 * at], bytes[2 * at + 1]])),
                false => std::array::from_fn(|at| u16::from(bytes[at])),
            };
            self.steps[usize::from(place & 3)] = Some(steps);
            segment = rest;
        }
        Ok(())
    }

    fn begin(&mut self, segment: &[u8]) -> Result<(), Untaken> {
        let [8, h1, h0, w1, w0, count, rest @ ..] = segment else {
            return Err(Untaken("not 8 bits a sample"));
        };
        if !self.frame.components.is_empty()
            || !matches!(count, 1 | 3)
            || rest.len() != 3 * usize::from(*count)
        {
            return Err(Untaken("neither one nor three components"));
        }
        (self.frame.height, self.frame.width) =
            (u16::from_be_bytes([*h1, *h0]), u16::from_be_bytes([*w1, *w0]));
        if self.frame.width == 0 || self.frame.height == 0 {
            return Err(Untaken("a side of no pixels"));
        }
        if u32::from(self.frame.width) * u32::from(self.frame.height) > PIXELS_MAX {
            return Err(Untaken("more pixels than cameras have"));
        }
        for entry in rest.chunks_exact(3) {
            let (across, down) = (usize::from(entry[1] >> 4), usize::from(entry[1] & 15));
            // A component alone lies block by block, whatever it says.
            let (across, down) = if *count == 1 { (1, 1) } else { (across, down) };
            self.frame.components.push(Component {
                id: entry[0],
                across,
                down,
                quantiser: usize::from(entry[2] & 3),
                steps: [0; 64],
                dc: 0,
                ac: 0,
            });
        }
        let (most_across, most_down) = self.frame.most();
        let is_usual = |(place, component): (usize, &Component)| match place {
            0 => matches!((component.across, component.down), (1 | 2, 1 | 2)),
            _ => (component.across, component.down) == (1, 1),
        };
        if !self.frame.components.iter().enumerate().all(is_usual) {
            return Err(Untaken("an unusual resolution of colour"));
        }
        if self.frame.components.iter().map(|component| component.id).eq(*b"RGB") {
            return Err(Untaken("its colours are not YCbCr"));
        }
        self.frame.units = (
            usize::from(self.frame.width).div_ceil(8 * most_across),
            usize::from(self.frame.height).div_ceil(8 * most_down),
        );
        Ok(())
    }

    fn scan(&mut self, segment: &[u8]) -> Result<(), Untaken> {
        let components = &mut self.frame.components;
        let one = Untaken("not one scan of all components");
        let (&count, rest) = segment.split_first().ok_or(CUT)?;
        if usize::from(count) != components.len() || rest.len() != 2 * usize::from(count) + 3 || count == 0 {
            return Err(one);
        }
        for (component, entry) in components.iter_mut().zip(rest.chunks_exact(2)) {
            if entry[0] != component.id {
                return Err(one);
            }
            (component.dc, component.ac) = (usize::from(entry[1] >> 4 & 3), usize::from(entry[1] & 3));
            component.steps = self.steps[component.quantiser].ok_or(Untaken("a quantiser is missing"))?;
        }
        match rest[rest.len() - 3..] {
            [0, 63, 0] => Ok(()),
            _ => Err(one),
        }
    }

    /// Takes the tables in the content of DHT segments.
    fn tables(&mut self, defined: &[u8]) -> Result<(), Untaken> {
        if self.defined == defined {
            return Ok(());
        }
        self.defined.clear();
        (self.dc, self.ac) = Default::default();
        let mut rest = defined;
        while let Some((&class, after)) = rest.split_first() {
            let (counts, after) = after.split_first_chunk::<16>().ok_or(CUT)?;
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, after) = after.split_at_checked(total).ok_or(CUT)?;
            let place = usize::from(class & 3);
            let wrong = Untaken("a table of codes that there cannot be");
            match class >> 4 {
                0 => self.dc[place] = Some(DcTable::new(counts, symbols).ok_or(wrong)?),
                _ => self.ac[place] = Some(Table::new(counts, symbols).ok_or(wrong)?),
            }
            rest = after;
        }
        self.defined.extend_from_slice(defined);
        Ok(())
    }
}

/// Whether an EXIF segment may have an orientation other than upright. Taken for one is whatever looks like its entry.
fn is_turned(segment: &[u8]) -> bool {
    let entry = |bytes: &[u8]| match bytes {
        [0x12, 0x01, 3, 0, 1, 0, 0, 0, value, 0] => *value != 1,
        [0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, value] => *value != 1,
        _ => false,
    };
    segment.windows(10).any(entry)
}
