//! How long frames waited of late, for clients that choose among several servers.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How far one frame moves the mean.
const WEIGHT: f64 = 0.1;
/// The time in which the mean halves while no frame is answered: a server without work is idle, whatever it was before.
const HALVING: Duration = Duration::from_secs(1);

/// The mean time that frames waited before work on them began.
#[derive(Debug, Default)]
pub(crate) struct Load(Mutex<Mean>);

#[derive(Debug, Default)]
struct Mean {
    seconds: f64,
    at: Option<Instant>,
}

impl Load {
    /// Takes the waiting of a frame into the mean.
    pub(crate) fn observe(&self, now: Instant, waited: Duration) {
        let mut mean = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mean.seconds = mean.decayed(now);
        mean.seconds += WEIGHT * (waited.as_secs_f64() - mean.seconds);
        mean.at = Some(now);
    }

    /// The mean at this time.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let mean = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::try_from_secs_f64(mean.decayed(now)).unwrap_or_default()
    }
}

impl Mean {
    fn decayed(&self, now: Instant) -> f64 {
        let idle = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.seconds * 0.5f64.powf(idle.as_secs_f64() / HALVING.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn waiting_is_remembered_while_frames_come_and_forgotten_after_them() {
        let (load, now) = (Load::default(), Instant::now());
        assert_eq!(load.wait(now), Duration::ZERO);
        (0..100).for_each(|_| load.observe(now, Duration::from_millis(80)));
        assert!(load.wait(now) > Duration::from_millis(79), "{:?}", load.wait(now));
        assert!(load.wait(now + HALVING) < Duration::from_millis(41));
        assert!(load.wait(now + 20 * HALVING) < Duration::from_micros(1));
    }
}
