//! A Python with packages, in an environment beside the built programs that is kept.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

/// A Python of at least this version that can import these modules, in the environment `name`, into which pip puts `packages` at the
/// first time. `None` where there is no such Python with venv, or no package index then.
///
/// # Errors
/// The tests lie in no folder of a profile.
pub fn python_with(
    name: &str,
    (major, minor): (u32, u32),
    modules: &str,
    packages: &[&str],
) -> Result<Option<PathBuf>> {
    let tests = std::env::current_exe()?;
    let folder = tests.ancestors().nth(3).context("tests lie in a folder of their profile")?.join(name);
    let python = folder.join("bin/python");
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let complete = |python: &Path| quiet(Command::new(python).args(["-c", &format!("import {modules}")]));
    if complete(&python) {
        return Ok(Some(python));
    }
    let version = format!("import sys, venv; assert sys.version_info >= ({major}, {minor})");
    let made = quiet(Command::new("python3").args(["-c", &version]))
        && quiet(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))
        && quiet(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "10"])
                .args(packages),
        )
        && complete(&python);
    Ok(made.then_some(python))
}
