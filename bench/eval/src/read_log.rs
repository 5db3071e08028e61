//! A log of each time that test photos are read: by what, for which bundle, and when.
//!
//! Test photos that choices are made on stop being test photos; the log shows how often they were used.

use std::{fs::OpenOptions, io::ErrorKind, path::Path};

use anyhow::{Context, Result, ensure};
use narrows_models::{Bundle, Digest};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// As `models/recipes/recipe/test_set_log.py` writes it.
const HEADER: &str = "read,reader,system,photos,sha256";

/// Appends to `log` that `reader` is about to run `bundle` on the photos of `tar`.
pub(crate) fn append_read(log: &Path, reader: &str, bundle: &Bundle, tar: &Path) -> Result<()> {
    let system = format!("{} {}", bundle.name(), bundle.digest().short());
    let photos = std::fs::read(tar).with_context(|| format!("{}: cannot be read", tar.display()))?;
    let name = tar.file_name().unwrap_or_default().to_string_lossy();
    append(log, [reader, &system, &name, &Digest::of(&photos).short()])
}

fn append(log: &Path, row: [&str; 4]) -> Result<()> {
    let context = || format!("{}: the log cannot be written", log.display());
    let before = match std::fs::read_to_string(log) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        text => text.map(Some).with_context(context)?,
    };
    let known = before.as_deref().is_none_or(|text| text.lines().next() == Some(HEADER));
    ensure!(known, "{}: its first line is not `{HEADER}`: name another --log", log.display());
    let now = OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?;
    let file = OpenOptions::new().create(true).append(true).open(log).with_context(context)?;
    let mut writer = csv::Writer::from_writer(file);
    if before.is_none() {
        writer.write_record(HEADER.split(',')).with_context(context)?;
    }
    writer.write_record([now.as_str()].iter().chain(&row)).with_context(context)?;
    writer.flush().with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_read_appends_a_row_below_one_header() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("reads.csv");
        append(&log, ["narrows-bench evaluate", "lite2 0123456789ab", "photos, all.tar", "ba9876543210"])?;
        append(&log, ["narrows-bench evaluate", "other 0123456789ab", "photos.tar", "ba9876543210"])?;
        let text = std::fs::read_to_string(&log)?;
        assert_eq!(text.lines().next(), Some(HEADER));
        let rows = csv::Reader::from_path(&log)?.into_records().collect::<Result<Vec<_>, _>>()?;
        assert_eq!(rows.len(), 2);
        assert!(OffsetDateTime::parse(&rows[0][0], &Rfc3339).is_ok(), "{:?}", rows[0]);
        assert_eq!((&rows[0][3], &rows[1][2]), ("photos, all.tar", "other 0123456789ab"));
        Ok(())
    }

    #[test]
    fn a_table_with_another_header_is_left_alone() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("table.csv");
        std::fs::write(&log, "level,bytes\n0,7841\n")?;
        let error = append(&log, ["", "", "", ""]).expect_err("its header is another").to_string();
        assert!(error.contains("table.csv") && error.contains("--log"), "{error}");
        assert_eq!(std::fs::read_to_string(&log)?, "level,bytes\n0,7841\n");
        Ok(())
    }
}
