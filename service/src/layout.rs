//! The few rules by which a file reads more naturally than a list of flags.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use clap::{Arg, ArgAction, Command};

/// How the keys of a file stand for flags.
///
/// A key is the name of a flag without its dashes in front. A section is a prefix: `user` in `[mqtt]` is `--mqtt-user`. What a
/// layout adds are names for two cases in which that rule has none.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Sections with a key for a flag that does not begin with the section's name and a dash.
    pub sections: &'static [Section],
    /// Flags that may be given as tables.
    pub tables: &'static [Tables],
    /// Sections that the program reads by itself.
    pub own: &'static [&'static str],
    /// Flags whose values no message repeats, since they may hold a secret.
    pub secret: &'static [&'static str],
    /// The value of a flag that holds a path in a form of its own, with the path made relative to a folder; `None` for flags
    /// and values that hold none. Flags of the type `PathBuf` need no such rule.
    pub rebase: fn(flag: &str, value: &OsStr, folder: &Path) -> Option<OsString>,
}

/// A section, and the key by which one flag is given there: with `Section::new("mqtt", "url")`, `url` in `[mqtt]` is `--mqtt`.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// The section.
    pub name: &'static str,
    /// The key.
    pub key: &'static str,
    /// The flag.
    pub flag: &'static str,
}

impl Section {
    /// A section whose key is for the flag of its name.
    #[must_use]
    pub const fn new(name: &'static str, key: &'static str) -> Section {
        Section { name, key, flag: name }
    }

    /// The key of a flag in this section, if it has one.
    pub(crate) fn key_of<'a>(&self, flag: &'a str) -> Option<&'a str> {
        if flag == self.flag {
            return Some(self.key);
        }
        flag.strip_prefix(self.name)?.strip_prefix('-')
    }
}

/// A flag that may be given several times, each as a table: `[[flag]]` with a name and a value is `--flag NAME=VALUE`.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// The flag.
    pub flag: &'static str,
    /// The key of the name, which may be left out.
    pub name: &'static str,
    /// The key of the value.
    pub value: &'static str,
}

impl Layout {
    /// The name of the flag that `key` in `section` stands for, whether there is such a flag or not.
    pub(crate) fn flag(&self, section: &str, key: &str) -> String {
        match self.sections.iter().find(|own| own.name == section) {
            _ if section.is_empty() => key.to_owned(),
            Some(own) if own.key == key => own.flag.to_owned(),
            _ => format!("{section}-{key}"),
        }
    }

    /// The key of a flag, with its section in front: `mqtt.user`.
    pub(crate) fn key(&self, flag: &str) -> String {
        let in_section = self.sections.iter().find_map(|own| Some((own.name, own.key_of(flag)?)));
        in_section.map_or_else(|| flag.to_owned(), |(section, key)| format!("{section}.{key}"))
    }

    /// Whether there is a section of this name.
    pub(crate) fn has_section(&self, name: &str) -> bool {
        self.sections.iter().any(|section| section.name == name)
    }

    /// The rule for tables of a flag.
    pub(crate) fn tables(&self, flag: &str) -> Option<&'static Tables> {
        self.tables.iter().find(|tables| tables.flag == flag)
    }
}

/// The flags of a command that a file may give, in the order of its help.
pub(crate) fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_key = |arg: &&Arg| {
        arg.get_long().is_some_and(|long| long != "config")
            && matches!(
                arg.get_action(),
                ArgAction::Set | ArgAction::Append | ArgAction::SetTrue | ArgAction::Count
            )
    };
    command.get_arguments().filter(is_key)
}

/// The flag `name` of a command.
pub(crate) fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    flags(command).find(|arg| arg.get_long() == Some(name))
}

/// What a flag may be given, and what it means.
pub(crate) fn form(arg: &Arg) -> String {
    let values = possible_values(arg);
    if !values.is_empty() {
        return values.join(", ");
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let end = [". ", "; ", ": ", " ["].iter().filter_map(|end| help.find(end)).min().unwrap_or(help.len());
    format!("{}: {}", value_name(arg), &help[..end])
}

/// What the value of a flag may be, such as `N` or `off|auto|0…1`.
pub(crate) fn value_name(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| "VALUE".to_owned(), |name| name.to_string())
}

/// The names of the values that a flag may have, where they are a list.
pub(crate) fn possible_values(arg: &Arg) -> Vec<String> {
    arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect()
}
