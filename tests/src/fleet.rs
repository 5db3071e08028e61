//! Two tails that take each other's place.
#![expect(clippy::disallowed_methods, reason = "a tail must listen within a bound")]

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{TIMEOUT, bundle, photos, runtime, said};

/// Two tails with certificates of one CA, and a private key each.
pub struct Fleet {
    folder: TempDir,
    /// The processes that run.
    pub tails: [Option<Child>; 2],
    /// Where they listen.
    pub addresses: [String; 2],
}

impl Fleet {
    /// Starts both. The first one names the second with `--next` where that is asked for.
    ///
    /// # Errors
    /// They do not start.
    pub fn start(names_next: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let certs = folder.path().join("certs");
        let make = |args: &[&str]| {
            let output = narrows_pair::tail().arg("certs").args(args).arg("--dir").arg(&certs).output()?;
            ensure!(output.status.success(), "{}", said(&output));
            Ok(())
        };
        make(&["init"])?;
        make(&["device", "device"])?;
        fs::rename(certs.join("server"), certs.join("a"))?;
        fs::create_dir(certs.join("server"))?;
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::copy(certs.join("a").join(name), certs.join("server").join(name))?;
        }
        make(&["server", "--new-key"])?;
        fs::rename(certs.join("server"), certs.join("b"))?;
        let mut fleet = Fleet {
            folder,
            tails: [None, None],
            addresses: ["127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned()],
        };
        fleet.launch(1, None)?;
        let next = names_next.then(|| fleet.addresses[1].clone());
        fleet.launch(0, next.as_deref())?;
        Ok(fleet)
    }

    /// Starts a tail, again where it listened before, and waits until it listens.
    ///
    /// # Errors
    /// It does not start.
    pub fn launch(&mut self, which: usize, next: Option<&str>) -> Result<()> {
        let folder = self.folder.path();
        let (port, log) = (folder.join(format!("port{which}")), folder.join(format!("log{which}")));
        let _ = fs::remove_file(&port);
        let mut command = narrows_pair::tail();
        command
            .args(["serve", "--listen", &self.addresses[which], "--device", "cpu", "--bundle"])
            .arg(bundle());
        command.arg("--runtime").arg(runtime()).arg("--port-file").arg(&port);
        command.arg("--identity").arg(folder.join("certs").join(["a", "b"][which]));
        if let Some(next) = next {
            command.args(["--next", next]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
        self.tails[which] = Some(command.spawn()?);
        let begin = Instant::now();
        while !port.exists() {
            ensure!(begin.elapsed() < TIMEOUT, "{}", fs::read_to_string(&log)?);
            sleep(Duration::from_millis(5));
        }
        self.addresses[which] = fs::read_to_string(&port)?.trim().to_owned();
        Ok(())
    }

    /// Ends a tail as SIGKILL does.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn kill(&mut self, which: usize) -> Result<()> {
        if let Some(mut tail) = self.tails[which].take() {
            tail.kill()?;
            tail.wait()?;
        }
        Ok(())
    }

    /// Folder of the device's identity.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        self.folder.path().join("certs/devices/device")
    }

    /// A head that classifies photos without end at these servers.
    #[must_use]
    pub fn head(&self, servers: &[usize]) -> Command {
        let mut command = narrows_pair::head();
        command.args([
            "run",
            "--tasks",
            "classify",
            "--repeat",
            "0",
            "--retry-for",
            "60",
            "--fallback",
            "never",
        ]);
        command
            .arg("--bundle")
            .arg(bundle())
            .arg("--identity")
            .arg(self.device())
            .arg("--source")
            .arg(photos());
        servers.iter().for_each(|&server| {
            command.args(["--server", &self.addresses[server]]);
        });
        command.stdin(Stdio::null());
        command
    }

    /// Whether this server answered a frame.
    pub fn answered(&self, which: usize) -> impl Fn(&Value) -> bool + use<> {
        let address = self.addresses[which].clone();
        move |line| line["status"] == "answered" && line["server"] == *address
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.kill(0);
        let _ = self.kill(1);
    }
}
