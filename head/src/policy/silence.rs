//! Whether a server that owes something is still there, by the datagrams that arrive from it.

use std::time::{Duration, Instant};

/// The shortest silence after which a server is suspected.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest: QUIC's own idle timeout is near then.
const LONGEST: Duration = Duration::from_secs(4);
/// Time for an acknowledgement in addition to the round trip: the peer may delay it by 25 ms, and may be busy.
const DELAY: Duration = Duration::from_millis(50);

/// What the silence of a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// Something arrived.
    Heard,
    /// Nothing.
    Waiting,
    /// It is to be asked for an acknowledgement, which comes at once from a server that is only busy.
    Probe,
    /// It gave no acknowledgement either.
    Silent,
}

/// Watches for the silence of a server.
///
/// QUIC repeats unacknowledged packets at intervals that double, so a server that was away for some seconds is noticed
/// seconds after its return, and one that lost its connections only then. A server that works on a frame for long sends
/// nothing either, so it is asked for an acknowledgement before it is suspected. It owes one from the first request after the
/// last datagram that arrived, also if the frames of these requests have been given up.
#[derive(Debug, Clone)]
pub(crate) struct Silence {
    received: u64,
    owed_since: Option<Instant>,
    asked_at: Option<Instant>,
    longest_gap: Duration,
}

impl Silence {
    /// Begins to listen when `received` datagrams have arrived.
    pub(crate) fn new(received: u64) -> Self {
        Silence { received, owed_since: None, asked_at: None, longest_gap: Duration::ZERO }
    }

    /// A request was sent at `now`, when `received` datagrams have arrived.
    pub(crate) fn sent(&mut self, now: Instant, received: u64) {
        if self.owed_since.is_none() {
            (self.received, self.owed_since) = (received, Some(now));
        }
    }

    /// Whether the server owes something.
    pub(crate) fn is_owed(&self) -> bool {
        self.owed_since.is_some()
    }

    /// Looks at `now`, when `received` datagrams have arrived over a path with this round trip time, whether the server is
    /// heard. `outstanding` says whether frames are without an answer; one of them cannot wait longer than `patience` for the
    /// question whether the server is there.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        received: u64,
        rtt: Duration,
        outstanding: bool,
        patience: Duration,
    ) -> Liveness {
        let Some(owed_since) = self.owed_since else { return Liveness::Waiting };
        let silent = now.saturating_duration_since(owed_since);
        if received != self.received {
            // Links that carry few packets per second are quiet between them.
            self.longest_gap = self.longest_gap.max(silent);
            (self.received, self.asked_at) = (received, None);
            self.owed_since = outstanding.then_some(now);
            return Liveness::Heard;
        }
        let limit = (6 * rtt).max(2 * self.longest_gap).clamp(SHORTEST, LONGEST);
        match self.asked_at {
            None if silent >= patience.min(limit / 2) => {
                self.asked_at = Some(now);
                Liveness::Probe
            }
            Some(_) if silent >= limit && self.is_unanswered(now, rtt) => Liveness::Silent,
            _ => Liveness::Waiting,
        }
    }

    /// Whether the server was asked for an acknowledgement and had the time to send it.
    pub(crate) fn is_unanswered(&self, now: Instant, rtt: Duration) -> bool {
        self.asked_at.is_some_and(|asked| now.saturating_duration_since(asked) >= 2 * rtt + DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Silence of a server that owes something since `start`.
    fn owed(start: Instant) -> Silence {
        let mut silence = Silence::new(5);
        assert!(!silence.is_owed());
        assert_eq!(silence.observe(start, 5, MS, false, LONGEST), Liveness::Waiting);
        silence.sent(start, 5);
        assert!(silence.is_owed());
        silence
    }

    #[test]
    fn a_server_is_asked_before_it_is_suspected() {
        let start = clock();
        let mut silence = owed(start);
        let look = |step: u32| silence.observe(start + step * 100 * MS, 5, MS, true, LONGEST);
        let seen: Vec<Liveness> = (1..=10).map(look).collect();
        assert!(seen[..4].iter().all(|&liveness| liveness == Liveness::Waiting), "{seen:?}");
        assert_eq!((seen[4], seen[8], seen[9]), (Liveness::Probe, Liveness::Waiting, Liveness::Silent));
        assert_eq!(silence.observe(start + 1100 * MS, 6, MS, true, LONGEST), Liveness::Heard);
        assert_eq!(silence.observe(start + 1200 * MS, 6, MS, true, LONGEST), Liveness::Waiting);
    }

    #[test]
    fn frames_that_are_given_up_do_not_hide_the_silence() {
        let start = clock();
        let mut silence = owed(start);
        assert_eq!(silence.observe(start + 250 * MS, 5, MS, true, 250 * MS), Liveness::Probe);
        assert!(!silence.is_unanswered(start + 300 * MS, MS));
        assert!(silence.is_unanswered(start + 302 * MS, MS));
        silence.sent(start + 900 * MS, 5);
        assert_eq!(silence.observe(start + 1000 * MS, 5, MS, false, LONGEST), Liveness::Silent);
        assert_eq!(silence.observe(start + 1100 * MS, 6, MS, false, LONGEST), Liveness::Heard);
        assert!(!silence.is_owed() && !silence.is_unanswered(start + 9000 * MS, MS));
    }

    #[test]
    fn a_slow_link_and_a_pause_between_frames_are_no_silence() {
        let start = clock();
        let mut silence = owed(start);
        assert_eq!(silence.observe(start + 900 * MS, 6, MS, true, LONGEST), Liveness::Heard);
        assert_eq!(silence.observe(start + 1700 * MS, 6, MS, true, LONGEST), Liveness::Waiting);
        assert_eq!(silence.observe(start + 1800 * MS, 6, MS, true, LONGEST), Liveness::Probe);
        assert_eq!(silence.observe(start + 2600 * MS, 6, MS, true, LONGEST), Liveness::Waiting);
        assert_eq!(silence.observe(start + 2700 * MS, 6, MS, true, LONGEST), Liveness::Silent);
        assert_eq!(silence.observe(start + 2800 * MS, 7, MS, false, LONGEST), Liveness::Heard);
        silence.sent(start + 9000 * MS, 9);
        assert_eq!(silence.observe(start + 9100 * MS, 9, MS, true, LONGEST), Liveness::Waiting);
        let mut satellite = owed(start);
        assert_eq!(satellite.observe(start + 1700 * MS, 5, 600 * MS, true, LONGEST), Liveness::Waiting);
        assert_eq!(satellite.observe(start + 1800 * MS, 5, 600 * MS, true, LONGEST), Liveness::Probe);
        assert_eq!(satellite.observe(start + 3600 * MS, 5, 600 * MS, true, LONGEST), Liveness::Silent);
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn clock() -> Instant {
        Instant::now()
    }
}
