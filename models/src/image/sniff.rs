//! Names for files that are not read, by their first bytes.

/// First bytes, where they stand, and what begins so.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"GIF8", "a GIF image"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw image (RAF)"),
    (0, b"IIRO", "a camera's raw image (ORF)"),
    (0, b"IIRS", "a camera's raw image (ORF)"),
    (0, b"IIU\0", "a camera's raw image (RW2)"),
    (8, b"CR\x02", "a camera's raw image (CR2)"),
    (0, b"FOVb", "a camera's raw image (X3F)"),
    (0, b"\0MRM", "a camera's raw image (MRW)"),
    (0, b"II*\0", "a TIFF image, or a camera's raw image (DNG, NEF, ARW)"),
    (0, b"MM\0*", "a TIFF image, or a camera's raw image (DNG, NEF, ARW)"),
    (0, b"II+\0", "a TIFF image (BigTIFF)"),
    (0, b"MM\0+", "a TIFF image (BigTIFF)"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"gimp xcf", "a GIMP file"),
    (0, b"\0\0\x01\0", "an icon (ICO)"),
    (0, b"\0\0\x02\0", "a cursor (CUR)"),
    (0, b"qoif", "a QOI image"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (0, b"#?RADIANCE", "a Radiance HDR image"),
    (0, b"DDS ", "a DirectDraw surface"),
    (0, b"farbfeld", "a farbfeld image"),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
    (8, b"AVI ", "a video (AVI)"),
    (8, b"WAVE", "a sound (WAV)"),
    (0, b"YUV4MPEG2", "a video (Y4M)"),
    (0, b"\0\0\x01\xba", "a video (MPEG)"),
    (0, b"\0\0\x01\xb3", "a video (MPEG)"),
    (0, b"\0\0\0\x01\x67", "a video (H.264)"),
    (0, b"\0\0\0\x01\x40", "a video (H.265)"),
    (0, b"FLV\x01", "a video (FLV)"),
    (0, b"OggS", "a sound or video (Ogg)"),
    (4, b"moov", "a video (QuickTime)"),
    (4, b"mdat", "a video (QuickTime)"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x7fELF", "a program (ELF)"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"SQLite format 3", "an SQLite database"),
];

/// First words of texts in lower case, behind a byte order mark and white space, and what begins so.
const TEXTS: &[(&[u8], &str)] = &[
    (b"<!doctype html", "an HTML page, not an image"),
    (b"<html", "an HTML page, not an image"),
    (b"<head", "an HTML page, not an image"),
    (b"<body", "an HTML page, not an image"),
    (b"<svg", "an SVG drawing"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the image itself (`git lfs pull` fetches it)"),
    (b"http/", "an answer of a web server with its header"),
    (b"data:image/", "a data URL in Base64"),
    (b"/9j/", "an image in Base64"),
    (b"ivborw0kggo", "an image in Base64"),
    (b"{", "a JSON document"),
];

/// Images of the ISO base media file format and other files of it, by their brand.
const BRANDS: &[(&[u8], &str)] = &[
    (b"heic", "a HEIC image"),
    (b"heix", "a HEIC image"),
    (b"heim", "a HEIC image"),
    (b"heis", "a HEIC image"),
    (b"hevc", "a HEIC image"),
    (b"hevx", "a HEIC image"),
    (b"avif", "an AVIF image"),
    (b"avis", "an AVIF image"),
    (b"crx ", "a camera's raw image (CR3)"),
    (b"mif1", "a HEIF image"),
    (b"msf1", "a HEIF image"),
];

/// How many bytes of a text are looked at.
const TEXT: usize = 512;

/// Names what `file` is, as a noun with its article, where its first bytes tell.
pub(super) fn describe(file: &[u8]) -> Option<&'static str> {
    if file.get(4..8) == Some(b"ftyp") {
        return Some(media(file));
    }
    let signed = SIGNATURES.iter().find(|(at, signature, _)| {
        file.get(*at..at + signature.len()).is_some_and(|bytes| bytes == *signature)
    });
    if let Some((_, _, name)) = signed {
        return Some(name);
    }
    if let [b'P', b'1'..=b'7', b' ' | b'\t' | b'\r' | b'\n', ..] = file {
        return Some("a PNM image (PBM, PGM, PPM or PAM)");
    }
    if [0, 188, 376].into_iter().all(|at| file.get(at) == Some(&0x47)) {
        return Some("a video (MPEG transport stream)");
    }
    if file.iter().take(4096).all(|&byte| byte == 0) {
        return Some("a file of zeros, as it is left where writing it was interrupted");
    }
    text(file)
}

/// Names a file of the ISO base media file format by its major and its compatible brands.
fn media(file: &[u8]) -> &'static str {
    let length = u32::from_be_bytes([file[0], file[1], file[2], file[3]]) as usize;
    let brands = || file[..file.len().min(length)].get(8..).unwrap_or_default().chunks_exact(4);
    // The general brands of HEIF stand last: a more special one beside them says more.
    let known = BRANDS.iter().find(|(brand, _)| brands().any(|other| other == *brand));
    known.map_or("a video (MP4 or QuickTime)", |(_, name)| name)
}

fn text(file: &[u8]) -> Option<&'static str> {
    if file.starts_with(b"\xff\xfe") || file.starts_with(b"\xfe\xff") {
        return Some("a text (UTF-16)");
    }
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let start = file[..file.len().min(TEXT)].trim_ascii_start().to_ascii_lowercase();
    if let Some((_, name)) = TEXTS.iter().find(|(words, _)| start.starts_with(words)) {
        return Some(name);
    }
    if start.starts_with(b"<?xml") || start.starts_with(b"<!--") {
        let is_drawing = start.windows(4).any(|window| window == b"<svg");
        return Some(if is_drawing { "an SVG drawing" } else { "an XML document" });
    }
    // A cut character at the end is no reason to think that this is no text.
    let valid = std::str::from_utf8(&start).map_or_else(|error| error.valid_up_to(), str::len);
    let is_text = valid + 4 > start.len()
        && !start.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
    is_text.then_some("a text, not an image")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_formats_are_named() {
        for (file, name) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
            (b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf", "AVIF"),
            (b"\0\0\0\x14ftypisom\0\0\0\0mp42", "video"),
            (b"\0\0\0\x14ftypqt  ", "video"),
            (b"GIF89a", "GIF"),
            (b"II*\0\x10\0\0\0CR\x02\0", "CR2"),
            (b"MM\0*\0\0\0\x08", "TIFF"),
            (b"%PDF-1.7", "PDF"),
            (b"\n <!DOCTYPE HTML><html>", "HTML"),
            (b"<?xml version=\"1.0\"?>\n<!-- x -->\n<svg", "SVG"),
            (b"\xef\xbb\xbf<svg xmlns", "SVG"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
            (b"PK\x03\x04\x14", "ZIP"),
            (b"RIFF\x24\0\0\0AVI LIST", "AVI"),
            (b"P6\n4 4\n255\n", "PNM"),
            (b"\0\0\0\0\0\0", "zeros"),
            (b"404 not found", "text"),
            ("Größe und Maße".as_bytes(), "text"),
        ] {
            let found = describe(file);
            assert!(found.is_some_and(|found| found.contains(name)), "{name}: {found:?}");
        }
        assert_eq!(describe(&[7, 7, 7, 7]), None);
        assert_eq!(describe(&[0x92, 0x11, 0xfe, 0x01]), None);
    }

    #[test]
    fn no_prefix_of_a_file_panics() {
        let file = [&b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf"[..], &[0x47; 400]].concat();
        for keep in 0..file.len() {
            let _ = describe(&file[..keep]);
        }
    }
}
