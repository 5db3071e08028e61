//! Answers from this device alone: with --path local, when no server is found, and after the server is lost.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use narrows_eval::scores::argmax;
use narrows_head::{Local, load};
use narrows_models::{Bundle, Parts};
use narrows_pair::Pair;
use narrows_tests::{bundle, lines, photos, root, said, start};
use serde_json::Value;

const BAD_FLAG: i32 = 2;
const NO_SERVER: i32 = 6;
const DEVICE_FAILED: i32 = 7;

/// A head with --path local, which needs no server and no identity.
fn local_head() -> Command {
    let mut command = narrows_pair::head();
    command.args(["run", "--path", "local", "--bundle"]).arg(bundle());
    command.arg("--source").arg(photos()).current_dir(root()).stdin(Stdio::null());
    command
}

fn is_local(line: &Value) -> bool {
    line["status"] == "answered"
        && line["path"] == "local"
        && line["geometry"] == "local"
        && line["level"].is_null()
        && line["bytes"].is_null()
        && line["ms"]["head"].as_f64().is_some_and(|ms| ms > 0.0)
}

#[test]
fn a_local_head_gives_the_answers_of_its_network() -> Result<()> {
    let output = local_head().output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lines = lines(&output)?;
    assert!(lines.len() > 3);
    let mut local = Local::open(&Bundle::open(bundle(), Parts::Head)?)?;
    for line in &lines {
        assert!(is_local(line) && line["fallback"].is_null(), "{line}");
        let file = line["file"].as_str().context("a line names its file")?;
        let wanted = argmax(&local.answer(&load(Path::new(file))?)?.logits);
        assert_eq!(line["classify"][0]["index"], wanted, "{line}");
        assert_eq!(line["unanswered"][0]["task"], "segment", "{line}");
    }
    let labels: Vec<_> = lines.iter().map(|line| line["classify"][0]["label"].to_string()).collect();
    assert!(labels.iter().any(|label| label.contains("cat")), "no cat among {labels:?}");
    Ok(())
}

#[test]
fn a_local_head_draws_its_answers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = local_head().arg("--out").arg(folder.path()).args(["--tasks", "classify"]).output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for line in lines(&output)? {
        let overlay = line["overlay"].as_str().context("a picture")?;
        assert!(Path::new(overlay).is_file() && line["unanswered"].is_null(), "{line}");
    }
    Ok(())
}

#[test]
fn a_task_that_the_device_cannot_answer_is_named() -> Result<()> {
    let output = local_head().args(["--tasks", "segment"]).output()?;
    assert_eq!(output.status.code(), Some(BAD_FLAG), "{}", said(&output));
    assert!(said(&output).contains("--path: ") && said(&output).contains("segment"), "{}", said(&output));
    Ok(())
}

#[test]
fn a_split_needs_a_server_and_an_identity() -> Result<()> {
    for (given, missing) in [([].as_slice(), "--server"), (&["--server", "tail:1"], "--identity")] {
        let mut command = narrows_pair::head();
        command.args(["run", "--bundle"]).arg(bundle()).arg("--source").arg(photos()).args(given);
        let output = command.output()?;
        assert_eq!(output.status.code(), Some(BAD_FLAG), "{}", said(&output));
        assert!(said(&output).contains(&format!("{missing}: ")), "{}", said(&output));
    }
    Ok(())
}

/// A head with valid certificates whose server is not running.
fn head_without_server(tail: &mut Pair) -> Result<Command> {
    tail.kill()?;
    let mut command = tail.head(&bundle());
    command.args(["--retry-for", "1", "--source"]).arg(photos()).current_dir(root());
    Ok(command)
}

#[test]
fn a_head_that_finds_no_server_answers_itself_and_says_why() -> Result<()> {
    let mut tail = start()?;
    let address = tail.address().to_owned();
    let output = head_without_server(&mut tail)?.output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for line in lines(&output)? {
        assert!(is_local(&line), "{line}");
        assert!(line["fallback"].as_str().is_some_and(|why| why.contains(&address)), "{line}");
        assert_eq!(line["unanswered"][0]["task"], "segment", "{line}");
    }
    for args in [&["--fallback", "never"][..], &["--tasks", "segment"]] {
        let output = head_without_server(&mut tail)?.args(args).output()?;
        assert_eq!(output.status.code(), Some(NO_SERVER), "{args:?}: {}", said(&output));
    }
    Ok(())
}

#[test]
fn a_head_that_finds_no_server_answers_photos_that_cannot_be_read_again() -> Result<()> {
    let mut tail = start()?;
    tail.kill()?;
    let folder = tempfile::tempdir()?;
    let fifo = folder.path().join("photos.fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status()?.success());
    let mut command = tail.head(&bundle());
    command.args(["--retry-for", "1", "--tasks", "classify", "--source"]).arg(&fifo).current_dir(root());
    let head = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    std::fs::copy(photos().join("orange.jpg"), &fifo)?;
    let output = head.wait_with_output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lines = lines(&output)?;
    assert!(lines.len() == 1 && is_local(&lines[0]) && lines[0]["fallback"].is_string(), "{lines:?}");
    Ok(())
}

#[test]
fn a_head_whose_lines_cannot_be_written_says_so_and_ends() -> Result<()> {
    let output = local_head().args(["--repeat", "0"]).stdout(std::fs::File::create("/dev/full")?).output()?;
    assert_eq!(output.status.code(), Some(DEVICE_FAILED), "{}", said(&output));
    assert!(said(&output).contains("cannot write standard output: "), "{}", said(&output));
    Ok(())
}

#[test]
fn a_head_that_loses_its_server_continues_on_this_device() -> Result<()> {
    let mut tail = start()?;
    let mut head = tail
        .head(&bundle())
        .args(["--tasks", "classify", "--repeat", "40", "--retry-for", "1", "--source"])
        .arg(photos())
        .current_dir(root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut reader = BufReader::new(head.stdout.take().context("the head has an output")?).lines();
    let mut seen = Vec::new();
    for line in reader.by_ref().take(10) {
        seen.push(serde_json::from_str::<Value>(&line?)?);
    }
    assert!(seen.iter().all(|line| line["path"] == "split"), "{seen:?}");
    tail.kill()?;
    for line in reader {
        seen.push(serde_json::from_str(&line?)?);
    }
    let output = head.wait_with_output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let frames: std::collections::BTreeSet<u64> =
        seen.iter().filter_map(|line| line["frame"].as_u64()).collect();
    let pictures = photos().read_dir()?.filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|kind| kind != "md"))
    });
    assert_eq!((frames.len(), seen.len()), (seen.len(), 40 * pictures.count()));
    let local: Vec<_> = seen.iter().filter(|line| line["path"] == "local").collect();
    assert!(!local.is_empty() && local.iter().all(|line| is_local(line) && line["fallback"].is_string()));
    Ok(())
}
