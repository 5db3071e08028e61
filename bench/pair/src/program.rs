//! The programs of the project, found beside the running one.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

/// The command `narrows-head`.
#[must_use]
pub fn head() -> Command {
    Command::new(program("narrows-head"))
}

/// The command `narrows-tail`.
#[must_use]
pub fn tail() -> Command {
    Command::new(program("narrows-tail"))
}

/// The command `narrows-bench`.
#[must_use]
pub fn bench() -> Command {
    Command::new(program("narrows-bench"))
}

/// The command `narrows-demo`.
#[must_use]
pub fn demo() -> Command {
    Command::new(program("narrows-demo"))
}

/// Sends SIGTERM to the process `pid`.
///
/// # Errors
/// There is no such process, or it is another user's.
pub fn terminate(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("no such process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("SIGTERM cannot be sent")
}

/// The program `name` beside the running one, or one folder up, where tests find it; else the one in PATH.
fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    let mut beside = here.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    beside.find(|path| path.is_file()).unwrap_or_else(|| name.into())
}
