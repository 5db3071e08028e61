//! Deciding again on what a head recorded with `--decisions`.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use narrows_policy::{Entry, Replay};

/// Differences that are printed; all are counted.
const PRINTED: u64 = 20;
/// Longest line of a record, which has one frame or a state of many.
const LONGEST: u64 = 4 << 20;

/// Decides again on the records in `files`, in their order, and prints where this policy differs.
///
/// # Errors
/// For a file that cannot be read or is no record, and where a decision differs.
pub(super) fn replay(files: &[PathBuf]) -> Result<()> {
    let (mut replay, mut differences, mut missing) = (Replay::default(), 0, 0);
    let mut trips = Histogram::<u64>::new(3)?;
    let mut versions: Vec<String> = Vec::new();
    for path in files {
        let name = path.display();
        each_line(path, |number, line| {
            let place = || format!("{name}, line {number}");
            let entry: Entry = serde_json::from_str(line)
                .with_context(|| format!("{}: it was not written by narrows-head --decisions", place()))?;
            match &entry {
                Entry::State { version, .. } if !versions.contains(version) => versions.push(version.clone()),
                Entry::Gap { entries } => missing += entries,
                Entry::Delivered { at, sent, .. } => {
                    trips.record(at.saturating_sub(*sent).as_micros() as u64)?;
                }
                _ => {}
            }
            if let Some(difference) = replay.take(&entry).with_context(place)? {
                differences += 1;
                if differences <= PRINTED {
                    println!("{}: {difference}", place());
                }
            }
            Ok(())
        })?;
    }
    if differences > PRINTED {
        println!("… and {} more", differences - PRINTED);
    }
    let decisions = replay.decisions();
    println!(
        "recorded by narrows-head {}, decided again by {}",
        versions.join(", "),
        env!("CARGO_PKG_VERSION")
    );
    if missing > 0 {
        println!(
            "{missing} entries are missing, which the disk did not take; what follows them up to the next state is left out"
        );
    }
    if !trips.is_empty() {
        let at = |quantile| trips.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "round trips of datagrams: shortest {:.1} ms, median {:.1} ms, 95th percentile {:.1} ms",
            trips.min() as f64 / 1e3,
            at(0.5),
            at(0.95)
        );
    }
    match (decisions, differences) {
        (0, _) => bail!("there is no decision in it"),
        (_, 0) => println!("{decisions} decisions, all the same"),
        _ => bail!("{differences} of {decisions} decisions differ"),
    }
    Ok(())
}

/// Calls `take` with each line of a file and its number. A last line without an end, which was being written, is left out.
fn each_line(path: &Path, mut take: impl FnMut(u64, &str) -> Result<()>) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut reader = BufReader::new(file);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        let read = std::io::Read::take(&mut reader, LONGEST).read_until(b'\n', &mut line);
        let read = read.with_context(|| path.display().to_string())?;
        if line.last() != Some(&b'\n') {
            if read as u64 == LONGEST {
                bail!("{}, line {number}: it is too long for a record", path.display());
            }
            return Ok(());
        }
        let text =
            std::str::from_utf8(&line).with_context(|| format!("{}, line {number}", path.display()))?;
        take(number, text)?;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_no_record_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        for (text, part) in [
            ("", "no decision"),
            ("{\"lost\":{\"bytes\":1}}\nhello\n", "line 2: it was not written by"),
            ("{\"lost\":{\"bytes\":1}}\n{\"half", "no decision"),
            ("{\"lost\":{\"bytes\":1,\"more\":2}}\n", "line 1"),
        ] {
            fs::write(&file, text).unwrap();
            let error = format!("{:#}", replay(std::slice::from_ref(&file)).unwrap_err());
            assert!(error.contains(part), "{text:?}: {error}");
        }
        fs::write(&file, vec![b'x'; LONGEST as usize]).unwrap();
        assert!(replay(std::slice::from_ref(&file)).unwrap_err().to_string().contains("too long"));
        assert!(format!("{:#}", replay(&[folder.path().join("gone")]).unwrap_err()).contains("gone"));
    }
}
