//! Pauses between attempts to reach the server, by how the last one failed.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

/// The first pause after a failure that may be over at the next attempt.
const FIRST: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST: Duration = Duration::from_secs(2);
/// The first pause after a failure that lasts until somebody mends it.
const LASTING_FIRST: Duration = Duration::from_secs(5);
/// The longest such pause.
const LASTING_LONGEST: Duration = Duration::from_secs(300);
/// The longest pause that a server's hint is believed.
const LONGEST_HINT: Duration = Duration::from_secs(60);
/// Time for which attempts follow each other fast while nobody answers. An attempt costs a datagram of 1200 bytes.
const FAST: Duration = Duration::from_secs(60);

/// Pauses between attempts to reach a server.
///
/// After a failure the pause doubles, from 100 ms to 2 s, or from 5 s to 5 min if the failure will not mend itself. Each pause
/// is shortened by a random part of up to half, so that devices which lost a server at the same moment do not return at the
/// same moment. While nobody answers, attempts begin at a fixed interval: a server that returns is found within it.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    began: Instant,
    failures: u32,
    lasting: u32,
}

impl Pace {
    /// The pace of a search that begins at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Pace { began: now, failures: 0, lasting: 0 }
    }

    /// The pause after a failure that may be over at the next attempt. `jitter` is a random number from 0 to 1.
    pub(crate) fn after_failure(&mut self, jitter: f64) -> Duration {
        let pause = doubled(FIRST, self.failures, LONGEST);
        self.failures = self.failures.saturating_add(1);
        shortened(pause, jitter)
    }

    /// The pause after a server that has no room or no time, which may say when to try again.
    pub(crate) fn after_refusal(&mut self, hint: Option<Duration>, jitter: f64) -> Duration {
        self.after_failure(jitter).max(hint.unwrap_or_default().min(LONGEST_HINT))
    }

    /// The pause after a failure that lasts until somebody mends it.
    pub(crate) fn after_lasting(&mut self, jitter: f64) -> Duration {
        let pause = doubled(LASTING_FIRST, self.lasting, LASTING_LONGEST);
        self.lasting = self.lasting.saturating_add(1);
        shortened(pause, jitter)
    }

    /// The time from the beginning of an attempt that nobody has answered yet to the beginning of the next one: `interval` in
    /// the first minute, then at least 2 s.
    pub(crate) fn while_silent(&self, now: Instant, interval: Duration) -> Duration {
        match now.saturating_duration_since(self.began) < FAST {
            true => interval,
            false => interval.max(LONGEST),
        }
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(2u32.saturating_pow(times)).min(longest)
}

fn shortened(pause: Duration, jitter: f64) -> Duration {
    pause.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

/// A random number from 0 to 1 for [`Pace`], which needs no quality beyond that.
pub(crate) fn jitter() -> f64 {
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pace = Pace::new(clock());
        let pauses: Vec<u128> = (0..7).map(|_| pace.after_failure(0.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        let pauses: Vec<u64> = (0..8).map(|_| pace.after_lasting(0.0).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        pace.failures = u32::MAX;
        assert_eq!(pace.after_failure(0.0), LONGEST);
    }

    #[test]
    fn jitter_shortens_a_pause_by_up_to_half() {
        let mut pace = Pace::new(clock());
        assert_eq!(pace.clone().after_failure(1.0), Duration::from_millis(50));
        assert_eq!(pace.after_failure(9.0), Duration::from_millis(50));
    }

    #[test]
    fn a_hint_is_kept_within_reason() {
        let mut pace = Pace::new(clock());
        assert_eq!(pace.after_refusal(None, 0.0), FIRST);
        assert_eq!(pace.after_refusal(Some(FIRST), 0.0), 2 * FIRST);
        assert_eq!(pace.after_refusal(Some(5 * LONGEST), 0.0), 5 * LONGEST);
        assert_eq!(pace.after_refusal(Some(Duration::MAX), 0.0), LONGEST_HINT);
    }

    #[test]
    fn an_unanswered_search_slows_down_after_a_minute() {
        let now = clock();
        let pace = Pace::new(now);
        let interval = Duration::from_millis(500);
        assert_eq!(pace.while_silent(now + Duration::from_secs(59), interval), interval);
        assert_eq!(pace.while_silent(now + FAST, interval), LONGEST);
        assert_eq!(pace.while_silent(now + Duration::from_secs(61), interval), LONGEST);
        assert_eq!(pace.while_silent(now + Duration::from_secs(61), 2 * LONGEST), 2 * LONGEST);
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn clock() -> Instant {
        Instant::now()
    }
}
