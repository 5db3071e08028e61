//! The flags of the spool.

use std::path::PathBuf;

use super::outputs::size;

/// Bytes of the spool unless others are given.
const BYTES: u64 = 1 << 30;
/// Least bytes of a spool: a frame of the largest size, and room to spare.
const LEAST: u64 = 8 << 20;
/// Age that frames may have unless another one is given.
const AGE_MS: u64 = 7 * DAY;
const DAY: u64 = 24 * 3600 * 1000;

/// What is dropped where there is no room for another frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SpoolDrop {
    /// The frame that has waited longest
    Oldest,
    /// The frame that comes
    Newest,
}

/// The bounds of a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// The folder.
    pub folder: PathBuf,
    /// Most bytes on disk.
    pub bytes: u64,
    /// Longest age of a frame, in milliseconds.
    pub age_ms: u64,
    /// What is dropped where there is no room.
    pub drop: SpoolDrop,
}

/// The flags of the spool, as given.
#[derive(Debug, Clone, clap::Args)]
pub struct SpoolFlags {
    /// Folder in which frames that no server answered wait until one is there (docs/spool.md); it is made if it is missing. One
    /// process may use it
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,

    /// Most bytes on disk, with K, M or G for powers of 1024 [default: 1G]
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "spool")]
    pub spool_bytes: Option<u64>,

    /// Age from which on a frame on disk is dropped, with s, m, h or d [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = age, requires = "spool")]
    pub spool_age: Option<u64>,

    /// What is dropped where there is no room for another frame [default: oldest]
    #[arg(long, value_name = "WHICH", value_enum, requires = "spool")]
    pub spool_drop: Option<SpoolDrop>,
}

impl SpoolFlags {
    /// The settings, if there is a spool.
    ///
    /// # Errors
    /// The flag whose value is out of range, and what it may be.
    pub(super) fn settings(&self) -> Result<Option<SpoolSettings>, crate::Error> {
        let Some(folder) = self.spool.clone() else { return Ok(None) };
        let bytes = self.spool_bytes.unwrap_or(BYTES);
        if bytes < LEAST {
            return Err(crate::Error::usage(
                "--spool-bytes",
                format!("{bytes} is too little; give at least 8M"),
            ));
        }
        let age_ms = self.spool_age.unwrap_or(AGE_MS);
        Ok(Some(SpoolSettings { folder, bytes, age_ms, drop: self.spool_drop.unwrap_or(SpoolDrop::Oldest) }))
    }
}

/// A duration in milliseconds, from 1 s to 10 years.
fn age(text: &str) -> Result<u64, String> {
    let unit = match text.as_bytes().last() {
        Some(b's') => 1000,
        Some(b'm') => 60_000,
        Some(b'h') => 3_600_000,
        Some(b'd') => DAY,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).and_then(|digits| digits.parse::<u64>().ok());
    let age = number.and_then(|number| number.checked_mul(unit));
    age.filter(|age| (1000..=3650 * DAY).contains(age))
        .ok_or_else(|| "give a time such as 90s, 30m, 12h or 7d, at most 3650d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_units() {
        assert_eq!(
            ["90s", "30m", "12h", "7d"].map(|text| age(text).unwrap()),
            [90_000, 1_800_000, 43_200_000, AGE_MS]
        );
        for text in ["", "7", "d", "0s", "-1d", "7w", "9999d", "99999999999999999999d", "7é"] {
            assert!(age(text).unwrap_err().contains("such as 90s"), "{text}");
        }
    }
}
