//! A real tail and real heads on loopback, for demos, measurements and tests.
#![expect(clippy::disallowed_methods, reason = "waits for a process to listen and to end")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// How long a tail may take to load its networks.
const START: Duration = Duration::from_secs(120);
/// How long a tail may take to drain.
const DRAIN: Duration = Duration::from_secs(30);

/// A running tail with its certificates. Dropping it kills the tail.
pub struct Pair {
    folder: TempDir,
    tail: Child,
    address: String,
}

impl Pair {
    /// Makes a CA and the identities `server` and `device`, starts a tail that serves `bundle` on a free port of
    /// loopback and waits until it listens. `args` are added to `narrows-tail serve`.
    ///
    /// # Errors
    /// When the tail ends before it listens: with what it said.
    pub fn start(bundle: &Path, args: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("narrows-").tempdir().context("no temporary folder")?;
        let certs = folder.path().join("certs");
        finish(tail().args(["certs", "init", "--dir"]).arg(&certs))?;
        finish(tail().args(["certs", "device", "device", "--dir"]).arg(&certs))?;
        let (log, port) = (folder.path().join("tail.log"), folder.path().join("port"));
        let child = tail()
            .args(["serve", "--listen", "127.0.0.1:0", "--bundle"])
            .arg(bundle)
            .arg("--identity")
            .arg(certs.join("server"))
            .arg("--port-file")
            .arg(&port)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).context("no log file")?)
            .spawn()
            .context("narrows-tail cannot be started")?;
        let mut pair = Pair { folder, tail: child, address: String::new() };
        let start = Instant::now();
        while pair.address.is_empty() {
            if let Some(status) = pair.tail.try_wait()? {
                bail!("narrows-tail ended with {status} before it listened:\n{}", pair.log());
            }
            ensure!(start.elapsed() < START, "narrows-tail did not listen in {START:?}:\n{}", pair.log());
            sleep(Duration::from_millis(20));
            pair.address = fs::read_to_string(&port).unwrap_or_default().trim().to_owned();
        }
        Ok(pair)
    }

    /// The tail's process ID.
    pub fn tail_pid(&self) -> u32 {
        self.tail.id()
    }

    /// Where the tail listens, `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The folder of certificates: `server/`, `devices/device/` and the CA.
    pub fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// What the tail has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("tail.log")).unwrap_or_default()
    }

    /// `narrows-head run` against this tail: bundle, server and identity are set, the source is not.
    pub fn head(&self, bundle: &Path) -> Command {
        self.head_to(bundle, &self.address)
    }

    /// As [`Pair::head`], with the tail looked for at `server`: the near end of a relay on loopback.
    pub fn head_to(&self, bundle: &Path, server: &str) -> Command {
        let mut command = head();
        command.args(["run", "--server", server, "--bundle"]).arg(bundle);
        command.arg("--identity").arg(self.certs().join("devices/device"));
        command.stdin(Stdio::null());
        command
    }

    /// Asks the tail to drain (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// When it does not end, or not with success: with what it logged.
    pub fn drain(mut self) -> Result<()> {
        terminate(self.tail.id())?;
        let start = Instant::now();
        while start.elapsed() < DRAIN {
            match self.tail.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("narrows-tail ended with {status} when drained:\n{}", self.log()),
                None => sleep(Duration::from_millis(20)),
            }
        }
        bail!("narrows-tail did not drain in {DRAIN:?}:\n{}", self.log());
    }

    /// Ends the tail at once, as a crash would.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.tail.kill().context("narrows-tail cannot be killed")?;
        Ok(self.tail.wait()?)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // It may have ended already; then both calls only say so.
        let _ = self.tail.kill();
        let _ = self.tail.wait();
    }
}

/// The command `narrows-head`.
pub fn head() -> Command {
    Command::new(program("narrows-head"))
}

/// The command `narrows-tail`.
pub fn tail() -> Command {
    Command::new(program("narrows-tail"))
}

/// The command `narrows-bench`, for a program that is not it.
pub fn bench() -> Command {
    Command::new(program("narrows-bench"))
}

/// Sends SIGTERM to the process `pid`.
pub fn terminate(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).context("no such process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("SIGTERM cannot be sent")
}

/// The program beside this one, or one folder up when this one is a test; by name in PATH when it is neither.
fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    let mut beside = here.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    beside.find(|path| path.is_file()).unwrap_or_else(|| name.into())
}

fn finish(command: &mut Command) -> Result<()> {
    let output =
        command.output().with_context(|| format!("{:?} cannot be started", command.get_program()))?;
    ensure!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
