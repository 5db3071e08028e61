//! Reads a configuration file into the flags that its keys stand for.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as _,
    ffi::{OsStr, OsString},
    ops::Range,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, Command, builder::ValueParser, error::ErrorKind};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use crate::{
    faults::{Fault, SettingsError},
    file::read_text,
    layout::{Layout, find, flags, form, value_name},
};

/// How alike an unknown key and a known one have to be to be taken for the same, from 0 to 1.
const ALIKE: f64 = 0.8;

/// The flags that a configuration file gives, and where each of them stands.
#[derive(Debug, Clone)]
pub struct Settings {
    file: PathBuf,
    /// The arguments that stand for the file.
    args: Vec<OsString>,
    /// Where the flags stand, by their names, in the order of their values.
    places: BTreeMap<String, Vec<Place>>,
    /// The sections that the program reads by itself, as they stand in the file.
    own: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
struct Place {
    line: usize,
    /// The key, and what was given.
    text: String,
    /// The value as the flag has it.
    value: OsString,
}

/// A file that is being read.
struct Reading<'a> {
    text: &'a str,
    folder: &'a Path,
    command: &'a Command,
    /// The same without flags that must be given.
    relaxed: Command,
    layout: &'a Layout,
    args: BTreeMap<String, Vec<OsString>>,
    places: BTreeMap<String, Vec<Place>>,
    own: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

type Table<'a> = DeTable<'a>;
type Value<'a> = Spanned<DeValue<'a>>;

impl Settings {
    /// Reads `file`, whose keys are the flags of `command`. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`SettingsError`] with everything that is wrong with the file: what is no TOML, keys that stand for no flag, and values
    /// that a flag cannot have.
    pub fn read(file: &Path, command: &Command, layout: &Layout) -> Result<Self, SettingsError> {
        let (settings, mut faults) = Settings::read_in_part(file, command, layout)?;
        if faults.is_empty() {
            return Ok(settings);
        }
        faults.sort();
        faults.dedup();
        Err(SettingsError::Content { file: file.to_owned(), faults })
    }

    /// Reads what can be used of `file`, as [`Settings::read`] does, and returns what is wrong with the rest.
    ///
    /// # Errors
    /// [`SettingsError::Read`].
    pub fn read_in_part(
        file: &Path,
        command: &Command,
        layout: &Layout,
    ) -> Result<(Self, Vec<Fault>), SettingsError> {
        let unread = |source| SettingsError::Read { file: file.to_owned(), source };
        let text = read_text(file).map_err(unread)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut reading = Reading {
            text: &text,
            folder,
            command,
            relaxed: relaxed(command),
            layout,
            args: BTreeMap::new(),
            places: BTreeMap::new(),
            own: BTreeMap::new(),
            faults: Vec::new(),
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        reading.table("", table.get_ref());
        if !errors.is_empty() {
            // What stands behind a fault in the syntax may be read wrongly, and its faults are none.
            reading.faults.clear();
        }
        for error in &errors {
            let message = error.message().replace('\n', ", ");
            reading.fault(error.span().unwrap_or_default(), message);
        }
        let Reading { args, places, own, faults, .. } = reading;
        let args = args.into_values().flatten().collect();
        Ok((Settings { file: file.to_owned(), args, places, own }, faults))
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Where a flag, named with or without its dashes, stands in the file and what was given: `head.toml:12: in-flight = 0`. Of
    /// several values it is the one that `message` quotes, else the first.
    #[must_use]
    pub fn place(&self, flag: &str, message: &str) -> Option<String> {
        let places = self.places.get(flag.trim_start_matches('-'))?;
        let is_quoted = |place: &&Place| {
            let value = place.value.to_string_lossy();
            let behind_name = value.split_once('=').map_or("", |(_, behind)| behind);
            [&value, behind_name].into_iter().any(|part| !part.is_empty() && message.contains(part))
        };
        let place = places.iter().find(is_quoted).or(places.first())?;
        Some(format!("{}:{}: {}", self.file.display(), place.line, place.text))
    }

    /// The value of a flag, the last one where there are several.
    #[must_use]
    pub fn value(&self, flag: &str) -> Option<&OsStr> {
        self.places.get(flag)?.last().map(|place| place.value.as_os_str())
    }

    /// How many flags and sections of the program's own the file gives.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.len() + self.own.len()
    }

    /// Whether the file has this section of the program's own.
    #[must_use]
    pub fn has_section(&self, name: &str) -> bool {
        self.own.contains_key(name)
    }

    /// The flags that the file gives.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// A fault at the place of a flag.
    pub(crate) fn fault(&self, flag: &str, reason: &str) -> Option<Fault> {
        let place = self.places.get(flag)?.first()?;
        Some(Fault { line: place.line, text: format!("{} {reason}", place.text) })
    }

    /// The names of the flags and of the program's own sections that two files give differently, or that only one of them gives.
    #[must_use]
    pub fn changes(&self, other: &Settings) -> Vec<String> {
        let values = |settings: &Settings, flag: &String| {
            let front = format!("--{flag}");
            let is_of = |arg: &&OsString| {
                let rest = arg.as_encoded_bytes().strip_prefix(front.as_bytes());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
            };
            settings.args.iter().filter(is_of).cloned().collect::<Vec<_>>()
        };
        let flags: BTreeSet<&String> = self.places.keys().chain(other.places.keys()).collect();
        let differs = |flag: &&String| values(self, flag) != values(other, flag);
        let sections: BTreeSet<&String> = self.own.keys().chain(other.own.keys()).collect();
        let changed = |name: &&String| self.own.get(*name) != other.own.get(*name);
        let sections = sections.into_iter().filter(changed);
        flags.into_iter().filter(differs).chain(sections).cloned().collect()
    }

    /// Leaves out a flag that was given in another way.
    pub(crate) fn remove(&mut self, flag: &str) {
        self.places.remove(flag);
        let (whole, front) = (format!("--{flag}"), format!("--{flag}="));
        self.args
            .retain(|arg| arg != OsStr::new(&whole) && !arg.as_encoded_bytes().starts_with(front.as_bytes()));
    }

    /// The arguments that stand for the file.
    pub(crate) fn args(&self) -> &[OsString] {
        &self.args
    }
}

impl Reading<'_> {
    /// Reads the keys of a section, or those above the first section.
    fn table(&mut self, section: &str, table: &Table<'_>) {
        for (key, value) in table {
            let flag = self.layout.flag(section, key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) if section.is_empty() && self.layout.own.contains(&flag.as_str()) => {
                    // Its values without their places, which change with every line above it.
                    let text = format!("{:?}", plain(inner));
                    self.own.insert(flag, text);
                }
                DeValue::Table(inner) => self.section(section, &flag, key, inner),
                DeValue::Array(values) if values.iter().any(|value| value.get_ref().is_table()) => {
                    for value in values.iter() {
                        self.entry(&flag, key, value);
                    }
                }
                _ => match find(self.command, &flag).cloned() {
                    Some(arg) => self.key(section, &arg, key, value),
                    None => self.unknown(section, key),
                },
            }
        }
    }

    /// Reads a section in `outer`; `name` is the front of the flags in it.
    fn section(&mut self, outer: &str, name: &str, key: &Spanned<DeString<'_>>, table: &Table<'_>) {
        let front = format!("{name}-");
        let is_front =
            flags(self.command).any(|arg| arg.get_long().is_some_and(|long| long.starts_with(&front)));
        if is_front || self.layout.has_section(name) {
            return self.table(name, table);
        }
        if self.layout.tables(name).is_some() {
            return self.fault(key.span(), format!("[{name}] is written with two brackets, [[{name}]]"));
        }
        self.unknown(outer, key);
    }

    /// Reads one table of a flag that may be given several times.
    fn entry(&mut self, flag: &str, key: &Spanned<DeString<'_>>, value: &Value<'_>) {
        let (Some(tables), Some(arg)) = (self.layout.tables(flag), find(self.command, flag).cloned()) else {
            return self.fault(key.span(), format!("{flag} is no list of tables"));
        };
        let Some(table) = value.get_ref().as_table() else {
            return self.fault(value.span(), format!("{flag} mixes tables and other values"));
        };
        let (mut name, mut found) = (None, None);
        for (key, value) in table {
            let slot = match key.get_ref() {
                known if known == tables.name => &mut name,
                known if known == tables.value => &mut found,
                other => {
                    let reason = format!(
                        "[[{flag}]] has no key {other:?}; it has {} and {}",
                        tables.name, tables.value
                    );
                    self.fault(key.span(), reason);
                    continue;
                }
            };
            match value.get_ref().as_str() {
                Some(text) => *slot = Some((text.to_owned(), value.span())),
                None => self.fault(value.span(), format!("{flag}.{} is no text in quotes", key.get_ref())),
            }
        }
        let Some((found, span)) = found else {
            return self.fault(value.span(), format!("[[{flag}]] lacks {}", tables.value));
        };
        let found = self.rebased(&arg, &found);
        let given = match name {
            Some((name, _)) => {
                let mut given = OsString::from(format!("{name}="));
                given.push(found);
                given
            }
            None => found,
        };
        self.give(&arg, &format!("{flag}.{}", tables.value), span, given);
    }

    /// Reads the value of a flag.
    fn key(&mut self, section: &str, arg: &Arg, key: &Spanned<DeString<'_>>, value: &Value<'_>) {
        let flag = arg.get_long().unwrap_or_default().to_owned();
        let label = label(section, key.get_ref());
        let line = self.line(key.span().start);
        if let Some(place) = self.places.get(&flag).and_then(|places| places.first()) {
            let reason = format!("{label} stands for --{flag}, which line {} gives already", place.line);
            return self.fault(key.span(), reason);
        }
        let shown = match self.layout.secret.contains(&flag.as_str()) {
            true => "…".to_owned(),
            false => self.text.get(value.span()).unwrap_or_default().to_owned(),
        };
        let text = format!("{label} = {shown}");
        if matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Count) {
            self.places
                .insert(flag.clone(), vec![Place { line, text: text.clone(), value: OsString::new() }]);
        }
        match (arg.get_action(), value.get_ref()) {
            (ArgAction::SetTrue, DeValue::Boolean(given)) => {
                if *given {
                    self.args.entry(flag.clone()).or_default().push(format!("--{flag}").into());
                }
            }
            (ArgAction::SetTrue, _) => {
                self.fault(key.span(), format!("{text} cannot be used; give true or false"));
            }
            (ArgAction::Count, DeValue::Integer(number)) => match number.as_str().parse::<u8>() {
                Ok(count) => {
                    let times = (0..count).map(|_| format!("--{flag}").into());
                    self.args.entry(flag.clone()).or_default().extend(times);
                }
                Err(_) => self.fault(key.span(), format!("{text} cannot be used; give 0 to 255")),
            },
            (ArgAction::Append, DeValue::Array(values)) => {
                for value in values.iter() {
                    self.scalar(arg, &label, key, value);
                }
            }
            _ => self.scalar(arg, &label, key, value),
        }
    }

    /// Reads one value of a flag that takes a text.
    fn scalar(&mut self, arg: &Arg, label: &str, key: &Spanned<DeString<'_>>, value: &Value<'_>) {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            // In decimal digits, whatever it was written in.
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| number.to_string(), |number| number.to_string()),
            DeValue::Float(number) => number.to_string(),
            _ => {
                let shown = self.text.get(value.span()).unwrap_or_default().replace('\n', " ");
                let list =
                    if matches!(arg.get_action(), ArgAction::Append) { ", or a list of them" } else { "" };
                let reason = format!("{label} = {shown} cannot be used; give {}{list}", form(arg));
                return self.fault(key.span(), reason);
            }
        };
        let given = self.rebased(arg, &text);
        self.give(arg, label, value.span(), given);
    }

    /// Gives a flag a value, where the flag may have it.
    fn give(&mut self, arg: &Arg, label: &str, span: Range<usize>, value: OsString) {
        let flag = arg.get_long().unwrap_or_default().to_owned();
        let mut given = OsString::from(format!("--{flag}="));
        given.push(&value);
        let line = self.line(span.start);
        let is_secret = self.layout.secret.contains(&flag.as_str());
        let shown = if is_secret { "…" } else { self.text.get(span.clone()).unwrap_or_default() };
        let text = format!("{label} = {shown}");
        let parsed = self.relaxed.clone().try_get_matches_from([&given]);
        // What else a flag needs is checked when all flags are together.
        let fault = parsed.err().filter(|error| {
            !matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict)
        });
        match fault {
            None => {
                self.places.entry(flag.clone()).or_default().push(Place { line, text, value });
                self.args.entry(flag).or_default().push(given);
            }
            Some(error) => {
                let reason = error.source().filter(|_| !is_secret).map(|source| format!(": {source}"));
                let text = format!("{text} cannot be used{}; give {}", reason.unwrap_or_default(), form(arg));
                self.fault(span, text);
            }
        }
    }

    /// A value in which a path is relative to the folder of the file.
    fn rebased(&self, arg: &Arg, value: &str) -> OsString {
        let flag = arg.get_long().unwrap_or_default();
        if let Some(rebased) = (self.layout.rebase)(flag, value.as_ref(), self.folder) {
            return rebased;
        }
        let is_path = arg.get_value_parser().type_id() == ValueParser::path_buf().type_id();
        // A word that the flag knows, as `none` of `-|none|FILE`, is no path.
        let is_word = value_name(arg).split('|').any(|word| word == value);
        match is_path && !is_word && !value.is_empty() {
            true => self.folder.join(value).into(),
            false => value.into(),
        }
    }

    /// A key that stands for no flag, with the nearest one that does.
    fn unknown(&mut self, section: &str, key: &Spanned<DeString<'_>>) {
        let name = key.get_ref().as_ref();
        let known = self.known(section);
        let mut hint = nearest(name, known.iter().map(String::as_str)).map(|near| format!("; is it {near}?"));
        if !section.is_empty() && find(self.command, name).is_some() {
            hint = Some(format!("; {name} belongs above the first section"));
        } else if hint.is_none() && !section.is_empty() {
            hint = Some(format!("; it has {}", known.join(", ")));
        } else if hint.is_none()
            && let Some((outer, inner)) = self.in_a_section(name)
        {
            hint = Some(format!("; is it {inner} in [{outer}]?"));
        }
        let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
        self.fault(key.span(), format!("there is no key {name:?}{place}{}", hint.unwrap_or_default()));
    }

    /// The keys of a section, or those above the first section and the sections.
    fn known(&self, section: &str) -> Vec<String> {
        let longs = flags(self.command).filter_map(|arg| arg.get_long());
        if section.is_empty() {
            return longs.map(str::to_owned).collect();
        }
        let front = format!("{section}-");
        let own = self.layout.sections.iter().find(|own| own.name == section);
        let key = |long| own.map_or_else(|| str::strip_prefix(long, &front), |own| own.key_of(long));
        longs.filter_map(key).map(str::to_owned).collect()
    }

    /// The section in which a key of this name is known.
    fn in_a_section(&self, name: &str) -> Option<(String, String)> {
        self.layout.sections.iter().find_map(|section| {
            let found = nearest(name, self.known(section.name).iter().map(String::as_str))?;
            Some((section.name.to_owned(), found.to_owned()))
        })
    }

    fn fault(&mut self, span: Range<usize>, text: String) {
        let line = self.line(span.start);
        self.faults.push(Fault { line, text });
    }

    /// The line of a place in the file, from 1 on.
    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at.min(self.text.len())).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// The values of a table, in the order of its keys.
fn plain(table: &Table<'_>) -> BTreeMap<String, String> {
    fn text(value: &DeValue<'_>) -> String {
        match value {
            DeValue::Table(table) => format!("{:?}", plain(table)),
            DeValue::Array(values) => {
                let values: Vec<String> = values.iter().map(|value| text(value.get_ref())).collect();
                format!("{values:?}")
            }
            value => format!("{value:?}"),
        }
    }
    table.iter().map(|(key, value)| (key.get_ref().to_string(), text(value.get_ref()))).collect()
}

/// The same command without flags that must be given.
pub(crate) fn relaxed(command: &Command) -> Command {
    command.clone().no_binary_name(true).mut_args(|arg| arg.required(false))
}

/// A key as TOML writes it with dots.
fn label(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// The name that is most like `name`, if one is.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let name = name.to_lowercase().replace('_', "-");
    let likeness = |other: &str| {
        strsim::jaro_winkler(&name, other).max(strsim::normalized_damerau_levenshtein(&name, other))
    };
    let scored = known.map(|other| (likeness(other), other));
    let (best, other) = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best >= ALIKE).then(|| other.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{Parser, ValueEnum};

    use super::*;
    use crate::{Section, Tables};

    #[derive(Parser)]
    struct Cli {
        /// Folder of the bundle
        #[arg(long, value_name = "DIR", required = true)]
        bundle: PathBuf,
        /// Where frames come from
        #[arg(long, value_name = "SOURCE", required = true)]
        source: Vec<OsString>,
        /// Where lines go
        #[arg(long, value_name = "-|none|FILE", default_value = "-")]
        lines: PathBuf,
        /// Frames between capture and answer; 1 finishes each first
        #[arg(long, value_name = "N", default_value_t = 4)]
        in_flight: usize,
        /// Most frames in a second
        #[arg(long, value_name = "N")]
        fps: Option<f64>,
        /// Which frames
        #[arg(long, value_name = "WHICH", value_enum, default_value_t = Which::Newest)]
        frames: Which,
        /// Broker
        #[arg(long, value_name = "URL")]
        mqtt: Option<String>,
        /// User name at the broker
        #[arg(long, value_name = "NAME", requires = "mqtt")]
        mqtt_user: Option<String>,
        /// Let others reach it
        #[arg(long)]
        remote: bool,
    }

    #[derive(Clone, Copy, ValueEnum)]
    enum Which {
        /// The newest
        Newest,
        /// Each
        Every,
    }

    const LAYOUT: Layout = Layout {
        sections: &[Section::new("mqtt", "url")],
        tables: &[Tables { flag: "source", name: "name", value: "url" }],
        own: &["rights"],
        secret: &["mqtt"],
        rebase: |flag, value, folder| (flag == "source" && value != "-").then(|| folder.join(value).into()),
    };

    fn read(text: &str) -> Result<Settings, SettingsError> {
        use clap::CommandFactory;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("head.toml");
        std::fs::write(&file, text).unwrap();
        let done = Settings::read(&file, &Cli::command(), &LAYOUT);
        let front = format!("{}/", folder.path().display());
        done.map(|settings| Settings {
            file: "head.toml".into(),
            args: settings
                .args
                .iter()
                .map(|arg| arg.to_str().unwrap().replace(&front, "FOLDER/").into())
                .collect(),
            ..settings
        })
        .map_err(|error| match error {
            SettingsError::Content { faults, .. } => {
                SettingsError::Content { file: "head.toml".into(), faults }
            }
            other => other,
        })
    }

    fn args(text: &str) -> Vec<String> {
        let mut args: Vec<String> =
            read(text).unwrap().args.iter().map(|arg| arg.to_str().unwrap().to_owned()).collect();
        args.sort();
        args
    }

    fn faults(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn every_key_is_a_flag_and_paths_are_relative_to_the_file() {
        let text = "bundle = 'lite2'\nlines = \"none\"\nin-flight = 0x10\nfps = 2.5\nremote = true\nframes = 'every'\n\
                    source = ['-', 'photos', '/a']\n[mqtt]\nurl = 'mqtt://b'\nuser = 'x'\n";
        assert_eq!(
            args(text),
            [
                "--bundle=FOLDER/lite2",
                "--fps=2.5",
                "--frames=every",
                "--in-flight=16",
                "--lines=none",
                "--mqtt-user=x",
                "--mqtt=mqtt://b",
                "--remote",
                "--source=-",
                "--source=/a",
                "--source=FOLDER/photos",
            ]
        );
        assert_eq!(
            args("remote = false\nmqtt-user = 'x'\nsource = 'a'"),
            ["--mqtt-user=x", "--source=FOLDER/a"]
        );
        assert_eq!(args(""), [""; 0]);
    }

    #[test]
    fn tables_of_a_flag_keep_their_order() {
        let text = "[[source]]\nname = 'yard'\nurl = 'z'\n[[source]]\nurl = 'a'\n";
        let settings = read(text).unwrap();
        assert_eq!(settings.args, ["--source=yard=FOLDER/z", "--source=FOLDER/a"]);
    }

    #[test]
    fn all_faults_are_told_with_line_key_value_and_form() {
        let text = "in_flight = 1\nfps = 'often'\nframes = 'all'\nremote = 1\nbundle = true\nsource = [1979-05-27]\n\
                    colour = 1\n[mqtt]\nurl = 'x'\nusr = 'y'\nbundle = 'z'\n[[source]]\n";
        // The last line is a second definition of `source`, which no TOML has.
        assert!(faults(text).starts_with("head.toml:12: "), "{}", faults(text));
        let text = text.replace("[[source]]\n", "");
        let expected = "\
head.toml:1: there is no key \"in_flight\"; is it in-flight?
head.toml:2: fps = 'often' cannot be used: invalid float literal; give N: Most frames in a second
head.toml:3: frames = 'all' cannot be used; give newest, every
head.toml:4: remote = 1 cannot be used; give true or false
head.toml:5: bundle = true cannot be used; give DIR: Folder of the bundle
head.toml:6: source = 1979-05-27 cannot be used; give SOURCE: Where frames come from, or a list of them
head.toml:7: there is no key \"colour\"
head.toml:10: there is no key \"usr\" in [mqtt]; is it user?
head.toml:11: there is no key \"bundle\" in [mqtt]; bundle belongs above the first section";
        assert_eq!(faults(&text), expected);
    }

    #[test]
    fn what_can_be_used_of_a_bad_file_is_read() {
        use clap::CommandFactory;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("head.toml");
        for text in ["in-flight = 3\nfps = 'x'\n", "in-flight = 3\nfps = \n", "in-flight = 3\n[mqtt\n"] {
            std::fs::write(&file, text).unwrap();
            let (settings, faults) = Settings::read_in_part(&file, &Cli::command(), &LAYOUT).unwrap();
            assert_eq!(settings.value("in-flight"), Some(OsStr::new("3")), "{text}");
            assert_eq!((faults.len(), faults[0].line), (1, 2), "{text}");
        }
    }

    #[test]
    fn a_flag_stands_in_one_place_and_secrets_are_not_shown() {
        let twice = faults("mqtt-user = 'a'\n[mqtt]\nuser = 'b'\n");
        assert!(twice.contains("--mqtt-user, which line ") && twice.lines().count() == 1, "{twice}");
        let settings = read("in-flight = 0\n[mqtt]\nurl = 'mqtt://secret'\n").unwrap();
        assert_eq!(settings.place("--in-flight", "").unwrap(), "head.toml:1: in-flight = 0");
        assert_eq!(settings.place("mqtt", "").unwrap(), "head.toml:3: mqtt.url = …");
        assert!(settings.place("--fps", "").is_none());
    }

    #[test]
    fn changes_are_named_by_their_flags() {
        let before = read("in-flight = 1\nfps = 2.0\nremote = true\nsource = ['a', 'b']\n").unwrap();
        let after =
            read("in-flight = 1\nfps = 3.0\nremote = false\nsource = ['b', 'a']\n[mqtt]\nuser = 'x'\n");
        assert_eq!(before.changes(&after.unwrap()), ["fps", "mqtt-user", "remote", "source"]);
        assert_eq!(before.changes(&before), [""; 0]);
        // A section of the program's own is compared as a whole, wherever it stands.
        let own = |text: &str| read(text).unwrap();
        let before = own("[rights]\na = 1\n[[rights.b]]\nc = 'x'\n");
        assert!(before.has_section("rights") && before.count() == 1);
        assert_eq!(before.changes(&own("# text\n\n[rights]\na = 1\n[[rights.b]]\nc = 'x'\n")), [""; 0]);
        assert_eq!(before.changes(&own("[rights]\na = 1\n[[rights.b]]\nc = 'y'\n")), ["rights"]);
        assert_eq!(before.changes(&own("")), ["rights"]);
    }

    #[test]
    fn sections_that_are_none_are_named() {
        for (text, part) in [
            ("[source]\nurl = 'x'\n", "two brackets, [[source]]"),
            ("[mqt]\nurl = 'x'\n", "\"mqt\"; is it mqtt?"),
            ("[[source]]\nname = 'x'\n", "lacks url"),
            ("[[source]]\nurl = 'x'\nfps = 3\n", "no key \"fps\"; it has name and url"),
            ("[[source]]\nurl = 3\n", "no text in quotes"),
            ("[[mqtt]]\nurl = 3\n", "mqtt is no list of tables"),
            ("user = 'x'\n", "is it user in [mqtt]?"),
            ("in-flight = [1, 2]\n", "give N: Frames between capture and answer"),
            ("in-flight = \n", "head.toml:1: "),
        ] {
            let text = faults(text);
            assert!(text.contains(part), "{text}");
        }
    }
}
