//! The configuration file of `narrows-tail serve`: how its keys stand for flags.

use narrows_service::{Layout, Section, Settings};

use crate::{Error, ErrorKind, engine};

/// How the keys of a file stand for flags.
pub const LAYOUT: Layout = Layout {
    sections: &[
        Section { name: "bundles", key: "folders", flag: "bundle" },
        Section { name: "oip", key: "http", flag: "oip-http" },
        Section::new("status", "listen"),
        Section::new("enrol", "listen"),
    ],
    tables: &[],
    own: &["devices"],
    secret: &[],
    rebase: |_, _, _| None,
};

/// What stands above the sample of a file.
pub const INTRO: &str = "\
Settings of narrows-tail, for `narrows-tail serve --config tail.toml`.

Every key is a flag of `narrows-tail serve` without its dashes in front, and a section is a prefix: `devices` in [status] \
is `--status-devices`. Some keys have other names: `folders` in [bundles] is `--bundle`, and `listen` in [status] and [enrol] is `--status` and `--enrol`. A flag that may be given several times takes a list. Flags on the command line count more than this file. Relative paths are relative to the folder of \
this file. Keys that stand in comments show the default, or where there is none what a value looks like.

`narrows-tail check --config tail.toml` tells what is wrong with it, without serving.";

/// What stands below the sample of a file: the section that is no prefix of flags.
pub const DEVICES: &str = "
# Rights and quotas of devices by the names in their certificates (docs/scheduling.md), in place of `devices`, which names a file of
# its own:
# [devices.default]
# priority = \"low\"
# [[devices.device]]
# name = \"cam-*\"
# frames_per_second = 10
";

/// The text of an error with all its sources, behind the place in the file where its cause stands.
#[must_use]
pub fn describe(settings: Option<&Settings>, error: &Error) -> String {
    let text = engine::chain(error);
    let flag = match (error, error.kind()) {
        (Error::UnreadDevices { .. } | Error::Devices { .. }, _) => "devices",
        (Error::Enrol(_) | Error::OtherAuthority { .. }, _) => "enrol-ca",
        (_, ErrorKind::Bundle) => "bundle",
        (_, ErrorKind::Identity) => "identity",
        (_, ErrorKind::Bind) => "listen",
        (_, ErrorKind::Runtime) => "runtime",
        (_, ErrorKind::Other) => return text,
    };
    placed(settings, flag, &text)
}

/// A text behind the place in the file where a flag is given; the text alone where the file does not give it.
#[must_use]
pub fn placed(settings: Option<&Settings>, flag: &str, text: &str) -> String {
    match settings.and_then(|settings| settings.place(flag, text)) {
        Some(place) => format!("{place}: {text}"),
        None => text.to_owned(),
    }
}
