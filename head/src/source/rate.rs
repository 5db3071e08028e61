//! How often frames of a source are taken.

use std::time::{Duration, Instant};

/// Spaces the frames of one source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    interval: Duration,
    /// When the next frame may be taken; `None` before the first one.
    next: Option<Instant>,
}

impl Rate {
    /// At most `rate` frames a second; `None` for no limit.
    pub(super) fn new(rate: Option<f64>) -> Self {
        let interval = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        Rate { interval, next: None }
    }

    /// When the next frame may be taken, if that is after `now`.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| *next > now)
    }

    /// Counts a frame that is taken at `now`. One that comes late does not make the next one come early by more than the time
    /// between two.
    pub(super) fn count(&mut self, now: Instant) {
        let planned = self.next.map_or(now, |next| next.max(now.checked_sub(self.interval).unwrap_or(now)));
        self.next = Some(planned + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn frames_keep_their_distance_on_average() {
        let (begin, mut rate) = (Instant::now(), Rate::new(Some(10.0)));
        let mut taken = 0;
        // A frame every 33 ms is offered for three seconds.
        for step in 0..91 {
            let now = begin + Duration::from_millis(33 * step);
            if rate.wait(now).is_none() {
                rate.count(now);
                taken += 1;
            }
        }
        assert!((30..=31).contains(&taken), "{taken}");
        let late = begin + Duration::from_secs(100);
        rate.count(late);
        assert!(rate.wait(late).is_none());
        rate.count(late);
        assert!(rate.wait(late).is_some());
        let mut unlimited = Rate::new(None);
        unlimited.count(begin);
        assert!(unlimited.wait(begin).is_none());
    }
}
