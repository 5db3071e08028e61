//! A mosquitto broker, and what it is told.
#![expect(clippy::disallowed_methods, reason = "messages are waited for within a bound")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{TIMEOUT, skipped};

/// A broker on loopback, ended when this is dropped.
pub struct Broker {
    process: Child,
    port: u16,
    folder: TempDir,
    program: PathBuf,
}

/// Hears what a broker is told, from its subscription on.
pub struct Subscriber {
    process: Child,
    messages: Receiver<Message>,
}

/// A message that a subscriber has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whether the broker had kept it from before the subscription.
    pub retained: bool,
    /// Where it was published.
    pub topic: String,
    /// What was published.
    pub payload: Vec<u8>,
}

impl Broker {
    /// Starts a broker with a listener on a free port and further `settings`; `None`, and one line that says what is missing,
    /// where mosquitto is not installed.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(test: &str, settings: &str) -> Result<Option<Self>> {
        // Distributions put it where the PATH of a user may not lead.
        let places =
            ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"].map(PathBuf::from);
        let program = places.into_iter().find(|place| place.exists());
        let has_client = Command::new("mosquitto_sub").arg("--help").stdout(Stdio::null()).status().is_ok();
        let (Some(program), true) = (program, has_client) else {
            skipped(test, "mosquitto and mosquitto_sub (apt install mosquitto mosquitto-clients)");
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        // As root it would give its rights away and could not read its folder.
        let text = format!("listener {port} 127.0.0.1\nuser root\n{settings}\n");
        fs::write(folder.path().join("mosquitto.conf"), text)?;
        let process = launch(&program, folder.path(), port)?;
        Ok(Some(Broker { process, port, folder, program }))
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it as SIGKILL does. What it has retained is lost.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Stops its work, or has it go on: its connections stay, and nothing is read from them.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn pause(&self, is_paused: bool) -> Result<()> {
        let signal = if is_paused { "-STOP" } else { "-CONT" };
        ensure!(
            Command::new("kill").args([signal, &self.process.id().to_string()]).status()?.success(),
            "no signal"
        );
        Ok(())
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.process = launch(&self.program, self.folder.path(), self.port)?;
        Ok(())
    }

    /// Subscribes to a topic.
    ///
    /// # Errors
    /// The client cannot be started.
    pub fn subscribe(&self, topic: &str, flags: &[&str]) -> Result<Subscriber> {
        let mut process = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-t", topic, "-q", "1", "-F", "%r %t %x"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().context("its output is piped")?;
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Some(message) = line.ok().and_then(|line| Message::parse(&line)) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Ok(Subscriber { process, messages })
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// The client does not succeed.
    pub fn publish(&self, topic: &str, payload: &str, flags: &[&str]) -> Result<()> {
        let mut client = Command::new("mosquitto_pub");
        client.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-t", topic, "-m", payload]);
        ensure!(client.args(flags).status()?.success(), "mosquitto_pub fails");
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Subscriber {
    /// Waits for the first message that `wanted` accepts; those before it are dropped.
    ///
    /// # Errors
    /// There is none in time.
    pub fn find(&self, wanted: impl Fn(&Message) -> bool) -> Result<Message> {
        let mut seen = BTreeSet::new();
        let until = Instant::now() + TIMEOUT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(message) = self.messages.recv_timeout(left) else {
                bail!("not among the messages at {seen:?}")
            };
            if wanted(&message) {
                return Ok(message);
            }
            seen.insert(message.topic);
        }
    }

    /// Waits for a message with this topic and payload.
    ///
    /// # Errors
    /// There is none in time.
    pub fn expect(&self, topic: &str, payload: &str) -> Result<Message> {
        let found = self.find(|message| message.topic == topic && message.payload == payload.as_bytes());
        found.with_context(|| format!("{topic} {payload}"))
    }

    /// The messages that come within `time`.
    #[must_use]
    pub fn within(&self, time: Duration) -> Vec<Message> {
        std::thread::sleep(time);
        self.messages.try_iter().collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Message {
    fn parse(line: &str) -> Option<Self> {
        let (retained, rest) = line.split_once(' ')?;
        let (topic, hex) = rest.rsplit_once(' ')?;
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let payload = hex.as_bytes().chunks(2).map(byte).collect::<Option<_>>()?;
        Some(Message { retained: retained == "1", topic: topic.to_owned(), payload })
    }

    /// The payload as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.payload)
            .with_context(|| String::from_utf8_lossy(&self.payload).into_owned())
    }
}

/// A port of loopback that nothing listens at.
///
/// # Errors
/// An error of the operating system.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn launch(program: &Path, folder: &Path, port: u16) -> Result<Child> {
    let log = File::options().create(true).append(true).open(folder.join("log"))?;
    let mut process = Command::new(program)
        .args(["-v", "-c", "mosquitto.conf"])
        .current_dir(folder)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    for _ in 0..600 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(process);
        }
        if process.try_wait()?.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("mosquitto does not start: {}", fs::read_to_string(folder.join("log"))?)
}
