//! What frames of a run cost in energy, by the model of this device.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use narrows_policy::EnergyModel;

/// How far one frame moves the mean.
const WEIGHT: f64 = 0.2;

/// The energy of frames, noted where they are sent and read where the next ones are decided on.
#[derive(Debug)]
pub(crate) struct Spending {
    model: EnergyModel,
    /// Mean joules of sending a frame of late, as the bits of a number; a negative one before the first.
    sending: AtomicU64,
}

impl Spending {
    /// Nothing is spent yet.
    pub(crate) fn new(model: EnergyModel) -> Self {
        Spending { model, sending: AtomicU64::new((-1.0_f64).to_bits()) }
    }

    /// Joules of computing for so long.
    pub(crate) fn computing(&self, time: Duration) -> f64 {
        self.model.computing * time.as_secs_f64()
    }

    /// Joules of sending bytes over a link of `rate` bytes per second; takes note of them.
    pub(crate) fn send(&self, bytes: usize, rate: f64) -> f64 {
        let joules = self.model.joules(Duration::ZERO, bytes as u64, rate);
        let mean = self.sending().map_or(joules, |mean| mean + WEIGHT * (joules - mean));
        // One thread sends.
        self.sending.store(mean.to_bits(), Relaxed);
        joules
    }

    /// Mean joules of sending a frame of late; `None` before the first.
    pub(crate) fn sending(&self) -> Option<f64> {
        Some(f64::from_bits(self.sending.load(Relaxed))).filter(|mean| *mean >= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_the_frames_that_were_sent() {
        let spending = Spending::new(EnergyModel { computing: 4.0, per_byte: 1e-6, sending: 0.0 });
        assert_eq!((spending.sending(), spending.computing(Duration::from_millis(50))), (None, 0.2));
        assert!((spending.send(10_000, 1e5) - 0.01).abs() < 1e-12);
        assert!(spending.sending().is_some_and(|mean| (mean - 0.01).abs() < 1e-12));
        spending.send(20_000, 1e5);
        assert!(spending.sending().is_some_and(|mean| (mean - 0.012).abs() < 1e-12));
    }
}
