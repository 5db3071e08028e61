//! File names as text, without loss: what JSON lines, messages and logs show of a name that may be any bytes.

use std::{
    ffi::OsString,
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// Displays a path as text from which [`unescape`] gets its bytes back.
///
/// A backslash is written as `\\`. Bytes that are not UTF-8, control characters and characters that change the direction of
/// text are written as `\xNN` for each byte, with two hexadecimal digits. Everything else stands as it is.
///
/// ```
/// use std::path::Path;
///
/// use narrows_head::name::{Escaped, unescape};
///
/// assert_eq!(Escaped(Path::new("photos/Straße 1.jpg")).to_string(), "photos/Straße 1.jpg");
/// assert_eq!(Escaped(Path::new("a\nb\\c.jpg")).to_string(), r"a\x0ab\\c.jpg");
/// assert_eq!(unescape(r"a\x0ab\\c.jpg"), Path::new("a\nb\\c.jpg"));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a Path);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        };
        for chunk in self.0.as_os_str().as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => f.write_str(r"\\")?,
                    other if is_invisible(other) => escape(f, other.encode_utf8(&mut [0; 4]).as_bytes())?,
                    other => write!(f, "{other}")?,
                }
            }
            escape(f, chunk.invalid())?;
        }
        Ok(())
    }
}

/// The path that [`Escaped`] displayed as `text`. A backslash that begins no escape stands for itself.
#[must_use]
pub fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digit = |place: usize| after.get(place).and_then(|&digit| char::from(digit).to_digit(16));
        let (byte, length) = match (first, after.first()) {
            (b'\\', Some(b'\\')) => (first, 2),
            (b'\\', Some(b'x')) => match (digit(1), digit(2)) {
                (Some(high), Some(low)) => ((high * 16 + low) as u8, 4),
                _ => (first, 1),
            },
            _ => (first, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    OsString::from_vec(bytes).into()
}

/// Whether a character could hide or forge text around it: control characters, line separators, marks of direction.
fn is_invisible(character: char) -> bool {
    let mark = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    character.is_control() || mark
}

/// A path in JSON, as [`Escaped`] displays it, that may be absent.
pub(crate) mod escaped_option {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Escaped, unescape};

    pub(crate) fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => serializer.collect_str(&Escaped(path)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(|text| unescape(&text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_and_no_two_look_alike() {
        let mut seen = std::collections::HashSet::new();
        let parts: [&[u8]; 9] =
            [b"a", b"\\", b"x", b"ff", b"\xff", b"\xc3\xa9", b"\n", b"\xe2\x80\xae", b"\xed\xa0\x80"];
        for a in parts {
            for b in parts {
                for c in parts {
                    let path = PathBuf::from(OsString::from_vec([a, b, c].concat()));
                    let text = Escaped(&path).to_string();
                    assert_eq!(unescape(&text), path, "{text}");
                    assert!(!text.chars().any(is_invisible), "{text}");
                    seen.insert((text, path));
                }
            }
        }
        let texts: std::collections::HashSet<_> = seen.iter().map(|(text, _)| text).collect();
        assert_eq!(texts.len(), seen.len());
    }

    #[test]
    fn what_is_no_escape_stands_for_itself() {
        for text in [r"\", r"a\q", r"\x", r"\x1", r"\xg0"] {
            assert_eq!(unescape(text), PathBuf::from(text));
        }
    }
}
