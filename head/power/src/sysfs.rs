//! Small files of the kernel: one value each.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::Error;

/// No attribute is longer than a page.
const PAGE: u64 = 4096;

/// Opens hwmon and i2c attributes to a group; most kernels let everybody read them.
pub(crate) const HWMON: &str = "Let a group read the sensor, for example with a udev rule in /etc/udev/rules.d/70-power.rules: \
     SUBSYSTEM==\"hwmon\", RUN+=\"/bin/sh -c 'chgrp -R power /sys%p && chmod -R g+r /sys%p'\" \
     after `groupadd -f power && usermod -aG power $USER`; then log in again";

/// The text of an attribute, without its newline and the zero that ends device-tree strings.
pub(crate) fn text(path: &Path, remedy: &'static str) -> Result<String, Error> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(PAGE).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| Error::reading(path, source, remedy))?;
    Ok(text.trim_end_matches(['\0', '\n', ' ']).to_owned())
}

/// The text of an attribute that may be missing or unreadable.
pub(crate) fn maybe(path: &Path) -> Option<String> {
    text(path, "").ok().filter(|text| !text.is_empty())
}

/// The whole number in an attribute.
pub(crate) fn number(path: &Path, remedy: &'static str) -> Result<i64, Error> {
    let text = text(path, remedy)?;
    text.trim().parse().map_err(|_| Error::Malformed {
        place: path.display().to_string(),
        found: text.chars().take(40).collect(),
        wanted: "a whole number",
    })
}

/// The folders in `dir` whose names begin with `prefix`, in order; none if there is no such folder.
pub(crate) fn folders(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let named = |entry: fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)).then(|| entry.path())
    };
    let mut found: Vec<PathBuf> = entries.flatten().filter_map(named).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

/// Where a device sits: the last part of what its `device` link points to, such as `1-0040`.
pub(crate) fn place(folder: &Path) -> Option<String> {
    let target = fs::read_link(folder.join("device")).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}
