//! A head that runs on while servers come and go.
#![expect(clippy::disallowed_methods, reason = "lines are told apart by when they came")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::spawn,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use narrows_pair::terminate;
use serde_json::Value;

use crate::TIMEOUT;

/// A running head whose lines are read as they come.
pub struct SteadyHead {
    child: Child,
    lines: Receiver<(Instant, Value)>,
    seen: Vec<Value>,
}

impl SteadyHead {
    /// Starts it; its standard error is that of the test.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let reader = BufReader::new(child.stdout.take().context("an output")?);
        let (found, lines) = channel();
        spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                let _ = found.send((Instant::now(), line));
            }
        });
        Ok(SteadyHead { child, lines, seen: Vec::new() })
    }

    /// Waits for a line after `since` on which `wanted` holds, and returns when it came.
    ///
    /// # Errors
    /// None came within [`TIMEOUT`].
    pub fn wait_for(&mut self, since: Instant, wanted: impl Fn(&Value) -> bool) -> Result<Instant> {
        loop {
            let (at, line) = self.lines.recv_timeout(TIMEOUT).context("no such line in time")?;
            let found = at > since && wanted(&line);
            self.seen.push(line);
            if found {
                return Ok(at);
            }
        }
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the head and checks that every frame has ended once.
    ///
    /// # Errors
    /// A frame has not, or has ended twice.
    pub fn finish(mut self) -> Result<Vec<Value>> {
        terminate(self.child.id())?;
        self.seen.extend(self.lines.iter().map(|(_, line)| line));
        self.child.wait()?;
        let mut frames: BTreeMap<u64, usize> = BTreeMap::new();
        for line in &self.seen {
            *frames.entry(line["frame"].as_u64().with_context(|| line.to_string())?).or_default() += 1;
        }
        let last = frames.keys().last().copied().context("no frame")?;
        ensure!(frames.len() as u64 == last + 1, "{} of {} frames ended", frames.len(), last + 1);
        ensure!(frames.values().all(|&times| times == 1), "a frame ended twice: {frames:?}");
        Ok(std::mem::take(&mut self.seen))
    }
}

impl Drop for SteadyHead {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
