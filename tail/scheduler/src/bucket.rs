//! A token bucket.

use std::time::Duration;

/// Tokens that come at a rate, up to a capacity. It may be overdrawn by what turns out to cost more than was expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    level: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn full(now: Duration, capacity: f64) -> Bucket {
        Bucket { level: capacity, at: now }
    }

    /// Adds the tokens that have come until `now`, `rate` per second.
    pub(crate) fn refill(&mut self, now: Duration, rate: f64, capacity: f64) {
        let time = now.saturating_sub(self.at).as_secs_f64();
        self.level = (self.level + rate * time).min(capacity);
        self.at = self.at.max(now);
    }

    /// The tokens, below 0 where it is overdrawn.
    pub(crate) fn level(&self) -> f64 {
        self.level
    }

    /// Takes tokens, or gives them back where `tokens` is below 0.
    pub(crate) fn take(&mut self, tokens: f64) {
        self.level -= tokens;
    }

    /// The time until there are `tokens`.
    pub(crate) fn time_until(&self, tokens: f64, rate: f64) -> Duration {
        let missing = (tokens - self.level).max(0.0);
        Duration::try_from_secs_f64(missing / rate).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_at_the_rate_up_to_the_capacity() {
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::full(second, 10.0);
        bucket.take(14.0);
        assert_eq!(bucket.time_until(1.0, 5.0), second);
        bucket.refill(second * 2, 5.0, 10.0);
        assert_eq!(bucket.level(), 1.0);
        // A clock that seems to go back adds nothing and is not counted twice.
        bucket.refill(second, 5.0, 10.0);
        bucket.refill(second * 2, 5.0, 10.0);
        assert_eq!(bucket.level(), 1.0);
        bucket.refill(second * 60, 5.0, 10.0);
        assert_eq!(bucket.level(), 10.0);
    }
}
