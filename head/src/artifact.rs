//! The mark by which the program knows the pictures that it has written.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// The kinds of pictures, as they stand before `.png` in their names.
pub(crate) const KINDS: [&str; 2] = ["overlay", "mask"];
/// Keyword and text of the PNG text chunk that every picture has.
pub(crate) const MARK: (&str, &str) = ("Software", "narrows-head");

/// Most bytes before the mark in a picture: its header and a palette.
const HEAD: u64 = 2048;
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Whether a file is a picture that this program wrote: named like one, and with its mark. A file that cannot be read is not.
pub(crate) fn is_own(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let is_named = KINDS.iter().any(|kind| name.ends_with(&format!(".{kind}.png")));
    // Opening anything else, such as a FIFO, could wait without end.
    is_named && path.is_file() && read_head(path).is_ok_and(|head| is_marked(&head))
}

fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}

/// Whether one of the chunks before the pixels is the mark.
fn is_marked(head: &[u8]) -> bool {
    let mark = [MARK.0.as_bytes(), b"\0", MARK.1.as_bytes()].concat();
    let Some(mut chunks) = head.strip_prefix(SIGNATURE) else { return false };
    while let Some((length, rest)) = chunks.split_first_chunk::<4>()
        && let Some((kind, rest)) = rest.split_first_chunk::<4>()
    {
        let length = u32::from_be_bytes(*length) as usize;
        match rest.get(..length) {
            _ if kind == b"IDAT" => return false,
            Some(text) if kind == b"tEXt" && text == mark => return true,
            Some(_) => chunks = rest.get(length + 4..).unwrap_or_default(),
            None => return false,
        }
    }
    false
}
