//! What ends a run ends the process: broken outputs and signals, whatever else is stuck.
#![expect(clippy::disallowed_methods, reason = "what must end is given a bound")]

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use narrows_pair::Pair;
use narrows_tests::{bundle, ended, photos, runtime, said};

/// Exit code where a result could not be written.
const DEVICE: i32 = 7;
/// How long the end may take after its cause: two seconds, and the same for a busy machine.
const END: Duration = Duration::from_secs(4);
/// How long a run may take to get going.
const START: Duration = Duration::from_secs(30);

/// A head that answers on its own.
fn head(source: &Path) -> Command {
    let mut head = narrows_pair::head();
    head.args(["run", "--path", "local", "--tasks", "classify", "--bundle"]).arg(bundle());
    head.arg("--source").arg(source);
    head.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    head
}

fn fifo(folder: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = folder.join(name);
    ensure!(Command::new("mkfifo").arg(&path).status()?.success(), "no FIFO");
    Ok(path)
}

/// Waits until a head catches signals.
fn wait_for_start(head: &Child) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < START {
        let status = fs::read_to_string(format!("/proc/{}/status", head.id()))?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).context("no SigCgt")?;
        // SIGTERM is number 15.
        if u64::from_str_radix(caught.trim(), 16)? >> 14 & 1 == 1 {
            // And is then at its source.
            std::thread::sleep(Duration::from_millis(500));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    anyhow::bail!("the head has not begun")
}

/// Waits until nothing more fits into a pipe that nobody reads.
fn wait_until_full(pipe: &impl AsFd) -> Result<()> {
    let begin = Instant::now();
    // A pipe holds 16 pages of 4 KiB, and a line that does not fit into the last page begins a new one.
    while rustix::io::ioctl_fionread(pipe)? < 60 << 10 {
        ensure!(begin.elapsed() < START, "the pipe is not full");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(100));
    Ok(())
}

/// Sends a signal to a head that has begun, and returns its output.
fn signalled(head: Child, signal: &str) -> Result<Output> {
    wait_for_start(&head)?;
    ensure!(Command::new("kill").args([signal, &head.id().to_string()]).status()?.success(), "no signal");
    ended(head, END)
}

#[test]
fn a_full_disk_under_standard_output_ends_the_run() -> Result<()> {
    let pair = Pair::start(&bundle(), &["--device", "cpu", "--runtime", &runtime().display().to_string()])?;
    let mut split = pair.head(&bundle());
    split.arg("--source").arg(photos()).args(["--repeat", "0"]).stderr(Stdio::piped());
    for mut head in [head(&photos()), split] {
        let begin = Instant::now();
        let child = head.stdout(File::options().write(true).open("/dev/full")?).spawn()?;
        let output = ended(child, START)?;
        assert_eq!(output.status.code(), Some(DEVICE), "{}", said(&output));
        assert!(
            said(&output).contains("cannot write standard output: No space left on device"),
            "{}",
            said(&output)
        );
        println!("ended after {:?}", begin.elapsed());
    }
    pair.drain()
}

#[test]
fn a_source_that_nobody_writes_to_is_left_at_a_signal() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fifo = fifo(folder.path(), "photos")?;
    // A FIFO, a terminal at which nobody types, and a FIFO among files.
    let among = folder.path().join("among");
    fs::create_dir(&among)?;
    self::fifo(&among, "a.jpg")?;
    for source in [fifo.as_path(), Path::new("/dev/ptmx"), &among] {
        for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
            let output = signalled(head(source).spawn()?, signal)?;
            assert_eq!(output.status.code(), Some(code), "{}: {}", source.display(), said(&output));
            assert!(said(&output).contains("0 answered, 0 refused"), "{}", said(&output));
        }
    }
    let mut open = head(Path::new("/dev/stdin"));
    let mut child = open.stdin(Stdio::piped()).spawn()?;
    let _writer = child.stdin.take();
    assert_eq!(signalled(child, "-TERM")?.status.code(), Some(143));
    Ok(())
}

#[test]
fn a_reader_that_does_not_read_holds_up_no_signal() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Frames that fail at once fill the pipe at once.
    let bad = folder.path().join("bad.jpg");
    fs::write(&bad, "no image")?;
    let mut child = head(&bad).args(["--repeat", "0"]).stdout(Stdio::piped()).spawn()?;
    let lines = child.stdout.take().context("no output")?;
    wait_until_full(&lines)?;
    let output = signalled(child, "-TERM")?;
    assert_eq!(output.status.code(), Some(143), "{}", said(&output));
    assert!(said(&output).contains(" failed, 4 unfinished"), "{}", said(&output));
    drop(lines);
    // The same where standard error goes the same way.
    let (reader, writer) = std::io::pipe()?;
    let mut both = head(&bad);
    both.args(["--repeat", "0"]).stdout(writer.try_clone()?).stderr(writer);
    let child = both.spawn()?;
    drop(both);
    wait_until_full(&reader)?;
    assert_eq!(signalled(child, "-INT")?.status.code(), Some(130));
    drop(reader);
    Ok(())
}

#[test]
fn a_reader_that_goes_away_while_a_write_waits_ends_the_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let bad = folder.path().join("bad.jpg");
    fs::write(&bad, "no image")?;
    let mut child = head(&bad).args(["--repeat", "0"]).stdout(Stdio::piped()).spawn()?;
    let lines = child.stdout.take().context("no output")?;
    wait_until_full(&lines)?;
    drop(lines);
    assert_eq!(ended(child, END)?.status.code(), Some(0));
    Ok(())
}

#[test]
fn an_output_that_was_made_non_blocking_is_waited_for() -> Result<()> {
    use std::io::Read;

    use rustix::fs::{OFlags, fcntl_setfl};

    let folder = tempfile::tempdir()?;
    let bad = folder.path().join("bad.jpg");
    fs::write(&bad, "no image")?;
    let (mut reader, writer) = std::io::pipe()?;
    fcntl_setfl(&writer, OFlags::NONBLOCK)?;
    let mut command = head(&bad);
    let child = command.args(["--repeat", "1000"]).stdout(writer).spawn()?;
    drop(command);
    wait_until_full(&reader)?;
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    assert_eq!((ended(child, END)?.status.code(), text.lines().count()), (Some(1), 1000));
    Ok(())
}
