//! Whether a server that owes answers is still there, by the datagrams that arrive from it.

use std::time::{Duration, Instant};

/// The shortest silence after which a server is suspected.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest: QUIC's own idle timeout is near then.
const LONGEST: Duration = Duration::from_secs(4);

/// What the silence of a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// Nothing.
    Fine,
    /// It is to be asked for an acknowledgement, which comes at once from a server that is only busy.
    Ask,
    /// It gave no acknowledgement either.
    Silent,
}

/// Watches for the silence of a server while answers are outstanding.
///
/// QUIC repeats unacknowledged packets at intervals that double, so a server that was away for some seconds is noticed
/// seconds after its return, and one that lost its connections only then. A server that works on a frame for long sends
/// nothing either, so it is asked for an acknowledgement before it is suspected.
#[derive(Debug, Clone)]
pub(crate) struct Silence {
    received: u64,
    heard_at: Instant,
    asked: bool,
    longest_gap: Duration,
}

impl Silence {
    /// Begins to listen at `now`, when `received` datagrams have arrived.
    pub(crate) fn new(now: Instant, received: u64) -> Self {
        Silence { received, heard_at: now, asked: false, longest_gap: Duration::ZERO }
    }

    /// Nothing is outstanding at `now`: silence says nothing.
    pub(crate) fn rest(&mut self, now: Instant, received: u64) {
        (self.received, self.heard_at, self.asked) = (received, now, false);
    }

    /// Answers are outstanding at `now`, when `received` datagrams have arrived over a path with this round trip time.
    pub(crate) fn observe(&mut self, now: Instant, received: u64, rtt: Duration) -> Hearing {
        let silent = now.saturating_duration_since(self.heard_at);
        if received != self.received {
            // Links that carry few packets per second are quiet between them.
            self.longest_gap = self.longest_gap.max(silent);
            self.rest(now, received);
            return Hearing::Fine;
        }
        let limit = (6 * rtt).max(2 * self.longest_gap).clamp(SHORTEST, LONGEST);
        match silent {
            silent if silent >= limit && self.asked => Hearing::Silent,
            silent if silent >= limit / 2 && !self.asked => {
                self.asked = true;
                Hearing::Ask
            }
            _ => Hearing::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_server_is_asked_before_it_is_suspected() {
        let start = clock();
        let mut silence = Silence::new(start, 5);
        let seen: Vec<Hearing> =
            (1..=10).map(|step| silence.observe(start + step * 100 * MS, 5, MS)).collect();
        assert!(seen[..4].iter().all(|&hearing| hearing == Hearing::Fine), "{seen:?}");
        assert_eq!((seen[4], seen[8], seen[9]), (Hearing::Ask, Hearing::Fine, Hearing::Silent));
        assert_eq!(silence.observe(start + 1100 * MS, 6, MS), Hearing::Fine);
        assert_eq!(silence.observe(start + 1200 * MS, 6, MS), Hearing::Fine);
    }

    #[test]
    fn a_slow_link_and_a_pause_between_frames_are_no_silence() {
        let start = clock();
        let mut silence = Silence::new(start, 0);
        assert_eq!(silence.observe(start + 900 * MS, 1, MS), Hearing::Fine);
        assert_eq!(silence.observe(start + 2100 * MS, 1, MS), Hearing::Ask, "asked after 0.9 s of 1.8 s");
        assert_eq!(silence.observe(start + 2600 * MS, 1, MS), Hearing::Fine);
        assert_eq!(silence.observe(start + 2700 * MS, 1, MS), Hearing::Silent);
        silence.rest(start + 9000 * MS, 1);
        assert_eq!(silence.observe(start + 9100 * MS, 1, MS), Hearing::Fine);
        let mut satellite = Silence::new(start, 0);
        assert_eq!(satellite.observe(start + 1700 * MS, 0, 600 * MS), Hearing::Fine);
        assert_eq!(satellite.observe(start + 1800 * MS, 0, 600 * MS), Hearing::Ask);
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn clock() -> Instant {
        Instant::now()
    }
}
