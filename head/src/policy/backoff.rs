//! Pauses between attempts to reach the server: exponential backoff with jitter, bounded in time.

use std::time::{Duration, Instant};

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: a server that returns is found within this time.
const LONGEST: Duration = Duration::from_secs(2);

/// Pauses between attempts to reach a server.
///
/// The pause doubles from 100 ms to 2 s. Each one is shortened by a random part of up to half, so that devices which
/// lost a server at the same moment do not return at the same moment.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    deadline: Instant,
    pause: Duration,
}

impl Backoff {
    /// Starts a series of attempts that ends `patience` after `now`.
    pub(crate) fn new(now: Instant, patience: Duration) -> Self {
        Backoff { deadline: now + patience, pause: FIRST }
    }

    /// When the last attempt must have begun.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The pause before the next attempt, or `None` once the deadline has passed. `jitter` is a random number from
    /// 0 to 1.
    pub(crate) fn next(&mut self, now: Instant, jitter: f64) -> Option<Duration> {
        let left = self.deadline.checked_duration_since(now).filter(|left| !left.is_zero())?;
        let pause = self.pause.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
        self.pause = (self.pause * 2).min(LONGEST);
        // The last attempt begins at the deadline; ending earlier would waste what is left.
        Some(pause.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn pauses_double_up_to_the_longest() {
        let now = clock();
        let mut backoff = Backoff::new(now, PATIENCE);
        let pauses: Vec<u128> = (0..7).map(|_| backoff.next(now, 0.0).unwrap().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
    }

    #[test]
    fn jitter_shortens_a_pause_by_up_to_half() {
        let now = clock();
        assert_eq!(Backoff::new(now, PATIENCE).next(now, 1.0), Some(Duration::from_millis(50)));
        assert_eq!(Backoff::new(now, PATIENCE).next(now, 9.0), Some(Duration::from_millis(50)));
    }

    #[test]
    fn the_time_spent_is_bounded_for_any_jitter() {
        for jitter in [0.0, 0.3, 1.0] {
            let start = clock();
            let (mut now, mut attempts) = (start, 0);
            let mut backoff = Backoff::new(now, PATIENCE);
            while let Some(pause) = backoff.next(now, jitter) {
                now += pause;
                attempts += 1;
            }
            assert_eq!(now - start, PATIENCE);
            assert!((8..20).contains(&attempts), "{attempts}");
        }
    }

    #[test]
    fn without_patience_there_is_no_second_attempt() {
        let now = clock();
        assert_eq!(Backoff::new(now, Duration::ZERO).next(now, 0.5), None);
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn clock() -> Instant {
        Instant::now()
    }
}
