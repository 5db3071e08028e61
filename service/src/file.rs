//! Reads small text files that a user names.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Largest file that is read.
const MOST: u64 = 1 << 20;

/// Reads a file of UTF-8 text with at most 1 MiB, so that a device node or a wrong file does not fill the memory.
///
/// # Errors
/// The file cannot be read, is larger, or is no UTF-8.
pub fn read_text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(file)?.take(MOST + 1).read_to_string(&mut text)?;
    match read as u64 <= MOST {
        true => Ok(text),
        false => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {MOST} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_and_one_that_is_no_text_are_refused() {
        let endless = read_text(Path::new("/dev/zero")).unwrap_err();
        assert!(endless.to_string().contains("more than 1048576 bytes"), "{endless}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("head.toml");
        for (content, is_read) in
            [(vec![b'#'; 1 << 20], true), (vec![b'#'; (1 << 20) + 1], false), (vec![0xff], false)]
        {
            std::fs::write(&file, &content).unwrap();
            assert_eq!(read_text(&file).is_ok(), is_read, "{} bytes", content.len());
        }
        assert!(read_text(folder.path()).is_err());
    }
}
