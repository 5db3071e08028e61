//! The real programs where they may write nothing and open few files, with heads that are killed and readers that are slow.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use narrows_pair::{Pair, terminate};
use narrows_tests::{
    after, bundle, can_read_only, ended, lines, output_within, photos, read_only, runtime, said, skipped,
    start,
};

/// The time in which everything here ends on the slowest machine.
const LONG: Duration = Duration::from_secs(120);

/// The command of a head that answers photos itself.
fn local() -> Command {
    let mut command = narrows_pair::head();
    command.args(["run", "--path", "local", "--tasks", "classify", "--bundle"]).arg(bundle());
    command.arg("--source").arg(photos()).stdin(Stdio::null());
    command
}

/// The command of a tail with the certificates of `pair`, on another port.
fn serve(pair: &Pair) -> Command {
    let mut command = narrows_pair::tail();
    command.args(["serve", "--device", "cpu", "--listen", "127.0.0.1:0", "--runtime"]).arg(runtime());
    command.arg("--bundle").arg(bundle()).arg("--identity").arg(pair.certs().join("server"));
    command.stdin(Stdio::null());
    command
}

/// The address in the log of a tail that has begun to listen. `None` if the tail ended without.
fn listens(tail: &mut Child) -> Result<Option<String>> {
    for line in BufReader::new(tail.stderr.as_mut().context("the log is piped")?).lines() {
        let line = line?;
        if let Some((_, address)) = line.split_once("listening address=") {
            return Ok(address.split_whitespace().next().map(str::to_owned));
        }
    }
    Ok(None)
}

#[test]
fn head_and_tail_work_where_nothing_can_be_written() -> Result<()> {
    if !can_read_only() {
        skipped("poor", "unshare of util-linux and user namespaces, for a file system without writing");
        return Ok(());
    }
    let pair = start()?;
    let mut tail = read_only(&serve(&pair)).stderr(Stdio::piped()).spawn()?;
    let address = listens(&mut tail)?.context("the tail does not listen")?;
    let mut head = pair.head_to(&bundle(), &address);
    head.args(["--tasks", "classify", "--source"]).arg(photos().join("cat.png"));
    let output = output_within(&mut read_only(&head), LONG)?;
    ensure!(output.status.success(), "{}", said(&output));
    assert_eq!(lines(&output)?[0]["status"], "answered");
    // Pictures cannot be written: an error that names the folder, and no hang.
    let out = pair.certs().join("out");
    let output = output_within(&mut read_only(local().arg("--out").arg(&out)), LONG)?;
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("Read-only file system") && text.contains(&out.display().to_string()), "{text}");
    let port = pair.certs().join("port");
    let output = output_within(&mut read_only(serve(&pair).arg("--port-file").arg(&port)), LONG)?;
    let text = said(&output);
    assert!(!output.status.success() && !text.contains("panicked"), "{text}");
    assert!(text.contains("Read-only file system") && text.contains(&port.display().to_string()), "{text}");
    terminate(tail.id())?;
    let output = ended(tail, LONG)?;
    ensure!(output.status.success(), "{}", said(&output));
    pair.drain()
}

#[test]
fn a_head_that_may_open_few_files_is_answered_by_the_tail_or_says_why_not() -> Result<()> {
    let pair = start()?;
    let mut answered = 0;
    for files in [6, 12, 24, 32] {
        let mut head = pair.head(&bundle());
        head.args(["--tasks", "classify", "--retry-for", "1", "--source"]).arg(photos().join("cat.png"));
        let output = output_within(&mut after(&format!("ulimit -n {files}"), &head), LONG)?;
        let text = said(&output);
        assert!(!text.contains("panicked"), "{files} files: {text}");
        let says = !text.trim().is_empty() && output.status.code().is_some();
        assert!(output.status.success() || says, "{files} files: {output:?}");
        answered += usize::from(output.status.success());
    }
    assert!(answered > 0, "32 files are enough");
    pair.drain()
}

#[test]
fn a_tail_that_may_open_few_files_serves_or_says_why_it_cannot() -> Result<()> {
    let pair = start()?;
    let mut served = 0;
    for files in [5, 9, 13, 32, 48] {
        let mut tail = after(&format!("ulimit -n {files}"), &serve(&pair)).stderr(Stdio::piped()).spawn()?;
        let Some(address) = listens(&mut tail)? else {
            let output = ended(tail, LONG)?;
            assert!(output.status.code().is_some_and(|code| code != 0 && code != 101), "{files}: {output:?}");
            continue;
        };
        let mut head = pair.head_to(&bundle(), &address);
        head.args(["--tasks", "classify", "--source"]).arg(photos().join("cat.png"));
        let output = output_within(&mut head, LONG)?;
        ensure!(output.status.success(), "{files} files: {}", said(&output));
        served += 1;
        terminate(tail.id())?;
        let output = ended(tail, LONG)?;
        ensure!(output.status.success() && !said(&output).contains("panicked"), "{files}: {}", said(&output));
    }
    assert!(served > 0, "48 files are enough");
    pair.drain()
}

#[test]
fn heads_that_are_killed_leave_nothing_behind_in_the_tail() -> Result<()> {
    let pair = start()?;
    let files = || -> Result<usize> { Ok(fs::read_dir(format!("/proc/{}/fd", pair.tail_pid()))?.count()) };
    let kill = || -> Result<()> {
        let mut head = pair.head(&bundle());
        head.args(["--tasks", "classify", "--repeat", "0", "--source"]).arg(photos());
        let mut head = head.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        BufReader::new(head.stdout.take().context("a pipe")?).read_line(&mut line)?;
        // The head is in the middle of its next frames.
        head.kill()?;
        head.wait()?;
        ensure!(line.contains("\"answered\""), "not answered: {line}");
        Ok(())
    };
    kill()?;
    let before = files()?;
    // More than the connections that one device may have: each new one takes the place of one that is silent.
    for _ in 0..20 {
        kill()?;
    }
    assert_eq!(files()?, before, "open files of the tail");
    let mut head = pair.head(&bundle());
    head.args(["--tasks", "classify", "--source"]).arg(photos().join("cat.png"));
    let output = output_within(&mut head, LONG)?;
    ensure!(output.status.success(), "{}", said(&output));
    assert!(!pair.log().contains("panicked"), "{}", pair.log());
    pair.drain()
}

#[test]
fn a_reader_that_is_slow_gets_every_line() -> Result<()> {
    let mut slow = local().args(["--repeat", "3"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut count = 0;
    for line in BufReader::with_capacity(64, slow.stdout.take().context("a pipe")?).lines() {
        assert!(line?.contains("\"answered\""));
        count += 1;
        sleep(Duration::from_millis(20));
    }
    let output = ended(slow, LONG)?;
    assert!(output.status.success(), "{output:?}");
    let photos = lines(&output_within(&mut local(), LONG)?)?.len();
    assert_eq!(count, 3 * photos);
    Ok(())
}
