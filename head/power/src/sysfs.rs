//! Attributes of sysfs: small files with one value each.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::Error;

/// Longest attribute in bytes: a page.
const PAGE: u64 = 4096;

/// How to let a group read hwmon and i2c attributes; most kernels let everybody read them.
pub(crate) const HWMON: &str = "Let a group read the sensor, for example with a udev rule in /etc/udev/rules.d/70-power.rules: \
     SUBSYSTEM==\"hwmon\", RUN+=\"/bin/sh -c 'chgrp -R power /sys%p && chmod -R g+r /sys%p'\" \
     after `groupadd -f power && usermod -aG power $USER`; then log in again";

/// Reads the text of an attribute, without its newline and the zero that ends device-tree strings.
pub(crate) fn text(path: &Path, remedy: &'static str) -> Result<String, Error> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(PAGE).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| Error::reading(path, source, remedy))?;
    Ok(text.trim_end_matches(['\0', '\n', ' ']).to_owned())
}

/// Reads the text of an attribute; `None` if it is missing, unreadable or empty.
pub(crate) fn optional_text(path: &Path) -> Option<String> {
    text(path, "").ok().filter(|text| !text.is_empty())
}

/// Reads the whole number in an attribute.
pub(crate) fn number(path: &Path, remedy: &'static str) -> Result<i64, Error> {
    let text = text(path, remedy)?;
    text.trim().parse().map_err(|_| Error::Malformed {
        place: path.display().to_string(),
        found: text.chars().take(40).collect(),
        wanted: "a whole number",
    })
}

/// Returns the folders in `dir` whose names begin with `prefix`, sorted; none if `dir` does not exist.
pub(crate) fn folders(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let named = |entry: fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)).then(|| entry.path())
    };
    let mut found: Vec<PathBuf> = entries.flatten().filter_map(named).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

/// Returns the bus address of a device: the last part of the target of its `device` link, such as `1-0040`.
pub(crate) fn bus_address(folder: &Path) -> Option<String> {
    let target = fs::read_link(folder.join("device")).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}
