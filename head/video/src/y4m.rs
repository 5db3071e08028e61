//! YUV4MPEG2: a line that describes the stream, and frames of raw planes, each behind a line of its own
//! (<https://wiki.multimedia.cx/index.php/YUV4MPEG2>).

use crate::{
    collector::Collector,
    counts::Counts,
    fault::StreamFault,
    raw::{Colour, Layout, Raw, RawFormat, Sampling},
};

/// The first bytes of a stream.
pub(crate) const MAGIC: &[u8] = b"YUV4MPEG2";
const FRAME: &[u8] = b"FRAME";
/// Most bytes of a line.
const LINE_MAX: usize = 4096;

/// Follows a Y4M stream.
#[derive(Debug, Default)]
pub(crate) struct Y4m {
    /// The format, behind the first line, and the bytes of one frame after the other.
    frames: Option<(RawFormat, Collector)>,
    line: Vec<u8>,
    /// Whether a frame is arriving, behind its line.
    in_frame: bool,
}

impl Y4m {
    /// Takes bytes and delivers the frames that they complete, each of at most `limit` bytes.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        limit: usize,
        counts: &mut Counts,
        deliver: &mut dyn FnMut(Raw),
    ) -> Result<(), StreamFault> {
        while !bytes.is_empty() {
            match &mut self.frames {
                Some((format, frame)) if self.in_frame => {
                    bytes = frame.take(bytes);
                    if let Some(frame) = frame.whole().and_then(|bytes| Raw::new(*format, bytes)) {
                        counts.pictures += 1;
                        self.in_frame = false;
                        deliver(frame);
                    }
                }
                _ => bytes = self.take_line(bytes, limit)?,
            }
        }
        Ok(())
    }

    /// Ends the stream, and counts a frame that has not arrived whole.
    pub(crate) fn finish(self, counts: &mut Counts) {
        let rest = self.line.len() + self.frames.as_ref().map_or(0, |(_, frame)| frame.len());
        counts.damaged += u64::from(self.frames.is_some() && (self.in_frame || rest > 0));
        counts.skipped += rest as u64;
    }

    /// Takes bytes up to the end of a line, and what the line says once it is whole; returns the bytes behind it.
    fn take_line<'a>(&mut self, bytes: &'a [u8], limit: usize) -> Result<&'a [u8], StreamFault> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        if self.line.len() + part.len() > LINE_MAX {
            return Err(StreamFault::Y4m(format!("a header of more than {LINE_MAX} bytes")));
        }
        self.line.extend_from_slice(part);
        let Some(end) = end else { return Ok(&[]) };
        let line = std::mem::take(&mut self.line);
        match self.frames {
            None => {
                let format = stream_format(&line)?;
                if format.layout.size() > limit {
                    let (width, height) = (format.layout.width(), format.layout.height());
                    return Err(StreamFault::Y4m(format!("frames of {width}x{height} are too large")));
                }
                self.frames = Some((format, Collector::new(format.layout.size())));
            }
            Some(_) => {
                if line.strip_prefix(FRAME).is_none_or(|rest| !rest.is_empty() && rest[0] != b' ') {
                    return Err(StreamFault::Y4m(
                        "a frame does not begin with FRAME: bytes were lost".into(),
                    ));
                }
                self.in_frame = true;
            }
        }
        Ok(&bytes[end + 1..])
    }
}

/// The format that the first line of a stream describes.
fn stream_format(line: &[u8]) -> Result<RawFormat, StreamFault> {
    let fault = |text: String| Err(StreamFault::Y4m(text));
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    if words.next().map(str::as_bytes) != Some(MAGIC) {
        return fault("the first line does not begin with YUV4MPEG2".into());
    }
    let (mut width, mut height) = (None, None);
    let (mut sampling, mut colour) = (Sampling::I420, Colour::default());
    for word in words.filter(|word| !word.is_empty()) {
        // A character of the first word is never cut: it is replaced as a whole where it is not ASCII.
        let mut characters = word.chars();
        let (tag, value) = (characters.next().unwrap_or_default(), characters.as_str());
        match tag {
            'W' => width = value.parse().ok(),
            'H' => height = value.parse().ok(),
            'I' if matches!(value, "t" | "b" | "m") => {
                return fault(format!("interlaced frames (I{value}); have the program deinterlace them"));
            }
            'C' => {
                sampling = match value {
                    "420" | "420jpeg" | "420mpeg2" | "420paldv" => Sampling::I420,
                    "422" => Sampling::I422,
                    "444" => Sampling::I444,
                    "mono" => Sampling::Grey,
                    _ => {
                        return fault(format!(
                            "frames of {:?}; 420, 420jpeg, 420mpeg2, 420paldv, 422, 444 and mono are read, with 8 bits \
                             (ffmpeg: -pix_fmt yuv420p)",
                            value.chars().take(32).collect::<String>()
                        ));
                    }
                };
            }
            'X' if value.eq_ignore_ascii_case("COLORRANGE=FULL") => colour.full_range = true,
            // The rate, the shape of a pixel, and what programs add for themselves.
            _ => {}
        }
    }
    let (Some(width), Some(height)) = (width, height) else {
        return fault("the first line gives no size".into());
    };
    let layout = Layout::new(sampling, width, height, width).map_err(|e| StreamFault::Y4m(e.to_string()))?;
    Ok(RawFormat { layout, colour })
}
