//! Broken input, and heads or tails that go away: the real binaries say what is wrong and what to do.
#![expect(clippy::disallowed_methods, reason = "what must end is given a bound")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use narrows_head::{Head, Local};
use narrows_models::{Bundle, Parts};
use narrows_tests::{bundle, changed_bundle, lines, photos, root, runtime, said, start};
use serde_json::Value;

/// Exit codes, as both binaries document them.
const SOME_UNANSWERED: i32 = 1;
const BAD_BUNDLE: i32 = 3;
const BAD_IDENTITY: i32 = 4;
const HEAD_BAD_SOURCE: i32 = 5;
const TAIL_NO_RUNTIME: i32 = 5;
const HEAD_NO_SERVER: i32 = 6;

#[test]
fn a_tampered_part_is_named_by_head_and_tail() -> Result<()> {
    let tampered = changed_bundle("tables.bin", false, |bytes| bytes[20] ^= 1)?;
    for output in [lone_head(tampered.path())?, lone_tail(tampered.path(), &runtime())?] {
        assert_fails(&output, BAD_BUNDLE, &["tables.bin", "SHA-256"]);
    }
    Ok(())
}

#[test]
fn garbage_networks_are_named_even_when_the_digests_hold() -> Result<()> {
    for garbage in [&b""[..], b"not a network", &[0xff; 4096]] {
        let broken = changed_bundle("head.onnx", true, |bytes| *bytes = garbage.to_vec())?;
        assert_fails(&lone_head(broken.path())?, BAD_BUNDLE, &["head.onnx"]);
        let broken = changed_bundle("tail-classify.onnx", true, |bytes| *bytes = garbage.to_vec())?;
        assert_fails(&lone_tail(broken.path(), &runtime())?, BAD_BUNDLE, &["tail-classify.onnx"]);
    }
    let broken = changed_bundle("head.onnx", true, |bytes| bytes.truncate(bytes.len() / 2))?;
    assert_fails(&lone_head(broken.path())?, BAD_BUNDLE, &["head.onnx"]);
    Ok(())
}

#[test]
fn garbage_tables_are_named_even_when_the_digests_hold() -> Result<()> {
    let broken = changed_bundle("tables.bin", true, |bytes| bytes.truncate(bytes.len() - 1))?;
    for output in [lone_head(broken.path())?, lone_tail(broken.path(), &runtime())?] {
        assert_fails(&output, BAD_BUNDLE, &["tables.bin"]);
    }
    Ok(())
}

#[test]
fn weights_outside_the_manifest_are_named_and_never_read() -> Result<()> {
    // A second graph (7), which parsers merge into the first, with an initializer (5) of name `w` (8) in `other.bin` (13).
    let tensor = b"\x08\x01\x10\x01\x42\x01w\x6a\x15\x0a\x08location\x12\x09other.bin\x70\x01";
    let initializer = [&[0x2a, tensor.len() as u8], &tensor[..]].concat();
    let graph = [&[0x3a, initializer.len() as u8], &initializer[..]].concat();
    for (part, tail) in [("tail-classify.onnx", true), ("head.onnx", false), ("local.onnx", false)] {
        let broken = changed_bundle(part, true, |bytes| bytes.extend(&graph))?;
        fs::write(broken.path().join("other.bin"), [0; 4])?;
        let output = if tail { lone_tail(broken.path(), &runtime())? } else { lone_head(broken.path())? };
        assert_fails(&output, BAD_BUNDLE, &[part, "`w`", "`other.bin`", "manifest"]);
    }
    Ok(())
}

#[test]
fn what_was_digested_is_what_a_head_loads() -> Result<()> {
    let copy = changed_bundle("CARD.md", true, |card| card.push(b'\n'))?;
    let opened = Bundle::open(copy.path(), Parts::Head)?;
    let local = opened.local().context("a local network")?.file.clone();
    for part in [opened.head().file.clone(), opened.tables().to_owned(), local] {
        fs::write(copy.path().join(part), "swapped")?;
    }
    Local::open(&opened)?;
    let head = Head::open(opened)?;
    assert!(head.bundle().read(&head.bundle().head().file).is_err(), "what is read later is compared again");
    Ok(())
}

#[test]
fn a_folder_that_is_no_bundle_is_named() -> Result<()> {
    let empty = tempfile::tempdir()?;
    for output in [lone_head(empty.path())?, lone_tail(empty.path(), &runtime())?] {
        assert_fails(&output, BAD_BUNDLE, &["manifest.toml", &empty.path().display().to_string()]);
    }
    Ok(())
}

#[test]
fn a_missing_runtime_is_named() -> Result<()> {
    let nowhere = Path::new("/nowhere/libonnxruntime.so");
    assert_fails(
        &lone_tail(&bundle(), nowhere)?,
        TAIL_NO_RUNTIME,
        &["/nowhere/libonnxruntime.so", "make runtime"],
    );
    let folder = tempfile::tempdir()?;
    let garbage = folder.path().join("libonnxruntime.so");
    fs::write(&garbage, "no library")?;
    assert_fails(&lone_tail(&bundle(), &garbage)?, TAIL_NO_RUNTIME, &["libonnxruntime.so"]);
    Ok(())
}

#[test]
fn cuda_that_is_not_there_is_an_error_and_never_the_cpu() -> Result<()> {
    let certs = certificates()?;
    let mut command = serve(&bundle(), &certs.path().join("server"), &runtime());
    let output = command.args(["--device", "cuda"]).output()?;
    // `make runtime` fetches the CPU build of ONNX Runtime, which supports CUDA on no machine.
    assert_fails(&output, TAIL_NO_RUNTIME, &["CUDA"]);
    Ok(())
}

#[test]
fn a_missing_identity_is_named() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let output = serve(&bundle(), empty.path(), &runtime()).output()?;
    assert_fails(&output, BAD_IDENTITY, &["ca.pem"]);
    let output = run(&bundle(), "127.0.0.1:9", empty.path(), &photos().join("cat.png")).output()?;
    assert_fails(&output, BAD_IDENTITY, &["ca.pem"]);
    Ok(())
}

#[test]
fn broken_images_are_named_and_the_good_one_is_answered() -> Result<()> {
    let pair = start()?;
    let folder = tempfile::tempdir()?;
    let cat = fs::read(photos().join("cat.png"))?;
    fs::write(folder.path().join("empty.png"), b"")?;
    fs::write(folder.path().join("garbage.jpg"), [7; 3000])?;
    fs::write(folder.path().join("truncated.png"), &cat[..cat.len() / 2])?;
    fs::write(folder.path().join("no-size.png"), no_size())?;
    fs::write(folder.path().join("good.png"), &cat)?;
    let output = pair.head(&bundle()).arg("--source").arg(folder.path()).output()?;
    assert_eq!(output.status.code(), Some(SOME_UNANSWERED), "{}", said(&output));
    let lines = lines(&output)?;
    assert_eq!(lines.len(), 5);
    for line in &lines {
        let file = line["file"].as_str().context("a line names its file")?;
        let wanted = if file.ends_with("good.png") { "answered" } else { "failed" };
        assert_eq!(line["status"], wanted, "{line}");
        assert!(wanted == "answered" || line["error"].as_str().is_some_and(|text| text.len() > 5), "{line}");
    }
    pair.drain()
}

#[test]
fn a_source_without_images_is_named() -> Result<()> {
    let certs = certificates()?;
    let identity = certs.path().join("devices/device");
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("notes.txt"), "no image")?;
    let nothing = folder.path().join("nothing.png");
    for source in [folder.path(), &folder.path().join("*.webp"), &nothing] {
        let output = run(&bundle(), "127.0.0.1:9", &identity, source).output()?;
        assert_fails(&output, HEAD_BAD_SOURCE, &[&source.display().to_string()]);
    }
    Ok(())
}

#[test]
fn a_server_that_is_not_there_is_named_in_bounded_time() -> Result<()> {
    let certs = certificates()?;
    let identity = certs.path().join("devices/device");
    let begin = Instant::now();
    let output = run(&bundle(), "127.0.0.1:9", &identity, &photos().join("cat.png")).output()?;
    assert_fails(&output, HEAD_NO_SERVER, &["127.0.0.1:9"]);
    assert!(begin.elapsed() < Duration::from_secs(60), "it took {:?}", begin.elapsed());
    let output = run(&bundle(), "no-such-host.invalid:9", &identity, &photos().join("cat.png")).output()?;
    assert_fails(&output, HEAD_NO_SERVER, &["no-such-host.invalid"]);
    Ok(())
}

#[test]
fn a_tail_killed_mid_run_leaves_no_frame_unaccounted() -> Result<()> {
    let mut pair = start()?;
    let mut head = pair
        .head(&bundle())
        .args(["--repeat", "1000", "--retry-for", "2", "--fallback", "never", "--source"])
        .arg(photos())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut reader = BufReader::new(head.stdout.take().context("the head's output")?).lines();
    let mut seen = Vec::new();
    for line in reader.by_ref().take(10) {
        seen.push(serde_json::from_str::<Value>(&line?)?);
    }
    assert!(seen.iter().all(|line| line["status"] == "answered"), "{seen:?}");
    pair.kill()?;
    let begin = Instant::now();
    for line in reader {
        seen.push(serde_json::from_str(&line?)?);
    }
    let output = head.wait_with_output()?;
    assert!(begin.elapsed() < Duration::from_secs(60), "it took {:?}", begin.elapsed());
    let code = output.status.code().context("the head was not killed")?;
    assert!(code == SOME_UNANSWERED || code == HEAD_NO_SERVER, "{code}: {}", said(&output));
    let failed: Vec<_> = seen.iter().filter(|line| line["status"] == "failed").collect();
    assert!(!failed.is_empty(), "no frame is reported without an answer");
    for line in failed {
        assert!(line["file"].is_string() && line["error"].is_string(), "{line}");
    }
    Ok(())
}

#[test]
fn a_draining_tail_answers_the_frames_it_accepted() -> Result<()> {
    let pair = start()?;
    let mut head = pair
        .head(&bundle())
        .args(["--repeat", "1000", "--retry-for", "1", "--fallback", "never", "--source"])
        .arg(photos())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut reader = BufReader::new(head.stdout.take().context("the head's output")?).lines();
    for line in reader.by_ref().take(5) {
        assert_eq!(serde_json::from_str::<Value>(&line?)?["status"], "answered");
    }
    pair.drain()?;
    // The head ends by itself, and everything that it still writes are complete lines.
    for line in reader {
        assert!(serde_json::from_str::<Value>(&line?)?["status"].is_string());
    }
    assert_ne!(head.wait()?.code(), Some(0));
    Ok(())
}

fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// The output of a head whose server address has no listener, so that only errors before connecting matter.
fn lone_head(bundle: &Path) -> Result<Output> {
    let certs = certificates()?;
    let identity = certs.path().join("devices/device");
    Ok(run(bundle, "127.0.0.1:9", &identity, &photos().join("cat.png")).output()?)
}

fn lone_tail(bundle: &Path, runtime: &Path) -> Result<Output> {
    let certs = certificates()?;
    Ok(serve(bundle, &certs.path().join("server"), runtime).args(["--device", "cpu"]).output()?)
}

fn run(bundle: &Path, server: &str, identity: &Path, source: &Path) -> Command {
    let mut command = narrows_pair::head();
    command
        .args(["run", "--server", server, "--retry-for", "1", "--fallback", "never", "--bundle"])
        .arg(bundle);
    command.arg("--identity").arg(identity).arg("--source").arg(source);
    command.current_dir(root());
    command
}

fn serve(bundle: &Path, identity: &Path, runtime: &Path) -> Command {
    let mut command = narrows_pair::tail();
    command.args(["serve", "--listen", "127.0.0.1:0", "--bundle"]).arg(bundle);
    command.arg("--identity").arg(identity).arg("--runtime").arg(runtime);
    command.current_dir(root());
    command
}

fn certificates() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for args in [&["init"][..], &["device", "device"]] {
        let output = narrows_pair::tail().arg("certs").args(args).arg("--dir").arg(folder.path()).output()?;
        anyhow::ensure!(output.status.success(), "{}", said(&output));
    }
    Ok(folder)
}

/// A PNG whose header says that it has no columns.
fn no_size() -> Vec<u8> {
    let mut chunk = b"IHDR\0\0\0\0\0\0\0\x01\x08\x02\0\0\0".to_vec();
    let check = crc32fast::hash(&chunk).to_be_bytes();
    chunk.extend(check);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(chunk);
    png
}
