//! Class names and colours (BUNDLE.md, section 7).

use crate::Error;

/// Longest name of a class, in bytes.
const NAME_MAX: usize = 256;
/// Most classes of a task; class indices are sent as u16.
const CLASSES_MAX: usize = 65_536;

/// One class of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Label {
    /// Name of the class.
    pub name: String,
    /// Colour of the class in a mask: red, green, blue.
    pub colour: Option<[u8; 3]>,
}

/// Parses the label file `part`, one class per line.
pub(crate) fn parse(part: &str, bytes: &[u8]) -> Result<Vec<Label>, Error> {
    let fail = |line, reason| Error::Label { part: part.to_owned(), line, reason };
    let text = std::str::from_utf8(bytes).map_err(|_| fail(1, "not UTF-8"))?;
    let mut labels = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (name, colour) = match line.split_once('\t') {
            Some((name, text)) => {
                (name, Some(colour(text).ok_or_else(|| fail(index + 1, "the colour is not #rrggbb"))?))
            }
            None => (line, None),
        };
        if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(fail(index + 1, "a name has 1 to 256 bytes and no control characters"));
        }
        if index == CLASSES_MAX {
            return Err(fail(index + 1, "more than 65536 classes"));
        }
        labels.push(Label { name: name.to_owned(), colour });
    }
    if labels.is_empty() {
        return Err(fail(1, "no classes"));
    }
    Ok(labels)
}

fn colour(text: &str) -> Option<[u8; 3]> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
    let value = digits.bytes().try_fold(0, |value, byte| Some(value << 4 | (byte as char).to_digit(16)?))?;
    let [_, red, green, blue] = u32::to_be_bytes(value);
    Some([red, green, blue])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_colours() {
        let labels = parse("l", b"sky\t#4682b4\nroad\n").expect("two classes");
        assert_eq!(labels[0], Label { name: "sky".into(), colour: Some([0x46, 0x82, 0xb4]) });
        assert_eq!(labels[1], Label { name: "road".into(), colour: None });
    }

    #[test]
    fn a_malformed_line_is_named() {
        for (bytes, line) in [
            (&b""[..], 1),
            (b"a\n\nb", 2),
            (b"a\tred", 1),
            (b"a\t#1234567", 1),
            (b"a\t#+12345", 1),
            (b"a\nb\x07", 2),
            (b"\xff", 1),
        ] {
            match parse("l", bytes) {
                Err(Error::Label { line: found, .. }) => assert_eq!(found, line, "{bytes:?}"),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }
}
