//! A program that runs in a process group of its own: its frames, its last words, and its end.
#![expect(clippy::disallowed_methods, reason = "a program is given a bounded time to end")]

use std::{
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

use super::{address::without_secrets, command::Attempt};
use crate::name::Escaped;

/// How long a program may take to end by itself once it has closed its output, and after SIGTERM.
const GRACE: Duration = Duration::from_millis(200);
/// How often it is asked whether it has.
const STEP: Duration = Duration::from_millis(5);
/// Most bytes of standard error that are kept.
const WORDS_MAX: usize = 4096;
/// Most characters of its last line that are quoted.
const QUOTED: usize = 300;

/// A program that is running. Dropping it ends it and every process of its group.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pub(super) output: ChildStdout,
    /// Standard error, until it was closed.
    pub(super) messages: Option<ChildStderr>,
    pub(super) words: LastWords,
    has_ended: bool,
}

/// The end of what a program wrote to standard error.
#[derive(Debug, Default)]
pub(super) struct LastWords(Vec<u8>);

impl Running {
    /// Starts a program, with nothing on its standard input.
    ///
    /// # Errors
    /// That of the operating system.
    pub(super) fn start(attempt: &Attempt) -> io::Result<Self> {
        let mut command = Command::new(attempt.program);
        command.args(&attempt.arguments);
        // Ctrl-C is this program's to handle; it ends the other by itself.
        command.process_group(0);
        // Its messages to the service manager would count as this program's.
        for variable in narrows_service::VARIABLES {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (output, messages) = (child.stdout.take(), child.stderr.take());
        let output = output.expect("standard output was piped");
        if let Some(messages) = &messages {
            // What cannot be set is read as well: only after it was polled.
            let _ = fcntl_setfl(messages, OFlags::NONBLOCK);
        }
        Ok(Running { child, output, messages, words: LastWords::default(), has_ended: false })
    }

    /// Reads what the program has written to standard error.
    pub(super) fn hear(&mut self) {
        let mut part = [0; 1024];
        while let Some(messages) = &mut self.messages {
            match messages.read(&mut part) {
                Ok(0) => self.messages = None,
                Ok(read) => self.words.add(&part[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.messages = None,
            }
        }
    }

    /// Waits for the program to end by itself, and ends it if it does not: SIGTERM, and SIGKILL after that, to its whole
    /// group. Returns how it ended, and whether it did so by itself.
    pub(super) fn finish(&mut self, is_over: bool) -> (Option<ExitStatus>, bool) {
        let by_itself = is_over && self.ends_within(GRACE);
        self.hear();
        (self.end(), by_itself)
    }

    fn end(&mut self) -> Option<ExitStatus> {
        if std::mem::replace(&mut self.has_ended, true) {
            return None;
        }
        // The process is not waited for before its group is signalled: its number is not given to another one meanwhile.
        if !self.ends_within(Duration::ZERO) {
            self.signal(Signal::TERM);
            self.ends_within(GRACE);
        }
        self.signal(Signal::KILL);
        self.child.wait().ok()
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // A group without a process is no error here.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Whether the program has ended, or does so within a time. It is not waited for.
    fn ends_within(&self, time: Duration) -> bool {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return true };
        let begin = Instant::now();
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(pid), options) {
                Ok(None) | Err(rustix::io::Errno::INTR) if begin.elapsed() < time => thread::sleep(STEP),
                Ok(None) | Err(rustix::io::Errno::INTR) => return false,
                _ => return true,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl LastWords {
    fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.drain(..self.0.len().saturating_sub(WORDS_MAX));
    }

    /// Whether they contain a text.
    pub(super) fn contain(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.0).contains(text)
    }

    /// The last line that is not empty, without passwords, and without characters that would change the place where it is
    /// shown.
    pub(super) fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.0);
        let line = text.split(['\n', '\r']).map(str::trim).rfind(|line| !line.is_empty())?;
        let quoted: String = without_secrets(line).chars().take(QUOTED).collect();
        Some(Escaped(quoted.as_ref()).to_string())
    }
}
