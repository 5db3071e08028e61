//! Display of text that comes from a peer, so that it cannot pass for a line of this side's log.

use std::fmt::{self, Write};

use crate::limits::MAX_TEXT;

/// Displays text from a peer in double quotes, with escapes in the notation of Rust's string literals.
///
/// Control characters, line breaks, terminal escape sequences, characters that change the direction of the text and
/// invisible characters are escaped, so the output is one line and shows what it holds. Bytes that are not UTF-8 become
/// `\xNN`. At most [`MAX_TEXT`] bytes of the text are shown; `…` after the closing quote says that more followed.
///
/// ```
/// use narrows_wire::text::Quoted;
///
/// assert_eq!(Quoted("full\n\x1b[31mINFO ok").to_string(), r#""full\n\u{1b}[31mINFO ok""#);
/// assert_eq!(Quoted(b"caf\xc3\xa9 \xff").to_string(), r#""café \xff""#);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a, T: ?Sized>(pub &'a T);

impl<T: AsRef<[u8]> + ?Sized> fmt::Display for Quoted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_ref();
        let shown = &bytes[..bytes.len().min(MAX_TEXT)];
        f.write_char('"')?;
        for chunk in shown.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    // Harmless between double quotes.
                    '\'' => f.write_char('\'')?,
                    other => write!(f, "{}", other.escape_debug())?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        f.write_char('"')?;
        if shown.len() < bytes.len() {
            f.write_char('…')?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_one_line_without_control_characters() {
        let every: String = (0..=0x10ffff).filter_map(char::from_u32).collect();
        for text in every.as_bytes().chunks(MAX_TEXT) {
            let quoted = Quoted(text).to_string();
            assert!(!quoted.chars().any(char::is_control), "{quoted}");
            assert!(
                !quoted.contains(['\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}', '\u{200f}', '\u{feff}'])
            );
        }
    }

    #[test]
    fn ordinary_text_is_shown_as_it_is() {
        assert_eq!(Quoted("it's full: größer als 3").to_string(), "\"it's full: größer als 3\"");
        assert_eq!(Quoted("").to_string(), "\"\"");
    }

    #[test]
    fn quotes_and_backslashes_cannot_end_the_quotation() {
        assert_eq!(Quoted(r#"a" \ b"#).to_string(), r#""a\" \\ b""#);
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        let quoted = Quoted(&[b'x'; MAX_TEXT + 1]).to_string();
        assert_eq!(quoted, format!("\"{}\"…", "x".repeat(MAX_TEXT)));
    }
}
