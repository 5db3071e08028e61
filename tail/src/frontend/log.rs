//! A limit of the lines that peers can cause in the log.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The period in which lines of one kind are limited.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);

/// Lines of one kind that are written in a period.
const LINES: u32 = 10;

/// A kind of line, by the event that causes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A handshake that failed.
    Handshake,
    /// A connection that ended before its hello.
    NoHello,
    /// A hello that was refused.
    HelloRefused,
    /// A connection that was opened.
    Connected,
    /// A connection that ended.
    Disconnected,
    /// A connection that was closed for a violation of the protocol.
    Violation,
    /// A packet or image that did not decode.
    NotDecoded,
    /// A request or reply for which there was no memory.
    NoMemory,
    /// A task that panicked.
    Panicked,
    /// An enrolment that failed before it was answered.
    Enrolment,
    /// An enrolment that was refused.
    EnrolmentRefused,
    /// An enrolment that was not begun.
    EnrolmentLimit,
}

/// The lines written and left out, by their kind.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<BTreeMap<Kind, Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    written: u32,
    left_out: u64,
}

impl Kind {
    /// The event, in words, for the line that says how many were left out.
    pub(crate) fn event(self) -> &'static str {
        match self {
            Kind::Handshake => "handshakes failed",
            Kind::NoHello => "connections ended before their hello",
            Kind::HelloRefused => "hellos refused",
            Kind::Connected => "connections opened",
            Kind::Disconnected => "connections ended",
            Kind::Violation => "connections closed for a violation of the protocol",
            Kind::NotDecoded => "packets or images not decoded",
            Kind::NoMemory => "frames refused for lack of memory",
            Kind::Panicked => "frames failed by a panic",
            Kind::Enrolment => "enrolments failed",
            Kind::EnrolmentRefused => "enrolments refused",
            Kind::EnrolmentLimit => "enrolments not begun",
        }
    }
}

impl LogLimit {
    /// Whether a line of this kind is to be written: the first 10 of each period are, and the others are counted.
    pub(crate) fn admit(&self, kind: Kind, now: Instant) -> bool {
        let mut windows = self.lock();
        let window = windows.entry(kind).or_insert(Window { began: now, written: 0, left_out: 0 });
        if now.saturating_duration_since(window.began) >= PERIOD {
            (window.began, window.written) = (now, 0);
        }
        let admitted = window.written < LINES;
        match admitted {
            true => window.written += 1,
            false => window.left_out += 1,
        }
        admitted
    }

    /// The number of lines of each kind that were left out since the last call, where there were any.
    pub(crate) fn take_left_out(&self) -> Vec<(Kind, u64)> {
        let mut windows = self.lock();
        let counts = windows.iter_mut().map(|(kind, window)| (*kind, std::mem::take(&mut window.left_out)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_flood_is_a_few_lines_and_a_count() {
        let (start, log) = (epoch(), LogLimit::default());
        let ms = Duration::from_millis;
        let written = (0..1000).filter(|at| log.admit(Kind::Handshake, start + ms(*at))).count();
        assert_eq!(written, 10);
        assert!(log.admit(Kind::Violation, start), "each kind has a limit of its own");
        assert_eq!(log.take_left_out(), [(Kind::Handshake, 990)]);
        assert_eq!(log.take_left_out(), []);
        assert!(!log.admit(Kind::Handshake, start + PERIOD - ms(1)));
        let written = (0..1000).filter(|at| log.admit(Kind::Handshake, start + PERIOD + ms(*at))).count();
        assert_eq!(written, 10);
        assert_eq!(log.take_left_out(), [(Kind::Handshake, 991)]);
    }

    #[test]
    fn each_kind_is_counted_in_words_of_its_own() {
        let kinds = [
            Kind::Handshake,
            Kind::NoHello,
            Kind::HelloRefused,
            Kind::Connected,
            Kind::Disconnected,
            Kind::Violation,
            Kind::NotDecoded,
            Kind::NoMemory,
            Kind::Panicked,
            Kind::Enrolment,
            Kind::EnrolmentRefused,
            Kind::EnrolmentLimit,
        ];
        let events: std::collections::BTreeSet<_> = kinds.map(Kind::event).into_iter().collect();
        assert_eq!(events.len(), kinds.len());
        assert!(events.iter().all(|event| event.contains(' ')), "{events:?}");
    }
}
