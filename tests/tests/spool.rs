//! Frames that wait on disk while no server is there: none is lost, and none is answered twice.
#![expect(clippy::disallowed_methods, reason = "waiting has a bound")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use narrows_pair::Pair;
use narrows_tests::{TIMEOUT, bundle, lines, photos, runtime, said};
use serde_json::Value;
use tempfile::TempDir;

/// Where nothing listens: the discard port.
const NOBODY: &str = "127.0.0.1:9";

struct Scene {
    pair: Pair,
    folder: TempDir,
}

impl Scene {
    fn start() -> Result<Self> {
        let runtime = runtime();
        let runtime = runtime.to_str().context("a path of this project")?;
        let pair = Pair::start(&bundle(), &["--device", "cpu", "--runtime", runtime, "--offload"])?;
        Ok(Scene { pair, folder: tempfile::tempdir()? })
    }

    fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    /// A head that classifies at this server, or at none.
    fn head(&self, server: Option<&str>, source: &Path) -> Command {
        let mut command = self.pair.head_to(&bundle(), server.unwrap_or(NOBODY));
        command.args(["--tasks", "classify", "--retry-for", "1", "--source"]).arg(source);
        command.arg("--spool").arg(self.spool());
        command
    }

    fn run(&self, server: Option<&str>, args: &[&str]) -> Result<(Vec<Value>, Output)> {
        let output = self.head(server, &photos()).args(args).output()?;
        ensure!(output.status.code() == Some(0), "{}", said(&output));
        Ok((lines(&output)?, output))
    }
}

fn ids(lines: &[Value], wanted: impl Fn(&Value) -> bool) -> Vec<u64> {
    let wanted = lines.iter().filter(|line| wanted(line));
    let mut ids: Vec<u64> = wanted.filter_map(|line| line["spool"]["id"].as_u64()).collect();
    // Two are on their way at once, so answers may change places.
    ids.sort_unstable();
    ids
}

fn frames_on_disk(spool: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(spool)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "frame"));
    files.sort();
    Ok(files)
}

fn is_late(line: &Value) -> bool {
    line["spool"]["waited"].is_number()
}

#[test]
fn frames_wait_on_disk_for_a_server_and_are_answered_once() -> Result<()> {
    let scene = Scene::start()?;
    let (mut stored, output) = scene.run(None, &["--fallback", "never"])?;
    assert!(stored.iter().all(|line| line["status"] == "spooled" && line["error"].is_string()), "{stored:?}");
    assert!(said(&output).contains(&format!("{} spooled", stored.len())), "{}", said(&output));
    // The image path and a level that is chosen when a frame is sent are kept as well.
    stored.extend(scene.run(None, &["--fallback", "never", "--path", "image"])?.0);
    stored.extend(scene.run(None, &["--fallback", "never", "--level", "auto"])?.0);
    let waiting = ids(&stored, |line| line["status"] == "spooled");
    assert_eq!(frames_on_disk(&scene.spool())?.len(), waiting.len());
    for mode in ["1", "auto"] {
        let output = scene.run(Some(scene.pair.address()), &["--level", mode])?;
        let late: Vec<&Value> = output.0.iter().filter(|line| is_late(line)).collect();
        if mode == "auto" {
            assert!(late.is_empty(), "answered again: {late:?}");
            continue;
        }
        assert!(late.iter().all(|line| line["status"] == "answered"), "{late:?}");
        let answered: Vec<u64> = ids(&output.0, is_late);
        assert_eq!(answered, waiting, "each once");
        assert!(
            late.iter().any(|line| line["path"] == "image")
                && late.iter().any(|line| line["path"] == "split")
        );
        assert!(late[0]["spool"]["waited"].as_f64() > Some(0.5), "{}", late[0]);
        assert!(said(&output.1).contains("sent later, 0 waiting"), "{}", said(&output.1));
    }
    assert!(frames_on_disk(&scene.spool())?.is_empty());
    Ok(())
}

#[test]
fn where_this_device_answers_the_server_does_later_as_well() -> Result<()> {
    let scene = Scene::start()?;
    let (local, _) = scene.run(None, &["--level", "auto", "--budget", "2000"])?;
    assert!(local.iter().all(|line| line["path"] == "local" && line["fallback"].is_string()), "{local:?}");
    let waiting = ids(&local, |line| line["status"] == "answered");
    assert_eq!(waiting.len(), local.len());
    // Sent while frames are planned, behind them.
    let (lines, _) = scene.run(Some(scene.pair.address()), &["--level", "auto"])?;
    assert_eq!(ids(&lines, is_late), waiting);
    let late: Vec<_> = lines.iter().filter(|line| is_late(line)).collect();
    assert!(late.iter().all(|line| line["status"] == "answered" && line["path"] == "split"), "{late:?}");
    Ok(())
}

#[test]
fn a_killed_head_loses_no_frame_on_disk_and_a_damaged_file_is_put_aside() -> Result<()> {
    let scene = Scene::start()?;
    let log = scene.folder.path().join("lines.jsonl");
    let mut head = scene.head(None, &photos());
    head.args(["--fallback", "never", "--repeat", "0", "--lines"]).arg(&log);
    let mut child = head.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let begin = Instant::now();
    while !scene.spool().exists() || frames_on_disk(&scene.spool())?.len() < 40 {
        ensure!(begin.elapsed() < TIMEOUT, "too few frames on disk");
        sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    let mut on_disk = frames_on_disk(&scene.spool())?;
    let damaged = on_disk.remove(3);
    let bytes = fs::read(&damaged)?;
    fs::write(&damaged, &bytes[..bytes.len() - 7])?;
    fs::write(scene.spool().join("00000000000000ff-1-x.tmp"), "half of a frame")?;
    let text = fs::read_to_string(&log)?;
    let told: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told: BTreeSet<u64> = ids(&told, |line| line["status"] == "spooled").into_iter().collect();
    let number = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        u64::from_str_radix(&name[..16], 16).unwrap_or(u64::MAX)
    };
    let kept: Vec<u64> = on_disk.iter().map(number).collect();
    assert!(told.iter().all(|id| kept.contains(id) || *id == number(&damaged)), "{told:?} {kept:?}");
    let (lines, output) = scene.run(Some(scene.pair.address()), &[])?;
    assert_eq!(ids(&lines, is_late), kept);
    assert!(
        said(&output).contains("1 damaged") && said(&output).contains("it is put aside"),
        "{}",
        said(&output)
    );
    assert!(scene.spool().join("damaged").join(damaged.file_name().context("a name")?).exists());
    Ok(())
}

#[test]
fn a_frame_that_the_disk_does_not_take_is_a_loss_with_its_cause() -> Result<()> {
    let scene = Scene::start()?;
    let head = scene.head(None, &photos());
    let words: Vec<String> = std::iter::once(head.get_program())
        .chain(head.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    // No file may grow beyond 2 KiB.
    let script = format!("ulimit -f 2; exec {} --fallback never", words.join(" "));
    let output = Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).output()?;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for line in lines(&output)? {
        let error = line["error"].as_str().unwrap_or_default().to_owned();
        assert!(line["status"] == "failed" && error.contains("no server at"), "{line}");
        assert!(error.contains("--spool: cannot write to the spool: File too large"), "{line}");
    }
    assert!(said(&output).contains("not written"), "{}", said(&output));
    assert!(frames_on_disk(&scene.spool())?.is_empty());
    Ok(())
}

#[test]
fn a_spool_that_cannot_be_used_is_named() -> Result<()> {
    let scene = Scene::start()?;
    let file = scene.folder.path().join("file");
    fs::write(&file, "")?;
    let mut head = scene.pair.head(&bundle());
    let output = head.arg("--source").arg(photos().join("cat.png")).arg("--spool").arg(&file).output()?;
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(said(&output).contains("--spool") && said(&output).contains("file"), "{}", said(&output));
    for (args, words) in [
        (["--spool-bytes", "1M"], "at least 8M"),
        (["--spool-age", "7"], "such as 90s"),
        (["--spool-drop", "all"], "oldest"),
    ] {
        let output = scene.head(None, &photos()).args(args).output()?;
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(args[0]) && said(&output).contains(words), "{}", said(&output));
    }
    Ok(())
}
