//! The device alone: asked to be, without a server from the beginning, and after the server is gone.

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
use narrows_tests::{bundle, lines, photos, root, runtime, said};
use serde_json::Value;

const BAD_FLAG: i32 = 2;
const NO_SERVER: i32 = 6;

/// A head without server and identity.
fn alone() -> Command {
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
fn a_head_alone_answers_what_its_network_says() -> Result<()> {
    let output = alone().output()?;
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
fn a_head_alone_draws_what_it_saw() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = alone().arg("--out").arg(folder.path()).args(["--tasks", "classify"]).output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for line in lines(&output)? {
        let overlay = line["overlay"].as_str().context("a picture")?;
        assert!(Path::new(overlay).is_file() && line["unanswered"].is_null(), "{line}");
    }
    Ok(())
}

#[test]
fn a_task_that_the_device_cannot_answer_is_named() -> Result<()> {
    let output = alone().args(["--tasks", "segment"]).output()?;
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

/// A head whose server was there for its certificates and is gone.
fn orphan(tail: &mut Pair) -> Result<Command> {
    tail.kill()?;
    let mut command = tail.head(&bundle());
    command.args(["--retry-for", "1", "--source"]).arg(photos()).current_dir(root());
    Ok(command)
}

fn start() -> Result<Pair> {
    Pair::start(&bundle(), &["--device", "cpu", "--runtime", &runtime().display().to_string()])
}

#[test]
fn a_head_that_finds_no_server_answers_itself_and_says_why() -> Result<()> {
    let mut tail = start()?;
    let address = tail.address().to_owned();
    let output = orphan(&mut tail)?.output()?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for line in lines(&output)? {
        assert!(is_local(&line), "{line}");
        assert!(line["fallback"].as_str().is_some_and(|why| why.contains(&address)), "{line}");
        assert_eq!(line["unanswered"][0]["task"], "segment", "{line}");
    }
    for args in [&["--fallback", "never"][..], &["--tasks", "segment"]] {
        let output = orphan(&mut tail)?.args(args).output()?;
        assert_eq!(output.status.code(), Some(NO_SERVER), "{args:?}: {}", said(&output));
    }
    Ok(())
}

#[test]
fn a_head_that_loses_its_server_goes_on_alone() -> Result<()> {
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
    let alone: Vec<_> = seen.iter().filter(|line| line["path"] == "local").collect();
    assert!(!alone.is_empty() && alone.iter().all(|line| is_local(line) && line["fallback"].is_string()));
    Ok(())
}
