//! The configuration file of `narrows-head run`: how its keys stand for flags, and where in it the cause of an error stands.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use narrows_service::{Layout, Section, Settings, Tables};

use crate::{Chain, Error, ErrorKind, source::Spec};

/// How the keys of a file stand for flags.
pub const LAYOUT: Layout = Layout {
    sections: &[
        Section::new("spool", "folder"),
        Section::new("mqtt", "url"),
        Section::new("webhook", "url"),
        Section::new("page", "listen"),
    ],
    tables: &[Tables { flag: "source", name: "name", value: "url" }],
    own: &[],
    // Addresses of cameras, brokers and webhooks may hold a password or a token.
    secret: &["source", "mqtt", "webhook"],
    rebase,
};

/// What stands above the sample of a file.
pub const INTRO: &str = "\
Settings of narrows-head, for `narrows-head run --config head.toml`.

Every key is a flag of `narrows-head run` without its dashes in front, and a section is a prefix: `user` in [mqtt] is \
`--mqtt-user`. The flags that are called like a section are `folder` in [spool], `url` in [mqtt] and [webhook] and `listen` \
in [page]. A flag that may be given several times takes a list. Flags on the command line count more than this file. Relative paths are relative to \
the folder of this file. Keys that stand in comments show the default, or where there is none what a value looks like.

`narrows-head check --config head.toml` tells what is wrong with it, without starting anything.";

/// The text of an error, behind the place in the file where its cause stands.
#[must_use]
pub fn describe(settings: Option<&Settings>, error: &Error) -> String {
    let text = Chain(error).to_string();
    let place = settings.zip(flag(error)).and_then(|(settings, flag)| settings.place(flag, &text));
    match (place, flag(error)) {
        (Some(place), Some(flag)) => {
            let front = format!("{flag}: ");
            format!("{place}: {}", text.strip_prefix(&front).unwrap_or(&text))
        }
        _ => text,
    }
}

/// The flag whose value an error is about.
fn flag(error: &Error) -> Option<&'static str> {
    match error {
        Error::Usage { flag, .. } => Some(flag),
        Error::Identity(_) => Some("--identity"),
        Error::Mismatch { .. } => None,
        error => match error.kind() {
            ErrorKind::Bundle => Some("--bundle"),
            ErrorKind::Source => Some("--source"),
            _ => None,
        },
    }
}

/// Makes the path in the value of a flag relative to a folder.
fn rebase(flag: &str, value: &OsStr, folder: &Path) -> Option<OsString> {
    match flag {
        "source" => Some(Spec::rebase(value, folder)),
        "webhook" => {
            let file = value.to_str()?.strip_prefix('@')?;
            let mut rebased = OsString::from("@");
            rebased.push(folder.join(file));
            Some(rebased)
        }
        _ => None,
    }
}
