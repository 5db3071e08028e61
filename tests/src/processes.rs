//! Commands that must end within a bound, and commands in a poor environment.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::ended;

/// Runs a command to its end and keeps what it writes. It is killed after `limit`.
///
/// # Errors
/// The command cannot be started, or has not ended within `limit`.
pub fn output_within(command: &mut Command, limit: Duration) -> Result<Output> {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    ended(child.with_context(|| format!("{command:?}"))?, limit)
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
