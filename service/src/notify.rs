//! Messages to systemd: `Type=notify-reload` and `WatchdogSec=` of sd_notify(3).

use std::{
    env,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use sd_notify::NotifyState;

/// The environment variables by which systemd tells a program where its messages go. A program that is started in turn must not
/// have them: its messages would count as those of this program.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// Messages that may wait for a service manager that does not read them.
const WAITING: usize = 16;
/// How long the last message may take.
const FAREWELL: Duration = Duration::from_millis(100);

/// Tells the service manager what this program is doing. Without one, as on a terminal, every message goes nowhere. A thread of its
/// own sends them, so that a service manager which hangs holds nobody up.
#[derive(Debug)]
pub struct Notifier {
    /// `None` where there is no service manager.
    messages: Option<SyncSender<Message>>,
    /// What was said last, so that nothing is said twice.
    status: Mutex<String>,
}

#[derive(Debug)]
struct Message {
    text: String,
    /// Told when it was sent.
    sent: Option<SyncSender<()>>,
}

impl Default for Notifier {
    fn default() -> Self {
        let messages = env::var_os(VARIABLES[0]).and_then(|_| {
            let (sender, messages) = sync_channel(WAITING);
            let thread = thread::Builder::new().name("notify".to_owned());
            thread.spawn(move || send(&messages)).ok().map(|_| sender)
        });
        Notifier { messages, status: Mutex::default() }
    }
}

impl Notifier {
    /// Says that the program does its work: it has started, or has read its settings again.
    pub fn ready(&self, status: &str) {
        let status = line(status);
        self.remember(&status);
        self.say(&[NotifyState::Ready, NotifyState::Status(&status)], None);
    }

    /// Says in words what the program does; `systemctl status` shows them.
    pub fn status(&self, status: &str) {
        let status = line(status);
        if self.remember(&status) {
            self.say(&[NotifyState::Status(&status)], None);
        }
    }

    /// Says that the settings are read again; [`Notifier::ready`] has to follow.
    pub fn reloading(&self) {
        // systemd takes the message as the answer to its own request by the time in it.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.say(&[NotifyState::Reloading, now], None),
            Err(_) => self.say(&[NotifyState::Reloading], None),
        }
    }

    /// Says that the program ends, and waits a moment until that is sent, since the process may end before.
    pub fn stopping(&self, status: &str) {
        let status = line(status);
        self.remember(&status);
        let (sent, done) = sync_channel(1);
        self.say(&[NotifyState::Stopping, NotifyState::Status(&status)], Some(sent));
        // Where it is not sent by then, the end itself says the same.
        let _ = done.recv_timeout(FAREWELL);
    }

    /// Says that the program still works. systemd ends and restarts one that does not say so for `WatchdogSec=`.
    pub fn alive(&self) {
        self.say(&[NotifyState::Watchdog], None);
    }

    /// How often [`Notifier::alive`] is to be called: half of `WatchdogSec=`; `None` where nobody waits for it.
    #[must_use]
    pub fn watchdog() -> Option<Duration> {
        // A timer needs a period.
        sd_notify::watchdog_enabled().map(|timeout| timeout / 2).filter(|period| !period.is_zero())
    }

    fn say(&self, states: &[NotifyState<'_>], sent: Option<SyncSender<()>>) {
        let Some(messages) = &self.messages else { return };
        let mut text = String::new();
        for state in states {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{state}");
        }
        // The service manager has not read for long: it will not miss this one.
        let _ = messages.try_send(Message { text, sent });
    }

    /// Takes note of a status; returns whether it is new.
    fn remember(&self, status: &str) -> bool {
        // A text is whole, whatever panicked.
        let mut last = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *last != status;
        status.clone_into(&mut last);
        is_new
    }
}

/// A status in one line; a message has one assignment in each.
fn line(status: &str) -> String {
    status.lines().collect::<Vec<_>>().join("; ")
}

/// Sends messages until no more can come.
fn send(messages: &Receiver<Message>) {
    for Message { text, sent } in messages {
        // A service manager that takes no messages any more is no reason to stop.
        let _ = sd_notify::notify(&[NotifyState::Custom(text.trim_end())]);
        if let Some(sent) = sent {
            // Nobody waits for it any longer.
            let _ = sent.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_said_once_and_in_one_line() {
        let notifier = Notifier { messages: None, status: Mutex::default() };
        assert!(notifier.remember("a") && !notifier.remember("a") && notifier.remember("b"));
        assert_eq!(line("one\ntwo\n"), "one; two");
        notifier.stopping("nobody waits");
    }

    #[test]
    fn messages_beyond_those_that_may_wait_are_left_out() {
        let (messages, waiting) = sync_channel(WAITING);
        let notifier = Notifier { messages: Some(messages), status: Mutex::default() };
        notifier.ready("first");
        for _ in 0..3 * WAITING {
            notifier.alive();
        }
        let texts: Vec<String> = waiting.try_iter().map(|message| message.text).collect();
        assert_eq!(texts.len(), WAITING);
        assert_eq!((texts[0].as_str(), texts[1].as_str()), ("READY=1\nSTATUS=first\n", "WATCHDOG=1\n"));
    }
}
