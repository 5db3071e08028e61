//! The report on a board: its figures, its page in a browser, and its ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use narrows_pair::terminate;
use narrows_tests::{TIMEOUT, browser::Browser, bundle, ended, output_within, root, said, start};
use serde_json::Value;

fn board(folder: &tempfile::TempDir, seconds: &str) -> Command {
    let mut command = narrows_pair::head();
    command.args(["board", "--seconds", seconds, "--idle", "0", "--bundle"]).arg(bundle());
    command.current_dir(folder.path()).stdin(Stdio::null());
    command
}

fn figures(folder: &tempfile::TempDir) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(folder.path().join("board.json"))?)?)
}

#[test]
fn every_stage_has_its_time_and_a_browser_shows_them() -> Result<()> {
    let (folder, pair) = (tempfile::TempDir::new()?, start()?);
    let mut command = board(&folder, "22");
    command.args(["--server", pair.address(), "--identity"]).arg(pair.certs().join("devices/device"));
    let output = output_within(&mut command, TIMEOUT + Duration::from_secs(60))?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report = figures(&folder)?;
    let names: Vec<&str> = report["networks"]
        .as_array()
        .context("networks")?
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    let wanted =
        ["head of classify", "coder of classify", "head of segment", "coder of segment", "local network"];
    for (name, wanted) in names.iter().zip(wanted) {
        assert!(name.starts_with(wanted), "{names:?}");
    }
    assert_eq!(names.len(), wanted.len(), "{names:?}");
    let is_positive = |value: &Value| value.as_f64().is_some_and(|value| value > 0.0);
    for network in report["networks"].as_array().into_iter().flatten() {
        assert!(
            is_positive(&network["median_ms"]) && network["p95_ms"].as_f64() >= network["median_ms"].as_f64()
        );
    }
    let cameras = report["cameras"].as_array().context("cameras")?;
    assert_eq!(cameras.len(), 3);
    for camera in cameras {
        assert!(
            is_positive(&camera["jpeg"]["median_ms"]) && is_positive(&camera["i420"]["median_ms"]),
            "{camera}"
        );
    }
    let sustained = &report["sustained"];
    let sum: f64 = sustained["series"]
        .as_array()
        .context("series")?
        .iter()
        .filter_map(|one| one["frames_per_second"].as_f64())
        .sum();
    let frames = sustained["frames"].as_f64().context("frames")?;
    // Each second of the series counts its own frames; what is left of the last second is in none.
    assert!(sum > 0.5 * frames && sum < 1.2 * frames && is_positive(&sustained["kept"]), "{sustained}");
    assert!(sustained["energy"].is_object() || sustained["no_energy"].is_string(), "{sustained}");
    let states = report["checks"]["checks"].as_array().context("checks")?;
    assert!(states.iter().any(|check| check["what"] == "frame" && check["state"] == "ok"), "{states:?}");

    if let Some(mut browser) = Browser::start("page of a board")? {
        let shots = root().join("target/page");
        fs::create_dir_all(&shots)?;
        for (name, width) in [("board-wide", 1100), ("board-phone", 390)] {
            browser.resize(width, 900, false)?;
            browser.open(&format!("file://{}", folder.path().join("board.html").display()))?;
            browser.wait_for("document.querySelectorAll('main .card').length === 5")?;
            browser.wait_for("document.querySelectorAll('svg path.line').length >= 1")?;
            let fits = browser.value("document.documentElement.scrollWidth - innerWidth <= 0")?;
            assert_eq!(fits, true, "{name} is too wide");
            browser.picture(&shots.join(format!("{name}.png")))?;
        }
        assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
    }
    pair.drain().map(drop)
}

#[test]
fn an_interrupted_report_says_so_and_what_cannot_be_used_is_told_at_once() -> Result<()> {
    let folder = tempfile::TempDir::new()?;
    let mut child = board(&folder, "600").stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut told = BufReader::new(child.stderr.take().context("its progress is piped")?).lines();
    let works = |line: &String| line.contains("working without a pause");
    assert!(told.by_ref().map_while(Result::ok).any(|line| works(&line)), "it has ended");
    terminate(child.id())?;
    std::thread::spawn(move || told.for_each(drop));
    let output = ended(child, TIMEOUT)?;
    assert_eq!(output.status.code(), Some(143), "{}", said(&output));
    let report = figures(&folder)?;
    assert!(report["interrupted"] == true && report["networks"][0]["median_ms"].is_number(), "{report}");

    for (flags, code, names) in [
        (&["--photo", "/etc/passwd"][..], 2, "--photo: /etc/passwd"),
        (&["--photo", "none.jpg"], 2, "--photo: none.jpg"),
        (&["--seconds=-1"], 2, "--seconds"),
        (&["--seconds", "nan"], 2, "--seconds"),
        (&["--json", "/nowhere/board.json"], 7, "/nowhere/board.json"),
        (&["--page", "/"], 7, "/"),
    ] {
        let mut command = narrows_pair::head();
        command.args(["board", "--bundle"]).arg(bundle()).current_dir(folder.path()).args(flags);
        let output = output_within(&mut command, TIMEOUT)?;
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {}", said(&output));
        assert!(said(&output).contains(names), "{flags:?}: {}", said(&output));
    }
    let (mut command, empty) = (narrows_pair::head(), tempfile::TempDir::new()?);
    command.args(["board", "--bundle", "none"]).current_dir(empty.path());
    assert_eq!(output_within(&mut command, TIMEOUT)?.status.code(), Some(3));
    assert_eq!(fs::read_dir(empty.path())?.count(), 0, "a failed run leaves no files");
    Ok(())
}
