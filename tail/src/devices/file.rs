//! The sections of a TOML file that give rights to devices.
//!
//! ```toml
//! [default]                    # names without a section; `default = "none"` refuses them
//! priority = "low"
//!
//! [[device]]
//! name = "cam-*"
//! bundles = ["lite2"]
//! tasks = ["classify"]
//! images = false
//! priority = "high"
//! frames_per_second = 10
//! tail_ms_per_second = 200
//! burst_ms = 1000
//! connections = 2
//! token_sha256 = "9f86…0a08"    # of a token of clients without a certificate; the name is no pattern
//! ```

use std::{ops::Range, sync::Arc};

use narrows_models::Digest;
use serde::Deserialize;
use toml::Spanned;

use super::{Devices, Rights, Scope, pattern::Pattern};
use crate::engine::{Priority, Terms};

/// The bounds of quotas.
const FRAMES: (f64, f64) = (0.001, 1e6);
const TIME: (f64, f64) = (0.1, 1e6);
const BURST: (f64, f64) = (1.0, 3_600_000.0);
const CONNECTIONS: (i64, i64) = (1, 65_536);

/// The sections of a file as they stand in it: `default`, and any number of `device`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    /// The rights of names without a section, or `"none"`.
    default: Option<Spanned<toml::Value>>,
    /// The other sections.
    #[serde(default)]
    device: Vec<Spanned<DeviceTable>>,
}

/// A section as it stands in a file, with the places of its values.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceTable {
    name: Option<Spanned<String>>,
    bundles: Option<Spanned<Vec<String>>>,
    tasks: Option<Spanned<Vec<String>>>,
    images: Option<bool>,
    priority: Option<Spanned<String>>,
    frames_per_second: Option<Spanned<Number>>,
    tail_ms_per_second: Option<Spanned<Number>>,
    burst_ms: Option<Spanned<Number>>,
    connections: Option<Spanned<i64>>,
    token_sha256: Option<Spanned<String>>,
}

/// A number with or without a fraction.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(i64),
    Fraction(f64),
}

/// What is wrong with a section, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The key, what is wrong with its value, and the allowed form.
    pub reason: String,
}

impl Devices {
    /// Parses a file that holds nothing but these sections.
    ///
    /// # Errors
    /// The first [`Fault`].
    pub fn parse(text: &str) -> Result<Devices, Fault> {
        let sections: Sections = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        Devices::new(&sections, text, |text| {
            let table: DefaultOnly = toml::from_str(text)?;
            Ok(table.default)
        })
    }

    /// Parses the section `[devices]` of a file that has others as well.
    ///
    /// # Errors
    /// The first [`Fault`].
    pub fn parse_section(text: &str) -> Result<Devices, Fault> {
        let file: Section<Sections> = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        Devices::new(&file.devices, text, |text| {
            let file: Section<DefaultOnly> = toml::from_str(text)?;
            Ok(file.devices.default)
        })
    }

    /// The rights that sections of the file `text` give, in which `default` finds the default section.
    fn new(
        sections: &Sections,
        text: &str,
        default: impl Fn(&str) -> Result<DeviceTable, toml::de::Error>,
    ) -> Result<Devices, Fault> {
        let default = match &sections.default {
            None => Some(Arc::default()),
            Some(value) => default_rights(value, text, default)?,
        };
        let mut names: Vec<&str> = Vec::new();
        let mut parsed = Vec::new();
        let mut tokens = Vec::new();
        for section in &sections.device {
            let table = section.get_ref();
            let Some(name) = &table.name else {
                return Err(fault(text, section.span(), "[[device]] has no name; give name = \"cam-*\""));
            };
            let pattern = Pattern::parse(name.get_ref())
                .map_err(|reason| fault(text, name.span(), &format!("name: {reason}")))?;
            if names.contains(&name.get_ref().as_str()) {
                let reason = format!("name: {:?} has a section above, which counts", name.get_ref());
                return Err(fault(text, name.span(), &reason));
            }
            names.push(name.get_ref());
            if let Some(digest) = &table.token_sha256 {
                tokens.push((token(digest, &tokens, text)?, Arc::from(name.get_ref().as_str())));
                if !pattern.is_name() {
                    let reason = "token_sha256: a token is for one name; the section's is a pattern";
                    return Err(fault(text, digest.span(), reason));
                }
            }
            parsed.push((pattern, Arc::new(rights(table, text)?)));
        }
        Ok(Devices { sections: parsed, default, tokens })
    }
}

/// The rights of the default section; `None` for "none".
fn default_rights(
    value: &Spanned<toml::Value>,
    text: &str,
    find: impl Fn(&str) -> Result<DeviceTable, toml::de::Error>,
) -> Result<Option<Arc<Rights>>, Fault> {
    match value.get_ref() {
        toml::Value::String(word) if word == "none" => Ok(None),
        toml::Value::Table(_) => {
            // Read once more from the file, since a value does not know the places of its parts.
            let table = find(text).map_err(|error| syntax(text, &error))?;
            if let Some(digest) = &table.token_sha256 {
                return Err(fault(
                    text,
                    digest.span(),
                    "token_sha256: a token is for one name; give it a [[device]]",
                ));
            }
            if let Some(name) = &table.name {
                return Err(fault(
                    text,
                    name.span(),
                    "name: the default section is for names without a section",
                ));
            }
            rights(&table, text).map(|rights| Some(Arc::new(rights)))
        }
        _ => Err(fault(text, value.span(), "default: give \"none\", or a section [default]")),
    }
}

/// The digest of a token.
fn token(digest: &Spanned<String>, known: &[(Digest, Arc<str>)], text: &str) -> Result<Digest, Fault> {
    let bytes: Option<Vec<u8>> = (0..digest.get_ref().len())
        .step_by(2)
        .map(|at| digest.get_ref().get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let Some(bytes) = bytes.filter(|_| digest.get_ref().bytes().all(|byte| byte.is_ascii_hexdigit())) else {
        let reason = "token_sha256: give 64 hexadecimal digits: printf %s TOKEN | sha256sum";
        return Err(fault(text, digest.span(), reason));
    };
    let found = Digest::from(bytes);
    match known.iter().find(|(own, _)| *own == found) {
        Some((_, name)) => {
            Err(fault(text, digest.span(), &format!("token_sha256: the token is that of {name} above")))
        }
        None => Ok(found),
    }
}

/// The section `[devices]` of a file, whatever else is in it.
#[derive(Deserialize)]
struct Section<T> {
    devices: T,
}

/// The default section of a file, whatever else is in it.
#[derive(Deserialize)]
struct DefaultOnly {
    default: DeviceTable,
}

fn rights(table: &DeviceTable, text: &str) -> Result<Rights, Fault> {
    let number = |key: &str, value: &Option<Spanned<Number>>, (least, most): (f64, f64), unit: &str| {
        let Some(value) = value else { return Ok(None) };
        let given = match *value.get_ref() {
            Number::Whole(number) => number as f64,
            Number::Fraction(number) => number,
        };
        match (least..=most).contains(&given) {
            true => Ok(Some(given)),
            false => {
                let reason = format!("{key}: {given} is impossible; give {least} to {most} {unit}");
                Err(fault(text, value.span(), &reason))
            }
        }
    };
    let priority = match &table.priority {
        None => Priority::Normal,
        Some(word) => match word.get_ref().as_str() {
            "high" => Priority::High,
            "normal" => Priority::Normal,
            "low" => Priority::Low,
            other => {
                let reason =
                    format!("priority: {other:?} is no priority; give \"high\", \"normal\" or \"low\"");
                return Err(fault(text, word.span(), &reason));
            }
        },
    };
    let list = |key: &str, list: &Option<Spanned<Vec<String>>>| match list {
        Some(names) if names.get_ref().is_empty() || names.get_ref().iter().any(String::is_empty) => {
            let reason = format!("{key}: give at least one name, or leave the key out to allow all");
            Err(fault(text, names.span(), &reason))
        }
        list => Ok(list.as_ref().map(|names| names.get_ref().clone())),
    };
    let connections = match &table.connections {
        None => None,
        Some(count) => match usize::try_from(*count.get_ref()) {
            Ok(number) if (CONNECTIONS.0..=CONNECTIONS.1).contains(count.get_ref()) => Some(number),
            _ => {
                let (given, (least, most)) = (count.get_ref(), CONNECTIONS);
                let reason = format!("connections: {given} is impossible; give {least} to {most}");
                return Err(fault(text, count.span(), &reason));
            }
        },
    };
    let burst = number("burst_ms", &table.burst_ms, BURST, "milliseconds")?;
    let terms = Terms {
        priority,
        frames_per_second: number("frames_per_second", &table.frames_per_second, FRAMES, "frames a second")?,
        tail_ms_per_second: number(
            "tail_ms_per_second",
            &table.tail_ms_per_second,
            TIME,
            "milliseconds a second; 1000 keeps one worker busy",
        )?,
        burst_seconds: burst.map_or(1.0, |ms| ms / 1e3),
    };
    let (bundles, tasks) = (list("bundles", &table.bundles)?, list("tasks", &table.tasks)?);
    let scope = Scope { bundles, tasks, images: table.images.unwrap_or(true) };
    Ok(Rights { scope, connections, terms })
}

/// A fault of the file's form, as the parser words it.
fn syntax(text: &str, error: &toml::de::Error) -> Fault {
    let place = error.span().unwrap_or(0..0);
    let key = text.get(place.clone()).filter(|key| !key.contains('\n') && key.len() <= 40);
    let message = error.message().trim();
    let reason = match key {
        Some(key) if !key.is_empty() && !message.contains(key) => format!("{key}: {message}"),
        _ => message.to_owned(),
    };
    fault(text, place, &reason)
}

fn fault(text: &str, place: Range<usize>, reason: &str) -> Fault {
    let before = text.as_bytes().get(..place.start).unwrap_or(text.as_bytes());
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    Fault { line, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_section_that_fits_counts_and_others_have_the_default() {
        let text = "[default]\npriority = \"low\"\n\n[[device]]\nname = \"cam-1\"\nframes_per_second = 2.5\n\n\
                    [[device]]\nname = \"cam-*\"\nbundles = [\"lite2\"]\ntasks = [\"classify\"]\nimages = false\n\
                    priority = \"high\"\ntail_ms_per_second = 200\nburst_ms = 500\nconnections = 2\n";
        let devices = Devices::parse(text).unwrap();
        assert_eq!(devices.sections(), 2);
        let rights = |name: &str| devices.rights(name).unwrap();
        assert_eq!(rights("cam-1").terms, Terms { frames_per_second: Some(2.5), ..Terms::default() });
        let cam = rights("cam-2");
        assert_eq!((cam.terms.priority, cam.terms.tail_ms_per_second), (Priority::High, Some(200.0)));
        assert_eq!((cam.terms.burst_seconds, cam.connections), (0.5, Some(2)));
        assert!(!cam.scope.images && cam.scope.has_task("classify") && !cam.scope.has_task("segment"));
        assert!(cam.scope.has_bundle("lite2", "0123456789") && !cam.scope.has_bundle("lite3", "0123456789"));
        assert_eq!(rights("door").terms.priority, Priority::Low);
        assert_eq!(Devices::parse("").unwrap(), Devices::default());
        let closed = Devices::parse("default = \"none\"\n[[device]]\nname = \"a\"\n").unwrap();
        assert!(closed.rights("a").is_some() && closed.rights("b").is_none());
    }

    #[test]
    fn a_section_of_another_file_gives_the_same_rights() {
        let own = "[default]\npriority = \"low\"\n[[device]]\nname = \"cam-*\"\nconnections = 2\n";
        let section = "threads = 2\n[devices.default]\npriority = \"low\"\n[[devices.device]]\nname = \"cam-*\"\n\
                       connections = 2\n[status]\nlisten = \"[::1]:1\"\n";
        assert_eq!(Devices::parse_section(section).unwrap(), Devices::parse(own).unwrap());
        assert!(Devices::parse_section("[devices]\ndefault = \"none\"\n").unwrap().rights("a").is_none());
        for (text, line, word) in [
            ("x = 1\n[devices.default]\npriorty = \"low\"\n", 3, "priorty"),
            ("x = 1\n[[devices.device]]\nname = \"a\"\nframes_per_second = -1\n", 4, "0.001 to 1000000"),
            ("[devices]\ndefalt = \"none\"\n", 2, "defalt"),
        ] {
            let fault = Devices::parse_section(text).unwrap_err();
            assert!(fault.line == line && fault.reason.contains(word), "{text}: {fault}");
        }
    }

    #[test]
    fn a_token_is_that_of_one_name() {
        let section = |name: &str| {
            let digest = Digest::of(b"secret");
            format!("[[device]]\nname = \"{name}\"\ntoken_sha256 = \"{digest}\"\n")
        };
        let devices = Devices::parse(&section("lab")).unwrap();
        assert_eq!(devices.name_of("secret").as_deref(), Some("lab"));
        assert_eq!(devices.name_of("Secret"), None);
        let fault = Devices::parse(&section("lab-*")).unwrap_err();
        assert!(fault.line == 3 && fault.reason.contains("pattern"), "{fault}");
        let fault = Devices::parse(&(section("lab") + &section("other"))).unwrap_err();
        assert!(fault.line == 6 && fault.reason.contains("lab above"), "{fault}");
    }

    #[test]
    fn a_fault_names_line_key_and_form() {
        for (text, line, words) in [
            (
                "[[device]]\nname = \"a\"\nframes_per_second = 0\n",
                3,
                ["frames_per_second", "0.001 to 1000000"],
            ),
            ("[[device]]\nname = \"a\"\ntail_ms_per_second = -1.5\n", 3, ["tail_ms_per_second", "-1.5"]),
            ("[[device]]\nname = \"a\"\nburst_ms = nan\n", 3, ["burst_ms", "milliseconds"]),
            ("\n[[device]]\nname = \"A b\"\n", 3, ["name", "a-z 0-9"]),
            ("[[device]]\nname = \"a\"\n\n[[device]]\nname = \"a\"\n", 5, ["name", "above"]),
            ("[[device]]\npriority = \"low\"\n", 1, ["[[device]]", "name ="]),
            ("[[device]]\nname = \"a\"\npriority = \"urgent\"\n", 3, ["priority", "\"high\""]),
            ("[[device]]\nname = \"a\"\ncolour = 3\n", 3, ["colour", "frames_per_second"]),
            ("[[device]]\nname = \"a\"\nimages = \"yes\"\n", 3, ["yes", "boolean"]),
            ("[[device]]\nname = \"a\"\nconnections = 0\n", 3, ["connections", "1 to 65536"]),
            ("[[device]]\nname = \"a\"\nbundles = []\n", 3, ["bundles", "leave the key out"]),
            ("[[device]]\nname = \"a\"\ntoken_sha256 = \"12\"\n", 3, ["token_sha256", "sha256sum"]),
            ("[default]\ntoken_sha256 = \"12\"\n", 2, ["token_sha256", "[[device]]"]),
            ("default = 3\n", 1, ["default", "\"none\""]),
            ("[default]\nname = \"a\"\n", 2, ["name", "default section"]),
            ("[default]\npriorty = \"low\"\n", 2, ["priorty", "priority"]),
            ("[devices]\n", 1, ["devices", "device"]),
            ("[[device]\n", 1, ["", ""]),
        ] {
            let fault = Devices::parse(text).unwrap_err();
            assert_eq!(fault.line, line, "{text}: {fault}");
            assert!(words.iter().all(|word| fault.reason.contains(word)), "{text}: {fault}");
        }
    }
}
