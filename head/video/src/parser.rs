//! A stream of pictures whose format is recognised by its first bytes, or given.

use crate::{
    collector::Collector,
    counts::Counts,
    fault::StreamFault,
    mjpeg::Mjpeg,
    raw::{Raw, RawFormat},
    y4m::{self, Y4m},
};

/// Bytes in which the first picture must begin.
const SEARCHED: u64 = 1 << 20;
/// How many of the first bytes are kept to say what the stream is.
const FRONT: usize = 64;

/// A picture of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// A JPEG file, not decoded. It may lack an end marker or, as from webcams, Huffman tables.
    Jpeg(Vec<u8>),
    /// A frame that is not compressed.
    Raw(Raw),
}

/// Finds the pictures in a stream of bytes.
#[derive(Debug)]
pub struct Parser {
    format: Format,
    /// Most bytes of a picture.
    limit: usize,
    counts: Counts,
    /// The first bytes of the stream.
    front: Vec<u8>,
}

#[derive(Debug)]
enum Format {
    /// Not enough bytes to tell.
    Open,
    Mjpeg(Mjpeg),
    Y4m(Y4m),
    Raw(RawFormat, Collector),
}

impl Parser {
    /// A parser for raw frames of the given format, or one that tells MJPEG and Y4M apart. A picture has at most `limit` bytes.
    #[must_use]
    pub fn new(raw: Option<RawFormat>, limit: usize) -> Self {
        let format = match raw {
            Some(format) => Format::Raw(format, Collector::new(format.layout.size())),
            None => Format::Open,
        };
        Parser { format, limit, counts: Counts::default(), front: Vec::new() }
    }

    /// Takes bytes, and delivers the pictures that they complete, in their order.
    ///
    /// # Errors
    /// [`StreamFault`] for a stream that cannot be read; nothing behind it is.
    pub fn push(&mut self, bytes: &[u8], deliver: &mut dyn FnMut(Picture)) -> Result<(), StreamFault> {
        let kept = bytes.len().min(FRONT - self.front.len());
        self.front.extend_from_slice(&bytes[..kept]);
        let mut bytes = bytes;
        if let Format::Open = self.format {
            let known = self.front.len().min(y4m::MAGIC.len());
            let may_be_y4m = self.front[..known] == y4m::MAGIC[..known];
            if may_be_y4m && known < y4m::MAGIC.len() {
                // All bytes so far are in `front`.
                return Ok(());
            }
            self.format =
                if may_be_y4m { Format::Y4m(Y4m::default()) } else { Format::Mjpeg(Mjpeg::default()) };
            let before = self.front.len() - kept;
            let front = self.front[..before].to_vec();
            self.push_known(&front, deliver)?;
        }
        // In parts, so that a stream of something else is given up early.
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(1 << 16));
            self.push_known(part, deliver)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Ends the stream. Returns what may be a picture without an end marker; the decoder tells whether it is complete. A
    /// picture that has not arrived whole is counted as damaged.
    ///
    /// # Errors
    /// [`StreamFault::Unknown`] if bytes came and no picture was among them.
    pub fn finish(mut self) -> Result<(Option<Picture>, Counts), StreamFault> {
        let last = match self.format {
            Format::Open => {
                self.counts.skipped += self.front.len() as u64;
                None
            }
            Format::Mjpeg(mjpeg) => mjpeg.finish(&mut self.counts).map(Picture::Jpeg),
            Format::Y4m(y4m) => {
                y4m.finish(&mut self.counts);
                None
            }
            Format::Raw(_, ref frame) => {
                self.counts.damaged += u64::from(frame.len() > 0);
                self.counts.skipped += frame.len() as u64;
                None
            }
        };
        let Counts { pictures, damaged, skipped } = self.counts;
        if pictures + damaged == 0 && last.is_none() && skipped > 0 {
            return Err(unknown(skipped, &self.front));
        }
        Ok((last, self.counts))
    }

    /// What the stream has had so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn push_known(&mut self, bytes: &[u8], deliver: &mut dyn FnMut(Picture)) -> Result<(), StreamFault> {
        let Parser { format, limit, counts, front } = self;
        match format {
            Format::Open => Ok(()),
            Format::Mjpeg(mjpeg) => {
                mjpeg.push(bytes, *limit, counts, &mut |picture| deliver(Picture::Jpeg(picture)));
                match counts.pictures + counts.damaged == 0 && counts.skipped > SEARCHED {
                    true => Err(unknown(counts.skipped, front)),
                    false => Ok(()),
                }
            }
            Format::Y4m(y4m) => y4m.push(bytes, *limit, counts, &mut |frame| deliver(Picture::Raw(frame))),
            Format::Raw(format, frame) => {
                if format.layout.size() > *limit {
                    return Err(StreamFault::Raw("frames of this size are too large".into()));
                }
                let mut bytes = bytes;
                while !bytes.is_empty() {
                    bytes = frame.take(bytes);
                    if let Some(frame) = frame.whole().and_then(|bytes| Raw::new(*format, bytes)) {
                        counts.pictures += 1;
                        deliver(Picture::Raw(frame));
                    }
                }
                Ok(())
            }
        }
    }
}

fn unknown(bytes: u64, front: &[u8]) -> StreamFault {
    let known: [(usize, &[u8], &str); 9] = [
        (0, b"\0\0\0\x01", "H.264 or H.265 without a container"),
        (0, b"\0\0\x01", "H.264 or H.265 without a container"),
        (0, b"\x89PNG", "PNG pictures"),
        (4, b"ftyp", "a video (MP4)"),
        (0, b"\x1a\x45\xdf\xa3", "a video (Matroska)"),
        (8, b"AVI ", "a video (AVI)"),
        (0, b"\x47", "a video (MPEG transport stream)"),
        (0, b"OggS", "a video (Ogg)"),
        (0, b"FLV", "a video (FLV)"),
    ];
    let is = |(at, magic, _): &&(usize, &[u8], &str)| front.get(*at..at + magic.len()) == Some(magic);
    let what = match known.iter().find(is) {
        Some((_, _, name)) => (*name).to_owned(),
        None => {
            let digits: Vec<String> = front.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            let is_text = front.iter().all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
            match is_text {
                true => {
                    format!("a text that begins {:?}", String::from_utf8_lossy(&front[..front.len().min(40)]))
                }
                false => format!("something that begins {}, or raw frames", digits.join(" ")),
            }
        }
    };
    StreamFault::Unknown { bytes: usize::try_from(bytes).unwrap_or(usize::MAX), what }
}
