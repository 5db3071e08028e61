//! A running tail and the commands of heads that reach it.
#![expect(clippy::disallowed_methods, reason = "waits for a process to listen and to end")]

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::program::{head, tail, terminate};

/// The longest that a tail may take to load its networks.
const START: Duration = Duration::from_secs(120);
/// The longest that a tail may take to drain.
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
    /// The tail ends before it listens; the error holds its log.
    pub fn start(bundle: &Path, args: &[&str]) -> Result<Self> {
        Pair::start_with(bundle, |_| args.iter().map(OsString::from).collect())
    }

    /// The same as [`Pair::start`], with arguments that may depend on the folder of certificates.
    ///
    /// # Errors
    /// The tail ends before it listens; the error holds its log.
    pub fn start_with(bundle: &Path, args: impl FnOnce(&Path) -> Vec<OsString>) -> Result<Self> {
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
            .args(args(&certs))
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
    #[must_use]
    pub fn tail_pid(&self) -> u32 {
        self.tail.id()
    }

    /// Where the tail listens, `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The folder of certificates: `server/`, `devices/device/` and the CA.
    #[must_use]
    pub fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// Makes an identity of another device, and returns its folder.
    ///
    /// # Errors
    /// The name is none, or taken.
    pub fn identity(&self, name: &str) -> Result<PathBuf> {
        finish(tail().args(["certs", "device", name, "--dir"]).arg(self.certs()))?;
        Ok(self.certs().join("devices").join(name))
    }

    /// What the tail has logged until now.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("tail.log")).unwrap_or_default()
    }

    /// The command `narrows-head run` against this tail, with bundle, server and identity set; the source is for the
    /// caller to add.
    #[must_use]
    pub fn head(&self, bundle: &Path) -> Command {
        self.head_to(bundle, &self.address)
    }

    /// The same as [`Pair::head`] with another address of the tail, `server`: the near end of a relay on loopback.
    #[must_use]
    pub fn head_to(&self, bundle: &Path, server: &str) -> Command {
        let mut command = head();
        command.args(["run", "--server", server, "--bundle"]).arg(bundle);
        command.arg("--identity").arg(self.certs().join("devices/device"));
        command.stdin(Stdio::null());
        command
    }

    /// Asks the tail to drain (SIGTERM) and waits until it has ended.
    ///
    /// # Errors
    /// The tail does not end, or not with success; the error holds its log.
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

    /// Ends the tail at once (SIGKILL), as a crash would.
    ///
    /// # Errors
    /// The process cannot be killed or waited for.
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

fn finish(command: &mut Command) -> Result<()> {
    let output =
        command.output().with_context(|| format!("{:?} cannot be started", command.get_program()))?;
    ensure!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
