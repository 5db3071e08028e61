//! A tail as a service: it is configured by a file, and a service manager hears it.
#![expect(clippy::disallowed_methods, reason = "what must happen is given a bound")]

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{TIMEOUT, bundle, lines, output_within, photos, runtime, said};

/// A tail that is configured by a file.
pub struct ServiceTail {
    folder: TempDir,
    /// The process.
    pub child: Child,
    /// What the service manager hears.
    heard: Receiver<String>,
    /// Where it listens.
    pub address: String,
    /// What its configuration file begins with.
    pub base: String,
}

impl ServiceTail {
    /// Starts it with what every test needs and `rest`.
    ///
    /// # Errors
    /// It does not start; the error has its log.
    pub fn start(rest: &str) -> Result<Self> {
        let bundles = format!("bundle = '{}'\n", bundle().display());
        Self::start_with(tempfile::tempdir()?, &bundles, rest)
    }

    /// Does the same in a folder, with these bundles.
    ///
    /// # Errors
    /// Those of [`ServiceTail::start`].
    pub fn start_with(folder: TempDir, bundles: &str, rest: &str) -> Result<Self> {
        let certs = folder.path().join("certs");
        let devices = ["cam-1", "cam-2", "cam-3", "door"].map(|device| ["device", device]);
        for arguments in std::iter::once(&["init"][..]).chain(devices.iter().map(|device| &device[..])) {
            let mut command = narrows_pair::tail();
            command.arg("certs").args(arguments).arg("--dir").arg(&certs);
            let made = command.output()?;
            ensure!(made.status.success(), "{}", said(&made));
        }
        let manager = UnixDatagram::bind(folder.path().join("notify"))?;
        let (messages, heard) = channel();
        // Read all the time, since few messages may wait in a socket. It ends with the test.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read) = manager.recv(&mut buffer) {
                if messages.send(String::from_utf8_lossy(&buffer[..read]).into_owned()).is_err() {
                    return;
                }
            }
        });
        let base = format!(
            "{bundles}listen = '127.0.0.1:0'\nidentity = 'certs/server'\nport-file = 'port'\ndevice = 'cpu'\nruntime = '{}'\n",
            runtime().display()
        );
        fs::write(folder.path().join("tail.toml"), format!("{base}{rest}"))?;
        let child = narrows_pair::tail()
            .args(["serve", "--config"])
            .arg(folder.path().join("tail.toml"))
            .env("NOTIFY_SOCKET", folder.path().join("notify"))
            .env("WATCHDOG_USEC", "1000000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log"))?)
            .spawn()?;
        let mut tail = ServiceTail { folder, child, heard, address: String::new(), base };
        tail.hears("READY=1")?;
        tail.address = fs::read_to_string(tail.file("port"))?.trim().to_owned();
        Ok(tail)
    }

    /// A file in its folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Writes the configuration file anew.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(&self, rest: &str) -> Result<()> {
        fs::write(self.file("new"), format!("{}{rest}", self.base))?;
        Ok(fs::rename(self.file("new"), self.file("tail.toml"))?)
    }

    /// Has it read its settings again, and waits until that is done.
    ///
    /// # Errors
    /// It is not done in time.
    pub fn hang_up(&self) -> Result<()> {
        ensure!(Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status()?.success());
        self.hears("RELOADING=1")?;
        self.hears("READY=1")
    }

    /// Waits for a message to the service manager with this assignment.
    ///
    /// # Errors
    /// None came in time.
    pub fn hears(&self, wanted: &str) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < 2 * TIMEOUT {
            let message = self.heard.recv_timeout(TIMEOUT).with_context(|| self.log())?;
            if message.lines().any(|line| line == wanted) {
                return Ok(());
            }
        }
        bail!("no {wanted}: {}", self.log())
    }

    /// Waits until the log has a text.
    ///
    /// # Errors
    /// It does not have it in time.
    pub fn logs(&self, text: &str) -> Result<()> {
        let begin = Instant::now();
        while !self.log().contains(text) {
            ensure!(begin.elapsed() < TIMEOUT, "{text:?} is not logged: {}", self.log());
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The command of a head with a bundle and the identity of a device, which asks for the classes of a photo.
    #[must_use]
    pub fn head(&self, device: &str, bundle: &Path) -> Command {
        let mut head = narrows_pair::head();
        head.args(["run", "--tasks", "classify", "--fallback", "never", "--bundle"])
            .arg(bundle)
            .args(["--server", &self.address, "--source"])
            .arg(photos().join("orange.jpg"))
            .arg("--identity")
            .arg(self.file("certs/devices").join(device))
            .stdin(Stdio::null());
        head
    }

    /// Asks for the class of a photo as a device, once; returns the exit code and what was said.
    ///
    /// # Errors
    /// The head cannot be started or does not end.
    pub fn classify(&self, device: &str, bundle: &Path) -> Result<(Option<i32>, String)> {
        let output = output_within(self.head(device, bundle).args(["--retry-for", "5"]), 2 * TIMEOUT)?;
        let count = lines(&output)?.iter().filter(|line| line["status"] == "answered").count();
        Ok((output.status.code(), format!("{count} answered; {}", said(&output))))
    }

    /// Checks that a device with a bundle is answered.
    ///
    /// # Errors
    /// It is not.
    pub fn accepts(&self, device: &str, bundle: &Path) -> Result<()> {
        let (code, said) = self.classify(device, bundle)?;
        ensure!(
            code == Some(0) && said.starts_with("1 answered"),
            "{device}: {code:?} {said}; {}",
            self.log()
        );
        Ok(())
    }

    /// Checks that a device with a bundle is refused for a reason.
    ///
    /// # Errors
    /// It is not.
    pub fn refuses(&self, device: &str, bundle: &Path, reason: &str) -> Result<()> {
        let (code, said) = self.classify(device, bundle)?;
        ensure!(code != Some(0) && said.contains(reason), "{device}: {code:?} {said}; {}", self.log());
        Ok(())
    }
}

impl Drop for ServiceTail {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
