//! A board without a clock of its own: it boots in 1970, answers by itself, and reaches its server when the time is set.
//! The time is changed by libfaketime; without it the test says so and is skipped.
#![expect(clippy::disallowed_methods, reason = "the head looks for its server every now and then")]

use std::{
    fs, iter,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use narrows_tests::{LiveHead, TIMEOUT, bundle, photos, skipped, start};

/// The library that `faketime` preloads, where Linux distributions put it.
fn faketime() -> Option<PathBuf> {
    let folder = |path: &str| fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let folders =
        folder("/usr/lib").map(|entry| entry.path()).chain(["/usr/lib64".into(), "/usr/lib".into()]);
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

#[test]
fn a_board_that_boots_in_1970_answers_and_finds_its_server_once_the_time_is_set() -> Result<()> {
    let Some(library) = faketime() else {
        skipped("clock", "libfaketime (apt install faketime)");
        return Ok(());
    };
    let (pair, folder) = (start()?, tempfile::tempdir()?);
    let (clock, pictures) = (folder.path().join("clock"), folder.path().join("pictures"));
    fs::create_dir(&pictures)?;
    fs::write(&clock, "@1970-01-01 00:01:00\n")?;
    let mut command = pair.head(&bundle());
    command
        .args(["--tasks", "classify", "--source"])
        .arg(format!("watch:{}", pictures.display()))
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_CACHE_DURATION", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let head = LiveHead::of(command)?;
    let show = |number: usize| fs::copy(photos().join("cat.png"), pictures.join(format!("{number}.png")));

    show(0)?;
    let line = head.line()?;
    ensure!(line["path"] == "local" && line["status"] == "answered", "{line}");
    ensure!(line["captured"].as_str().is_some_and(|time| time.starts_with("1970-01-01T")), "{line}");
    let reason = line["fallback"].as_str().context("a reason")?;
    ensure!(reason.contains("this device's clock shows") && reason.contains("1970"), "{reason}");

    fs::write(&clock, "+0\n")?;
    let begin = Instant::now();
    for number in iter::successors(Some(1), |number| Some(number + 1)) {
        if begin.elapsed() > TIMEOUT {
            bail!("the server is not found: {}", head.said());
        }
        show(number)?;
        let line = head.line()?;
        if line["path"] == "split" {
            ensure!(line["captured"].as_str().is_some_and(|time| !time.starts_with("1970")), "{line}");
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    head.interrupt()?;
    pair.drain()
}
