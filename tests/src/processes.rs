//! Processes that must end within a bound, and processes in a poor environment.
#![expect(clippy::disallowed_methods, reason = "a process must end within a bound")]

use std::{
    io::{Read, Write},
    process::{Child, Command, Output, Stdio},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Runs a command to its end and keeps what it writes. It is killed after `limit`.
///
/// # Errors
/// The command cannot be started, or has not ended within `limit`; the error holds what it wrote to standard error.
pub fn output_within(command: &mut Command, limit: Duration) -> Result<Output> {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    end_within(child.with_context(|| format!("{command:?}"))?, limit)
}

/// Waits until a process has ended and keeps what it still writes to its pipes. It is killed after `limit`.
///
/// # Errors
/// The process has not ended within `limit`; the error holds what it wrote to standard error.
pub fn end_within(mut child: Child, limit: Duration) -> Result<Output> {
    let stdout = child.stdout.take().map(reader);
    let stderr = child.stderr.take().map(reader);
    let start = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if start.elapsed() > limit => break None,
            None => sleep(Duration::from_millis(10)),
        }
    };
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let bytes = |thread: Option<thread::JoinHandle<Vec<u8>>>| match thread {
        Some(thread) => thread.join().unwrap_or_default(),
        None => Vec::new(),
    };
    let (stdout, stderr) = (bytes(stdout), bytes(stderr));
    match status {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => bail!("it has not ended in {limit:?} and wrote: {}", String::from_utf8_lossy(&stderr)),
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is kept.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// The same command, run by a shell after `setup`, such as `ulimit -n 20`.
#[must_use]
pub fn after(setup: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{setup} && exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell.stdin(Stdio::null());
    shell
}

/// The same command in a file system of which nothing can be written.
#[must_use]
pub fn read_only(command: &Command) -> Command {
    let inner = after("mount -o remount,bind,ro /", command);
    let mut outer = Command::new("unshare");
    outer.args(["--map-root-user", "--mount"]).arg(inner.get_program()).args(inner.get_args());
    if let Some(folder) = inner.get_current_dir() {
        outer.current_dir(folder);
    }
    outer.stdin(Stdio::null());
    outer
}

/// Whether [`read_only`] works here; it needs `unshare` and a kernel that allows user namespaces.
#[must_use]
pub fn can_read_only() -> bool {
    let mut probe = Command::new("sh");
    probe.args(["-c", "! touch /tmp/narrows-read-only-probe 2>/dev/null"]);
    read_only(&probe).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Says in one line that a test did not run, and what was missing, also where the output of tests is captured.
pub fn skipped(test: &str, missing: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "{test}: skipped; missing: {missing}");
}
