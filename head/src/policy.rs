//! When to try again: exponential backoff with jitter, bounded in time. Pure: `now` and chance are arguments.

use std::time::{Duration, Instant};

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: a tail that comes back is found within this time.
const LONGEST: Duration = Duration::from_secs(2);

/// Pauses between tries to reach a server that is away.
///
/// The pause doubles from 100 ms to 2 s; each is shortened by up to half by chance, so that the devices that lost a
/// server together do not come back together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    deadline: Instant,
    pause: Duration,
}

impl Backoff {
    /// Tries for `patience` from `now` on.
    pub(crate) fn new(now: Instant, patience: Duration) -> Self {
        Backoff { deadline: now + patience, pause: FIRST }
    }

    /// When the last try must have begun.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How long to wait before the next try, or `None` when patience has run out. `random_unit` lies in 0 to 1.
    pub(crate) fn next(&mut self, now: Instant, random_unit: f64) -> Option<Duration> {
        let left = self.deadline.checked_duration_since(now).filter(|left| !left.is_zero())?;
        let pause = self.pause.mul_f64(1.0 - random_unit.clamp(0.0, 1.0) / 2.0);
        self.pause = (self.pause * 2).min(LONGEST);
        // The last try is made at the deadline rather than given up early.
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
    fn chance_takes_up_to_half_away() {
        let now = clock();
        assert_eq!(Backoff::new(now, PATIENCE).next(now, 1.0), Some(Duration::from_millis(50)));
        assert_eq!(Backoff::new(now, PATIENCE).next(now, 9.0), Some(Duration::from_millis(50)));
    }

    #[test]
    fn the_time_spent_is_bounded_whatever_chance_does() {
        for random_unit in [0.0, 0.3, 1.0] {
            let start = clock();
            let (mut now, mut tries) = (start, 0);
            let mut backoff = Backoff::new(now, PATIENCE);
            while let Some(pause) = backoff.next(now, random_unit) {
                now += pause;
                tries += 1;
            }
            assert_eq!(now - start, PATIENCE);
            assert!((8..20).contains(&tries), "{tries}");
        }
    }

    #[test]
    fn no_patience_is_no_second_try() {
        let now = clock();
        assert_eq!(Backoff::new(now, Duration::ZERO).next(now, 0.5), None);
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn clock() -> Instant {
        Instant::now()
    }
}
