//! Messages to systemd: `Type=notify-reload` and `WatchdogSec=` of sd_notify(3).

use std::{sync::Mutex, time::Duration};

use sd_notify::NotifyState;

/// Tells the service manager what this program is doing. Without one, as on a terminal, every message goes nowhere.
#[derive(Debug, Default)]
pub struct Notifier {
    /// What was said last, so that nothing is said twice.
    status: Mutex<String>,
}

/// The environment variables by which systemd tells a program where its messages go. A program that is started in turn must not
/// have them: its messages would count as those of this program.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

impl Notifier {
    /// Says that the program does its work: it has started, or has read its settings again.
    pub fn ready(&self, status: &str) {
        self.remember(status);
        send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Says in words what the program does; `systemctl status` shows them.
    pub fn status(&self, status: &str) {
        if self.remember(status) {
            send(&[NotifyState::Status(status)]);
        }
    }

    /// Says that the settings are read again; [`Notifier::ready`] has to follow.
    pub fn reloading(&self) {
        // systemd takes the message as the answer to its own request by the time in it.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(_) => send(&[NotifyState::Reloading]),
        }
    }

    /// Says that the program ends.
    pub fn stopping(&self, status: &str) {
        self.remember(status);
        send(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// Says that the program still works. systemd ends and restarts one that does not say so for `WatchdogSec=`.
    pub fn alive(&self) {
        send(&[NotifyState::Watchdog]);
    }

    /// How often [`Notifier::alive`] is to be called: half of `WatchdogSec=`; `None` where nobody waits for it.
    #[must_use]
    pub fn watchdog() -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
    }

    /// Takes note of a status; returns whether it is new.
    fn remember(&self, status: &str) -> bool {
        // A text is whole, whatever panicked.
        let mut last = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_new = *last != status;
        status.clone_into(&mut last);
        is_new
    }
}

/// A service manager that takes no messages any more is no reason to stop.
fn send(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}
