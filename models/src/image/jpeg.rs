//! The structure of a JPEG file (ITU-T T.81): what a decoder needs beyond what cameras write, and whether all of it is
//! there. A decoder fills what is missing with grey and says nothing.

use std::borrow::Cow;

use super::{fault::ImageFault, limits::SCANS_MAX, scan::Layout, standard_tables::STANDARD_TABLES};

const START_OF_IMAGE: &[u8] = b"\xff\xd8";
const END_OF_IMAGE: &[u8] = b"\xff\xd9";

/// Completes a JPEG for the decoder: puts the standard Huffman tables (annex K.3) before a file that brings none, as
/// webcams write it, and an end marker behind a file whose scans are complete without one. A file that is not a JPEG is
/// returned as it is.
///
/// # Errors
/// [`ImageFault::Truncated`] where a part is missing, [`ImageFault::Scans`], and [`ImageFault::Coding`] for a process other
/// than baseline, extended sequential and progressive with Huffman codes.
pub(super) fn complete(file: &[u8]) -> Result<Cow<'_, [u8]>, ImageFault> {
    if !file.starts_with(START_OF_IMAGE) {
        return Ok(Cow::Borrowed(file));
    }
    let Structure { end, needs_tables } = Structure::of(file)?;
    if end.is_none() && !needs_tables {
        return Ok(Cow::Borrowed(file));
    }
    let image = &file[START_OF_IMAGE.len()..end.unwrap_or(file.len())];
    let tables: &[u8] = if needs_tables { &STANDARD_TABLES } else { &[] };
    let marker = if end.is_some() { END_OF_IMAGE } else { &[] };
    Ok(Cow::Owned([START_OF_IMAGE, tables, image, marker].concat()))
}

/// What the segments of a file say.
struct Structure {
    /// Where the last scan ends if no end marker follows it.
    end: Option<usize>,
    /// Whether the scans use Huffman tables that the file does not bring.
    needs_tables: bool,
}

/// A scan: what it holds and where its data begins.
struct Scan {
    layout: Option<Layout>,
    data: usize,
}

impl Structure {
    fn of(file: &[u8]) -> Result<Self, ImageFault> {
        let mut frame = Frame::default();
        let (mut scans, mut last) = (0, None::<Scan>);
        // Told at the end: too many scans are the greater fault.
        let mut is_cut = false;
        let mut at = START_OF_IMAGE.len();
        loop {
            let Some((marker, next)) = next_marker(file, at) else {
                let end = last.as_ref().filter(|_| !is_cut);
                let end = end.and_then(|scan| frame.end_without_marker(file, scan));
                let end = Some(end.ok_or(ImageFault::Truncated)?);
                return Ok(Structure { end, needs_tables: frame.needs_tables() });
            };
            if let Some(Scan { layout: Some(layout), data }) = last.take() {
                is_cut = is_cut || layout.is_cut(&file[data..next - 2]);
            }
            at = next;
            match marker {
                0xd9 if is_cut => return Err(ImageFault::Truncated),
                0xd9 if scans > 0 => {
                    return Ok(Structure { end: None, needs_tables: frame.needs_tables() });
                }
                // Markers without a length: TEM, restarts, start and end of image.
                0x01 | 0xd0..=0xd9 => {}
                _ => {
                    let segment = segment(file, at).ok_or(ImageFault::Truncated)?;
                    at += 2 + segment.len();
                    match marker {
                        0xc4 => frame.layout.define_tables(segment),
                        0xc9..=0xcf => {
                            return Err(ImageFault::Coding("arithmetic codes"));
                        }
                        0xc3 => return Err(ImageFault::Coding("lossless coding")),
                        0xf7 => return Err(ImageFault::Coding("JPEG-LS coding")),
                        0xc5..=0xc7 => return Err(ImageFault::Coding("hierarchical coding")),
                        0xc0..=0xc2 => frame.begin(marker, segment),
                        0xdd => frame.layout.set_restart_interval(segment),
                        0xda => {
                            scans += 1;
                            if scans > SCANS_MAX {
                                return Err(ImageFault::Scans);
                            }
                            if frame.needs_tables() {
                                frame.layout.define_tables(&STANDARD_TABLES[4..]);
                                frame.has_standard_tables = true;
                            }
                            let layout = frame.is_sequential.then(|| frame.layout.scan(segment)).flatten();
                            last = Some(Scan { layout, data: at });
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

/// What the segments before a scan have defined.
#[derive(Default)]
struct Frame {
    /// Whether every coefficient is coded in one scan; only then can the scans' data be followed.
    is_sequential: bool,
    has_standard_tables: bool,
    layout: Layout,
}

impl Frame {
    fn begin(&mut self, marker: u8, segment: &[u8]) {
        self.is_sequential = marker != 0xc2;
        self.layout.set_frame(segment);
    }

    fn needs_tables(&self) -> bool {
        self.has_standard_tables || self.is_sequential && !self.layout.has_tables()
    }

    /// Where a last scan ends that is complete, if only fill bytes follow it and every component had its scan.
    fn end_without_marker(&self, file: &[u8], scan: &Scan) -> Option<usize> {
        let layout = scan.layout.as_ref()?;
        if !self.layout.is_every_component_scanned() {
            return None;
        }
        let end = scan.data + layout.end(&file[scan.data..])?;
        let fill = |byte: &u8| matches!(byte, 0 | 0xff);
        // Zeros are codes as well: where a file was cut and filled with zeros, the scan seems to end among them.
        let zeros = file.len() - file.iter().rev().take_while(|byte| fill(byte)).count();
        // An encoder may fill up one byte more than the last.
        (file[end..].iter().skip(1).all(fill) && end <= zeros + 1).then_some(end)
    }
}

/// The next marker from `at` on and the place behind it. Fill bytes and the data of a scan are skipped, and the restart
/// markers in it.
fn next_marker(file: &[u8], at: usize) -> Option<(u8, usize)> {
    let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff | 0xd0..=0xd7);
    let place = at + file.get(at..)?.windows(2).position(is_marker)?;
    Some((file[place + 1], place + 2))
}

/// The content of a segment whose length stands at `at`.
fn segment(file: &[u8], at: usize) -> Option<&[u8]> {
    let length = u16::from_be_bytes([*file.get(at)?, *file.get(at + 1)?]);
    file.get(at + 2..at + usize::from(length).max(2))
}
