//! Streams as cameras write them, in pieces of every size, with what goes wrong on the way.

use narrows_video::{Colour, Counts, Layout, Parser, Picture, Raw, RawFormat, Sampling, StreamFault};
use proptest::prelude::*;

const LIMIT: usize = 1 << 20;

/// A JPEG file in its structure: an APP1 segment that holds another file, a frame header, and a scan of `length` bytes with
/// stuffed bytes and restart markers. `mark` tells it from others.
fn jpeg(mark: u8, length: usize) -> Vec<u8> {
    let mut file = b"\xff\xd8\xff\xe1\x00\x0c\xff\xd8\xff\xda\x00\x02\x11\x22\xff\xd9".to_vec();
    file.extend(b"\xff\xff\xc0\x00\x04\x00");
    file.push(mark);
    file.extend(b"\xff\xda\x00\x03\x01");
    for place in 0..length {
        match place % 7 {
            3 => file.extend(b"\xff\x00"),
            5 => file.extend(b"\xff\xd3"),
            _ => file.push((place % 200) as u8),
        }
    }
    file.extend(b"\xff\xd9");
    file
}

/// What came of a stream.
#[derive(Debug, PartialEq)]
struct Outcome {
    pictures: Vec<Picture>,
    last: Option<Picture>,
    counts: Counts,
}

fn read(raw: Option<RawFormat>, pieces: &[&[u8]]) -> Result<Outcome, StreamFault> {
    let mut parser = Parser::new(raw, LIMIT);
    let mut pictures = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut |picture| pictures.push(picture))?;
    }
    let (last, counts) = parser.finish()?;
    Ok(Outcome { pictures, last, counts })
}

fn jpegs(outcome: &Outcome) -> Vec<Vec<u8>> {
    let files = outcome.pictures.iter().map(|picture| match picture {
        Picture::Jpeg(file) => file.clone(),
        Picture::Raw(_) => panic!("not a JPEG"),
    });
    files.collect()
}

/// The outcome of a stream, which is the same wherever it is split in two and where it comes byte by byte.
fn read_split(raw: Option<RawFormat>, stream: &[u8]) -> Result<Outcome, StreamFault> {
    let whole = read(raw, &[stream]);
    for at in 0..=stream.len() {
        assert_eq!(read(raw, &[&stream[..at], &stream[at..]]), whole, "split at {at}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read(raw, &bytes), whole);
    whole
}

fn y4m(header: &str, frames: &[&[u8]]) -> Vec<u8> {
    let mut stream = format!("YUV4MPEG2 {header}\n").into_bytes();
    for frame in frames {
        stream.extend(b"FRAME\n");
        stream.extend(*frame);
    }
    stream
}

fn raw(text: &str) -> RawFormat {
    text.parse().expect("a format of raw frames")
}

#[test]
fn pictures_of_an_mjpeg_stream_are_found_wherever_it_is_split() {
    let files = [jpeg(1, 40), jpeg(2, 0), jpeg(3, 7)];
    let outcome = read_split(None, &files.concat()).unwrap();
    assert_eq!(jpegs(&outcome), files);
    assert_eq!(outcome.counts, Counts { pictures: 3, damaged: 0, skipped: 0 });
}

#[test]
fn what_lies_between_pictures_is_skipped_and_counted() {
    let header = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 63\r\n\r\n";
    let (one, two) = (jpeg(1, 20), jpeg(2, 20));
    let stream = [&header[..], &one, b"\r\n", header, &two, b"\r\n--frame--\r\n\xff\xd8\x00"].concat();
    let outcome = read_split(None, &stream).unwrap();
    assert_eq!(jpegs(&outcome), [one.clone(), two.clone()]);
    assert_eq!(outcome.counts.skipped, (stream.len() - one.len() - two.len()) as u64);
    assert_eq!(outcome.counts.damaged, 0);
}

#[test]
fn a_picture_without_an_end_marker_is_delivered_when_the_next_one_begins_or_the_stream_ends() {
    let (one, two) = (jpeg(1, 20), jpeg(2, 20));
    let cut = one[..one.len() - 2].to_vec();
    let outcome = read_split(None, &[&cut[..], &two, &cut].concat()).unwrap();
    assert_eq!(jpegs(&outcome), [cut.clone(), two]);
    assert_eq!(outcome.last, Some(Picture::Jpeg(cut)));
}

#[test]
fn a_picture_that_is_cut_in_its_header_is_counted_and_the_next_one_found() {
    // What is taken for the length of the cut segment may be that of a longest one.
    let (one, two) = (jpeg(1, 20), jpeg(2, 70_000));
    for keep in 2..23 {
        let outcome = read(None, &[&one[..keep], &two, &two]).unwrap();
        let found = jpegs(&outcome);
        assert_eq!(found.last(), Some(&two), "{keep}");
        assert!(outcome.counts.damaged >= 1 || found.len() == 2, "{keep}: {outcome:?}");
        let bytes: usize = found.iter().map(Vec::len).sum();
        assert_eq!(outcome.counts.skipped as usize + bytes, keep + 2 * two.len(), "{keep}");
    }
    let outcome = read_split(None, &one[..10]).unwrap();
    assert_eq!(outcome.counts, Counts { pictures: 0, damaged: 1, skipped: 10 });
}

#[test]
fn a_picture_beyond_the_limit_is_given_up_and_the_next_one_found() {
    let (large, small) = (jpeg(1, LIMIT), jpeg(2, 100));
    let outcome = read(None, &[&large, &small]).unwrap();
    assert_eq!(jpegs(&outcome), std::slice::from_ref(&small));
    assert_eq!(outcome.counts, Counts { pictures: 1, damaged: 1, skipped: large.len() as u64 });
}

#[test]
fn a_header_beyond_the_limit_is_given_up_with_its_last_segment_wherever_it_is_split() {
    let mut stream = b"\xff\xd8".to_vec();
    let end = LIMIT - 1;
    while stream.len() < end {
        let length = (end - stream.len() - 2).min(60_000);
        stream.extend(b"\xff\xe1");
        stream.extend((length as u16).to_be_bytes());
        stream.resize(stream.len() + length - 2, 0);
    }
    let thumbnail = jpeg(1, 20);
    let place = end - thumbnail.len();
    stream[place..].copy_from_slice(&thumbnail);
    let picture = jpeg(2, 30);
    stream.extend(&picture);
    let whole = read(None, &[&stream]).unwrap();
    assert_eq!((jpegs(&whole), whole.counts.damaged), (vec![picture], 1));
    for at in [place - 1, place, place + 3, end - 1, end, end + 1] {
        assert_eq!(read(None, &[&stream[..at], &stream[at..]]).unwrap(), whole, "split at {at}");
    }
}

#[test]
fn a_stream_of_something_else_is_named() {
    for (front, words) in [
        (&b"\0\0\0\x01\x67\x42"[..], "H.264"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"bash: rpicam: command not found\n", "a text that begins \"bash: rpicam"),
        (b"\x10\x20\x30", "begins 10 20 30"),
    ] {
        let error = read_split(None, front).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("i420:WxH"), "{error}");
        let mut parser = Parser::new(None, LIMIT);
        parser.push(front, &mut |_| panic!("no picture")).unwrap();
        parser.push(&vec![7; 2 << 20], &mut |_| panic!("no picture")).unwrap_err();
    }
    assert_eq!(read(None, &[]).unwrap().counts, Counts::default());
}

#[test]
fn frames_of_a_y4m_stream_are_found_wherever_it_is_split() {
    let frames: [&[u8]; 2] = [&[16, 32, 48, 64, 100, 200], &[1, 2, 3, 4, 5, 6]];
    let stream = y4m("W2 H2 F30:1 Ip A1:1 C420mpeg2 XYSCSS=420MPEG2 XCOLORRANGE=LIMITED", &frames);
    let stream = [&stream[..], b"FRAME Ip\n\x01\x02"].concat();
    let outcome = read_split(None, &stream).unwrap();
    let found: Vec<Picture> =
        frames.iter().map(|frame| Picture::Raw(Raw::new(raw("i420:2x2"), frame.to_vec()).unwrap())).collect();
    assert_eq!(outcome.pictures, found);
    assert_eq!(outcome.counts, Counts { pictures: 2, damaged: 1, skipped: 2 });
}

#[test]
fn the_tags_of_a_y4m_stream_choose_planes_and_range() {
    for (tags, size) in [
        ("W4 H2", 12),
        ("W4 H2 C420jpeg", 12),
        ("W4 H2 C420paldv Ip", 12),
        ("W4 H2 C422", 16),
        ("W4 H2 C444 XCOLORRANGE=FULL", 24),
        ("W4 H2 Cmono", 8),
        ("W3 H3", 9 + 4 + 4),
    ] {
        let outcome = read(None, &[&y4m(tags, &[&vec![128; size]])]).unwrap();
        assert_eq!(outcome.counts, Counts { pictures: 1, damaged: 0, skipped: 0 }, "{tags}");
        let Picture::Raw(frame) = &outcome.pictures[0] else { panic!("not raw") };
        assert_eq!(frame.format().colour.full_range, tags.contains("FULL"));
        let grey = if tags.contains("FULL") { 128 } else { 130 };
        assert!(frame.to_rgb().unwrap().iter().all(|&value| value == grey), "{tags}");
    }
}

#[test]
fn a_y4m_stream_that_is_not_read_is_refused_by_name() {
    for (header, words) in [
        ("W2 H2 It", "interlaced frames (It)"),
        ("W2 H2 C420p10", "\"420p10\""),
        ("W2 H2 C444alpha", "\"444alpha\""),
        ("W2", "no size"),
        ("W0 H2", "0x2"),
        ("W99999999999 H2", "no size"),
        ("W60000 H60000", "too large"),
        ("W2 H2 Cé", "é"),
    ] {
        let error = read_split(None, &y4m(header, &[&[0; 6]])).unwrap_err().to_string();
        assert!(error.starts_with("Y4M: ") && error.contains(words), "{header}: {error}");
    }
    let long = y4m(&"X".repeat(5000), &[]);
    assert!(read(None, &[&long]).unwrap_err().to_string().contains("more than 4096 bytes"));
    let lost = [&y4m("W2 H2", &[&[0; 6]])[..], b"\x01\x02FRAME\n"].concat();
    assert!(read(None, &[&lost]).unwrap_err().to_string().contains("bytes were lost"));
}

#[test]
fn raw_frames_have_padded_rows_and_a_rest() {
    let format = raw("i420:2x2+4");
    let frame = [10, 20, 0, 0, 30, 40, 0, 0, 128, 0, 128, 0];
    let outcome = read_split(Some(format), &[&frame[..], &frame, &frame[..5]].concat()).unwrap();
    let picture = Picture::Raw(Raw::new(format, frame.to_vec()).unwrap());
    assert_eq!(outcome.pictures, [picture.clone(), picture]);
    assert_eq!(outcome.counts, Counts { pictures: 2, damaged: 1, skipped: 5 });
}

#[test]
fn padding_is_not_seen_and_planes_are_taken_for_what_they_are() {
    // A colour in each quarter; padded rows and both orders of planes give the same pixels.
    let y = [[80, 80, 150, 150], [80, 80, 150, 150], [40, 40, 200, 200], [40, 40, 200, 200]];
    let (u, v) = ([[90, 160], [100, 128]], [[240, 100], [110, 128]]);
    let plane = |rows: &[&[u8]], stride: usize| {
        let padded = |row: &&[u8]| [row, &vec![7; stride - row.len()][..]].concat();
        rows.iter().flat_map(padded).collect::<Vec<u8>>()
    };
    let rgb = |format: &str, bytes: Vec<u8>| Raw::new(raw(format), bytes).unwrap().to_rgb().unwrap();
    let y_rows: Vec<&[u8]> = y.iter().map(|row| &row[..]).collect();
    let planar = |stride: usize| {
        let (u, v): (Vec<&[u8]>, Vec<&[u8]>) =
            (u.iter().map(|row| &row[..]).collect(), v.iter().map(|row| &row[..]).collect());
        [plane(&y_rows, stride), plane(&u, stride / 2), plane(&v, stride / 2)].concat()
    };
    let pairs = |stride: usize| {
        let rows: Vec<Vec<u8>> =
            u.iter().zip(&v).map(|(u, v)| u.iter().zip(v).flat_map(|(u, v)| [*u, *v]).collect()).collect();
        [plane(&y_rows, stride), plane(&rows.iter().map(|row| &row[..]).collect::<Vec<_>>(), stride)].concat()
    };
    let expected = rgb("i420:4x4", planar(4));
    assert_eq!(rgb("i420:4x4+64", planar(64)), expected);
    assert_eq!(rgb("nv12:4x4", pairs(4)), expected);
    assert_eq!(rgb("nv12:4x4+32", pairs(32)), expected);
    // Red is where v is large: BT.601, limited range, by its definition.
    let (y, u, v) = (80.0f64 - 16.0, 90.0 - 128.0, 240.0 - 128.0);
    let red = (1.164 * y + 1.596 * v).round().clamp(0.0, 255.0);
    let green = (1.164 * y - 0.392 * u - 0.813 * v).round().clamp(0.0, 255.0);
    let blue = (1.164 * y + 2.017 * u).round().clamp(0.0, 255.0);
    for (found, wanted) in expected[..3].iter().zip([red, green, blue]) {
        assert!((f64::from(*found) - wanted).abs() <= 2.0, "{:?} {red} {green} {blue}", &expected[..3]);
    }
    assert_ne!(rgb("i420:4x4,full", planar(4)), expected);
    assert_ne!(rgb("i420:4x4,bt709", planar(4)), expected);
}

#[test]
fn a_raw_format_says_what_is_wrong_with_it() {
    for (text, words) in [
        ("i421:2x2", "no format"),
        ("i420", "no format"),
        ("i420:2", "no size"),
        ("i420:-2x2", "no size"),
        ("i420:0x2", "0x2"),
        ("i420:640x480+x", "no usable stride"),
        ("i420:640x480+600", "at least the width, which is 640"),
        ("i420:640x480+99999", "a stride of 99999"),
        ("nv12:640x480,wide", "\"wide\""),
    ] {
        let error = text.parse::<RawFormat>().unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    let format = raw("nv12:5x3+6,full,bt709");
    assert_eq!(format.colour, Colour { full_range: true, bt709: true });
    assert_eq!(format.layout, Layout::new(Sampling::Nv12, 5, 3, 6).unwrap());
    assert_eq!(format.layout.size(), 6 * 3 + 6 * 2);
    assert!(Raw::new(format, vec![0; 31]).is_none());
    assert!("i420:60000x60000".parse::<RawFormat>().is_err());
    assert!(Parser::new(Some(raw("i420:2000x2000")), LIMIT).push(&[0], &mut |_| {}).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Every byte is in a picture or counted, however a stream is damaged and cut into pieces.
    #[test]
    fn every_byte_of_an_mjpeg_stream_is_accounted_for(
        parts in proptest::collection::vec((0u8..4, 0usize..60, any::<u8>()), 1..12),
        size in 1usize..90,
    ) {
        let mut stream = Vec::new();
        for (kind, length, byte) in parts {
            let file = jpeg(byte, length);
            match kind {
                0 => stream.extend(file),
                1 => stream.extend(&file[..length.min(file.len())]),
                2 => stream.extend(vec![byte; length]),
                _ => stream.extend([0xff, byte, 0xff, 0xd8]),
            }
        }
        if let Ok(outcome) = read(None, &stream.chunks(size).collect::<Vec<_>>()) {
            let last = outcome.last.iter().map(|last| match last { Picture::Jpeg(file) => file.len(), Picture::Raw(_) => 0 });
            let kept = jpegs(&outcome).iter().map(Vec::len).chain(last).sum::<usize>();
            prop_assert_eq!(kept as u64 + outcome.counts.skipped, stream.len() as u64);
            prop_assert_eq!(outcome.counts.pictures as usize, outcome.pictures.len());
        }
    }
}
