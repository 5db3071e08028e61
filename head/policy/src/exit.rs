//! Whether an early exit saves more energy than it costs.

use serde::{Deserialize, Serialize};

/// Frames on which it is tried before that is asked, and between two frames on which it is tried although it does not pay, so that
/// a change is noticed.
const LEARNING: u32 = 16;
const PROBE: u32 = 32;

/// How far one frame moves the estimates.
const WEIGHT: f64 = 1.0 / 16.0;

/// What early exits cost and save.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExitCosts {
    /// Joules of the local network on a frame.
    pub local: f64,
    /// Joules of a frame that is sent, without it; `None` before there was one.
    pub sent: Option<f64>,
    /// The share of frames that stay on the device.
    pub stays: f64,
    /// Frames on which it was tried.
    pub tried: u32,
    /// Frames since then on which it was not.
    pub skipped: u32,
}

impl ExitCosts {
    /// Whether the next frame is tried: while nothing is known, while the local network costs less than the share of frames that
    /// it keeps would cost to be sent, and now and then.
    #[must_use]
    pub fn try_next(&self) -> bool {
        let pays = self.sent.is_none_or(|sent| self.local < self.stays * sent);
        self.tried < LEARNING || self.skipped >= PROBE || pays
    }

    /// Takes note of a frame on which it was tried.
    pub fn tried(&mut self, joules: f64, stays: bool) {
        let weight = if self.tried < LEARNING { 1.0 / f64::from(self.tried + 1) } else { WEIGHT };
        self.local += weight * (joules - self.local);
        self.stays += weight * (f64::from(u8::from(stays)) - self.stays);
        (self.tried, self.skipped) = (self.tried.saturating_add(1), 0);
    }

    /// Takes note of a frame on which it was not.
    pub fn skipped(&mut self) {
        self.skipped = self.skipped.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of 320 frames are tried, after the first 64, where this share of them stays.
    fn tried(local: f64, sent: Option<f64>, every: u32) -> u32 {
        let mut costs = ExitCosts { sent, ..ExitCosts::default() };
        let mut count = 0;
        for frame in 0..384 {
            match costs.try_next() {
                true => {
                    costs.tried(local, frame % every == 0);
                    count += u32::from(frame >= 64);
                }
                false => costs.skipped(),
            }
        }
        count
    }

    #[test]
    fn an_exit_is_tried_while_it_saves_more_than_it_costs() {
        assert_eq!(tried(0.04, None, 2), 320, "nothing has been sent yet");
        assert_eq!(tried(0.04, Some(0.2), 2), 320);
        // Each tenth frame stays: 0.02 J are saved for 0.04 J. It is looked at again now and then.
        assert!((5..=12).contains(&tried(0.04, Some(0.2), 10)), "{}", tried(0.04, Some(0.2), 10));
    }

    #[test]
    fn a_change_is_noticed() {
        let mut costs = ExitCosts { sent: Some(0.2), ..ExitCosts::default() };
        (0..32).for_each(|_| costs.tried(0.04, false));
        assert!(!costs.try_next());
        // Sending has become dear, and frames stay again.
        costs.sent = Some(2.0);
        (0..PROBE).for_each(|_| costs.skipped());
        assert!(costs.try_next());
        costs.tried(0.04, true);
        assert!(costs.try_next(), "{costs:?}");
    }
}
