//! Patterns of names.

/// A name in which `*` stands for any characters, none included, and `?` for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// The form that it may have.
    pub(crate) fn parse(text: &str) -> Result<Pattern, String> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._*?".contains(&byte);
        let form = "1 to 63 characters of a-z 0-9 - . _ as in the names of certificates, and * and ? for any";
        match (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
            true => Ok(Pattern(text.into())),
            false => Err(format!("{text:?} is no pattern of names; give {form}")),
        }
    }

    /// Whether it is one name.
    pub(super) fn is_name(&self) -> bool {
        !self.0.iter().any(|byte| matches!(byte, b'*' | b'?'))
    }

    /// Whether a name fits. Upper case and lower case are the same, as in all names of hosts.
    pub(crate) fn fits(&self, name: &str) -> bool {
        let (pattern, name) = (&self.0, name.as_bytes());
        let (mut at, mut of) = (0, 0);
        // Where the last star was, and how much of the name was before what it stands for ends.
        let mut star = None;
        while of < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, of));
                    at += 1;
                }
                Some(byte) if *byte == b'?' || *byte == name[of].to_ascii_lowercase() => {
                    at += 1;
                    of += 1;
                }
                _ => match star {
                    None => return false,
                    Some((place, taken)) => {
                        star = Some((place, taken + 1));
                        (at, of) = (place + 1, taken + 1);
                    }
                },
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_any_characters() {
        let fits = |pattern: &str, name: &str| Pattern::parse(pattern).unwrap().fits(name);
        for (pattern, name) in [
            ("cam-1", "cam-1"),
            ("cam-*", "cam-"),
            ("cam-*", "Cam-garden"),
            ("*", "x"),
            ("*-?", "a-b-c"),
            ("a*b*c", "a-b-b-c"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("cam-1", "cam-12"), ("cam-?", "cam-"), ("*-a", "x-ab"), ("a*b*c", "acb")] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        for bad in ["", "cam 1", "Cam", "cam/1", "[a-z]"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
