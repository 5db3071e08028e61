//! Arbitrary bytes as a stream of pictures: MJPEG or Y4M, and raw frames of a small format that the first byte chooses. However
//! they are cut into pieces, the same pictures come out, none beyond the limit, and every byte of a picture or between pictures
//! is accounted for.

use narrows_video::{Counts, Parser, Picture, RawFormat, StreamFault};

/// Most bytes of a picture. It is small, so that streams go beyond it.
pub const LIMIT: usize = 1 << 14;

/// The formats of raw frames.
const FORMATS: [&str; 4] = ["i420:6x4", "nv12:5x3+8,full", "i420:7x5+16,bt709", "nv12:1x1"];

/// What a stream held.
type Outcome = Result<(Vec<Picture>, Option<Picture>, Counts), StreamFault>;

fn read(raw: Option<RawFormat>, data: &[u8], size: usize) -> Outcome {
    let mut parser = Parser::new(raw, LIMIT);
    let mut pictures = Vec::new();
    for piece in data.chunks(size) {
        parser.push(piece, &mut |picture| pictures.push(picture))?;
    }
    let (last, counts) = parser.finish()?;
    Ok((pictures, last, counts))
}

/// Reads the bytes as a stream.
///
/// Returns whether pictures were found.
///
/// # Panics
/// When a promise about them is broken.
#[must_use]
pub fn run(data: &[u8]) -> bool {
    let known = FORMATS[usize::from(data.first().copied().unwrap_or(0)) % FORMATS.len()].parse();
    let mut found = false;
    for raw in [None, Some(known.expect("a format of raw frames"))] {
        let whole = read(raw, data, usize::MAX);
        for size in [1, 7, 1000] {
            let split = read(raw, data, size);
            assert_eq!(whole.is_ok(), split.is_ok());
            if let (Ok(whole), Ok(split)) = (&whole, &split) {
                assert_eq!(whole, split);
            }
        }
        let Ok((pictures, last, counts)) = whole else { continue };
        assert_eq!(counts.pictures, pictures.len() as u64);
        let mut jpegs = 0;
        for picture in &pictures {
            match picture {
                Picture::Jpeg(file) => {
                    assert!(file.starts_with(b"\xff\xd8\xff") && file.len() <= LIMIT);
                    jpegs += file.len() as u64;
                }
                Picture::Raw(frame) => {
                    let layout = frame.format().layout;
                    assert!(layout.size() <= LIMIT);
                    let pixels = layout.width() as usize * layout.height() as usize;
                    assert_eq!(frame.to_rgb().expect("a frame of its layout").len(), 3 * pixels);
                }
            }
        }
        if raw.is_none() && !data.starts_with(b"YUV4MPEG2") {
            let last = match &last {
                Some(Picture::Jpeg(file)) => file.len() as u64,
                _ => 0,
            };
            assert_eq!(jpegs + last + counts.skipped, data.len() as u64);
        }
        found |= raw.is_none() && !pictures.is_empty();
    }
    found
}
