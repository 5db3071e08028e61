//! A head on live sources, whose lines and messages are read while it runs.
#![expect(clippy::disallowed_methods, reason = "what must happen is given a bound")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{TIMEOUT, bundle, root};

/// Exit code of a run that SIGINT ended.
const INTERRUPTED: i32 = 130;
/// How long a run may take to end after it on a machine that does other things as well; two seconds are promised.
const END: Duration = Duration::from_secs(4);

/// A running head.
pub struct LiveHead {
    /// The process.
    pub child: Child,
    lines: Receiver<Value>,
    /// Standard error so far.
    messages: Arc<Mutex<String>>,
}

/// `narrows-head run` on this device alone, asked for classes.
#[must_use]
pub fn live_command(arguments: &[&str]) -> Command {
    let mut head = narrows_pair::head();
    head.args(["run", "--path", "local", "--tasks", "classify", "--bundle"]).arg(bundle());
    head.args(arguments).current_dir(root());
    head.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    head
}

impl LiveHead {
    /// Starts [`live_command`].
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Self::of(live_command(arguments))
    }

    /// Starts a command whose output is piped.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn of(mut command: Command) -> Result<Self> {
        let mut child = command.spawn().context("narrows-head cannot be started")?;
        let (sender, lines) = channel();
        let output = child.stdout.take().context("no output")?;
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let messages = Arc::new(Mutex::new(String::new()));
        let (mut pipe, heard) = (child.stderr.take().context("no messages")?, Arc::clone(&messages));
        thread::spawn(move || {
            let mut part = [0; 1024];
            while let Ok(read @ 1..) = pipe.read(&mut part) {
                lock(&heard).push_str(&String::from_utf8_lossy(&part[..read]));
            }
        });
        Ok(LiveHead { child, lines, messages })
    }

    /// What it has said on standard error so far.
    #[must_use]
    pub fn said(&self) -> String {
        lock(&self.messages).clone()
    }

    /// The next line.
    ///
    /// # Errors
    /// None within [`TIMEOUT`].
    pub fn line(&self) -> Result<Value> {
        self.lines.recv_timeout(TIMEOUT).with_context(|| format!("no line; {}", self.said()))
    }

    /// The lines up to the first one that fits.
    ///
    /// # Errors
    /// None within [`TIMEOUT`].
    pub fn lines_until(&self, fits: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let (begin, mut lines) = (Instant::now(), Vec::new());
        while begin.elapsed() < TIMEOUT {
            lines.push(self.line()?);
            if lines.last().is_some_and(&fits) {
                return Ok(lines);
            }
        }
        bail!("no such line; {}", self.said())
    }

    /// The lines that have come and were not taken.
    #[must_use]
    pub fn waiting_lines(&self) -> Vec<Value> {
        self.lines.try_iter().collect()
    }

    /// Waits until standard error has a text so often.
    ///
    /// # Errors
    /// It has not within [`TIMEOUT`].
    pub fn hears(&self, text: &str, times: usize) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < TIMEOUT {
            if self.said().matches(text).count() >= times {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("{text:?} was not said {times} times: {}", self.said())
    }

    /// Interrupts it; returns the lines that were left and all that it said.
    ///
    /// # Errors
    /// It does not end, or not as an interrupted run does.
    pub fn interrupt(mut self) -> Result<(Vec<Value>, String)> {
        let begin = Instant::now();
        ensure!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status()?.success());
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(begin.elapsed() < END, "it runs on after {END:?}: {}", self.said());
            thread::sleep(Duration::from_millis(10));
        };
        ensure!(status.code() == Some(INTERRUPTED), "{status}: {}", self.said());
        self.hears(" answered", 1)?;
        Ok((self.lines.iter().collect(), self.said()))
    }
}

impl Drop for LiveHead {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(text: &Mutex<String>) -> MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The processes that have this text in their command lines, other than heads.
///
/// # Errors
/// An error of the file system.
pub fn processes_with(text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains(text) && !line.contains("narrows-head") {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

/// Checks the lines of one camera: its frames are in the order of capture, none is there twice, and those that are missing were
/// counted as replaced.
///
/// # Errors
/// An error with the line that is wrong, or no line.
pub fn check_order(lines: &[Value], camera: &str) -> Result<()> {
    let (mut next, mut captured) = (None, "");
    for line in lines.iter().filter(|line| line["camera"] == camera) {
        let sequence = line["sequence"].as_u64().with_context(|| line.to_string())?;
        let replaced = line["replaced"].as_u64().unwrap_or(0);
        ensure!(next.is_none_or(|next| sequence == next + replaced), "not {next:?}: {line}");
        next = Some(sequence + 1);
        let at = line["captured"].as_str().with_context(|| line.to_string())?;
        ensure!(at >= captured && at.len() == 24 && at.ends_with('Z'), "not after {captured}: {line}");
        captured = at;
    }
    ensure!(next.is_some(), "no line of {camera}");
    Ok(())
}
