//! `--decisions` with the real head and tail, and `narrows-bench policy --replay` on what it recorded.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Result, ensure};
use narrows_netsim::{Rate, Relay, Shape};
use narrows_tests::{bundle, lines, photos, said, start};
use serde_json::Value;
use tempfile::TempDir;

/// Runs a head over a link of 400 kbit/s that records its decisions; returns the file, and what the run printed.
fn record(folder: &TempDir, args: &[&str]) -> Result<(PathBuf, Output)> {
    let pair = start()?;
    let delay = Duration::from_millis(10);
    let up = Shape { rate: Some(Rate::Fixed(400_000)), delay, ..Shape::default() };
    let down = Shape { delay, ..Shape::default() };
    let relay = Relay::with_shapes(up, down, pair.address().parse()?, 1)?;
    let file = folder.path().join("decisions.jsonl");
    let mut head = pair.head_to(&bundle(), &relay.address().to_string());
    head.args(["--level", "auto", "--tasks", "classify", "--source"]).arg(photos()).args(args);
    let output = head.arg("--decisions").arg(&file).output()?;
    pair.drain()?;
    Ok((file, output))
}

fn replay(files: &[&Path]) -> Result<Output> {
    Ok(narrows_pair::bench().args(["policy", "--replay"]).args(files).stdin(Stdio::null()).output()?)
}

fn entries(file: &Path) -> Result<Vec<Value>> {
    Ok(fs::read_to_string(file)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[test]
fn a_record_is_decided_again_the_same_and_other_observations_otherwise() -> Result<()> {
    let folder = TempDir::new()?;
    let (file, output) = record(&folder, &["--repeat", "8", "--budget", "1500", "--fallback", "never"])?;
    assert!(said(&output).contains("0 lost"), "{}", said(&output));
    let again = replay(&[&file])?;
    let text = String::from_utf8(again.stdout.clone())?;
    assert!(again.status.success() && text.contains("decisions, all the same"), "{text}{}", said(&again));

    // What was observed stands beside what was decided.
    let recorded = entries(&file)?;
    for kind in ["state", "captured", "decided", "encoded", "sent", "delivered", "answered"] {
        assert!(recorded.iter().any(|entry| entry[kind].is_object()), "{kind}");
    }
    let captured = recorded.iter().find(|entry| entry["captured"].is_object()).unwrap();
    assert!(captured["captured"]["frame"]["computed"].as_u64().unwrap() > 0, "{captured}");

    // Every delivery 200 ms later: that is a slower link, on which other things are decided.
    let other = folder.path().join("other.jsonl");
    let mut changed = String::new();
    for mut entry in recorded {
        if let Some(at) = entry["delivered"]["at"].as_u64() {
            entry["delivered"]["at"] = (at + 200_000_000).into();
        }
        changed += &format!("{entry}\n");
    }
    fs::write(&other, changed)?;
    let otherwise = replay(&[&other])?;
    let text = String::from_utf8(otherwise.stdout.clone())?;
    assert_eq!(otherwise.status.code(), Some(1), "{text}");
    assert!(text.contains("other.jsonl, line ") && text.contains("recorded: "), "{text}");
    assert!(said(&otherwise).contains("decisions differ"), "{}", said(&otherwise));
    Ok(())
}

#[test]
fn a_record_begins_anew_in_a_new_file_when_one_is_full() -> Result<()> {
    let folder = TempDir::new()?;
    let args = ["--repeat", "60", "--budget", "3000", "--fallback", "never", "--decisions-size", "64K"];
    let (file, output) = record(&folder, &args)?;
    ensure!(said(&output).contains("0 lost"), "{}", said(&output));
    let older = folder.path().join("decisions.jsonl.1");
    for file in [&older, &file] {
        let first = &entries(file)?[0];
        ensure!(first["state"].is_object(), "{}: {first}", file.display());
    }
    for files in [vec![file.as_path()], vec![older.as_path(), file.as_path()]] {
        let again = replay(&files)?;
        ensure!(again.status.success(), "{}{}", String::from_utf8_lossy(&again.stdout), said(&again));
    }
    Ok(())
}

#[test]
fn early_exits_are_recorded_and_energy_is_told() -> Result<()> {
    let folder = TempDir::new()?;
    let args = ["--for", "energy", "--radio", "lte", "--computing-watts", "2", "--repeat", "8"];
    let (file, output) = record(&folder, &args)?;
    ensure!(output.status.success(), "{}", said(&output));
    for line in lines(&output)? {
        let joules = &line["joules"];
        let (computing, sending) =
            (joules["computing"].as_f64().unwrap(), joules["sending"].as_f64().unwrap());
        ensure!(computing > 0.0 && computing < 2.0, "{line}");
        // An answer of this device costs no bytes.
        ensure!((sending > 0.0) == (line["path"] == "split"), "{line}");
    }
    ensure!(said(&output).contains("J modelled for each answer"), "{}", said(&output));
    let recorded = entries(&file)?;
    for kind in ["exit_tried", "stayed"] {
        ensure!(recorded.iter().any(|entry| entry[kind].is_object()), "{kind}");
    }
    let again = replay(&[&file])?;
    ensure!(again.status.success(), "{}{}", String::from_utf8_lossy(&again.stdout), said(&again));
    Ok(())
}

#[test]
fn a_record_that_cannot_be_kept_costs_no_frame() -> Result<()> {
    let (folder, pair) = (TempDir::new()?, start()?);
    let mut head = pair.head(&bundle());
    head.args([
        "--level",
        "auto",
        "--tasks",
        "classify",
        "--lines",
        "none",
        "--fallback",
        "never",
        "--source",
    ]);
    head.arg(photos()).arg("--decisions").arg(folder.path().join("decisions.jsonl"));
    let words: Vec<String> = std::iter::once(head.get_program())
        .chain(head.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    // No file may grow beyond 1 KiB.
    let script = format!("ulimit -f 1; exec {}", words.join(" "));
    let output = Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).output()?;
    pair.drain()?;
    ensure!(output.status.success(), "{}", said(&output));
    let said = said(&output);
    ensure!(
        said.contains("5 frames: 5 answered") && said.contains("cannot be written: File too large"),
        "{said}"
    );
    ensure!(!said.contains(", 0 lost"), "{said}");
    Ok(())
}

#[test]
fn what_cannot_be_recorded_or_saved_is_named() -> Result<()> {
    let folder = TempDir::new()?;
    let local = ["--path", "local", "--tasks", "classify"];
    let place = folder.path().display().to_string();
    for (args, part) in [
        (["--decisions", "x"].as_slice(), "--decisions: nothing is decided"),
        (&["--decisions-size", "1M"], "--decisions <FILE>"),
        (&["--for", "energy"], "--for: only --path split --level auto has it"),
        (&["--radio", "lte"], "--radio: only --for energy has it"),
    ] {
        let mut head = narrows_pair::head();
        head.arg("run").arg("--bundle").arg(bundle()).arg("--source").arg(photos()).args(local).args(args);
        let output = head.output()?;
        ensure!(output.status.code() == Some(2) && said(&output).contains(part), "{}", said(&output));
    }
    let mut head = narrows_pair::head();
    head.arg("run").arg("--bundle").arg(bundle()).arg("--source").arg(photos()).args(local);
    let output = head.args(["--exit", "off", "--gate", "auto", "--decisions", &place]).output()?;
    ensure!(!output.status.success() && said(&output).contains("no regular file"), "{}", said(&output));
    Ok(())
}
