//! A link as configured and as measured, and whether the two agree (pure).

use serde::{Deserialize, Serialize};

use crate::{
    link::{Direction, Link},
    probe::Probed,
    shape::Loss,
};

/// Relative tolerance of the rate, and of the rate with tbf compared with the relay's.
const RATE: f64 = 0.03;
const TBF: f64 = 0.05;
/// Absolute and relative tolerance of the median delay; the wider one applies.
const DELAY_MS: f64 = 1.0;
const DELAY: f64 = 0.02;
/// Standard deviations on either side of the configured loss: a right one lies outside in 1 of 370 measurements.
const DEVIATIONS: f64 = 3.0;

/// A link as configured and as measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fidelity {
    /// The configured link.
    pub link: Link,
    /// From the head to the tail.
    pub up: DirectionFidelity,
    /// From the tail to the head.
    pub down: DirectionFidelity,
    /// Share of one core that the relay used during the measurement.
    pub relay_cpu: f64,
}

/// One direction of a link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectionFidelity {
    /// Configured rate in 1000 bit/s on the wire; `None` for no limit.
    pub asked_kbit: Option<f64>,
    /// Measured rate of a line that was never idle; `None` where there is no limit.
    pub kbit: Option<f64>,
    /// Measured rate with the kernel's tbf instead of the relay.
    pub tbf_kbit: Option<f64>,
    /// Configured one-way time of a small datagram on an idle line: its bits, half the round trip, the mean jitter.
    pub asked_ms: f64,
    /// Measured median one-way time.
    pub ms_p50: f64,
    /// Measured 95th percentile of the one-way time.
    pub ms_p95: f64,
    /// Configured share of lost datagrams.
    pub asked_loss: f64,
    /// Datagrams sent.
    pub sent: usize,
    /// Datagrams that did not arrive.
    pub missing: usize,
    /// Least and most datagrams that may be missing for the loss to be right.
    pub missing_bounds: (usize, usize),
    /// Datagrams that arrived after one that was sent later.
    pub overtaken: usize,
}

impl Fidelity {
    /// Whether both directions are within their tolerances.
    #[must_use]
    pub fn pass(&self) -> bool {
        self.up.pass() && self.down.pass()
    }
}

impl DirectionFidelity {
    /// Compares a measurement with the configuration.
    pub(crate) fn new(link: &Link, direction: Direction, probed: &Probed) -> Self {
        let shape = link.shape(direction);
        let mut delays_ms = probed.delays_ms.clone();
        delays_ms.sort_by(f64::total_cmp);
        let line_ms = shape.rate.map_or(0.0, |rate| probed.small as f64 * 8e3 / rate as f64);
        DirectionFidelity {
            asked_kbit: shape.rate.map(|rate| rate as f64 / 1e3),
            kbit: probed.kbit,
            tbf_kbit: None,
            asked_ms: line_ms + (link.rtt_ms + link.jitter_ms) / 2.0,
            ms_p50: quantile(&delays_ms, 0.5),
            ms_p95: quantile(&delays_ms, 0.95),
            asked_loss: link.loss,
            sent: probed.sent,
            missing: probed.missing,
            missing_bounds: loss_bounds(shape.loss, link.loss, probed.sent),
            overtaken: probed.overtaken,
        }
    }

    /// Relative error of the measured rate.
    #[must_use]
    pub fn rate_off(&self) -> Option<f64> {
        Some(self.kbit? / self.asked_kbit? - 1.0)
    }

    /// Relative difference of the rate with tbf from the rate with the relay.
    #[must_use]
    pub fn tbf_off(&self) -> Option<f64> {
        Some(self.tbf_kbit? / self.kbit? - 1.0)
    }

    /// Whether the rate is within 3 %, or not limited.
    #[must_use]
    pub fn rate_holds(&self) -> bool {
        match (self.asked_kbit, self.rate_off()) {
            (None, _) => true,
            (Some(_), off) => off.is_some_and(|off| off.abs() <= RATE),
        }
    }

    /// Whether the median delay is within 1 ms or 2 %.
    #[must_use]
    pub fn delay_holds(&self) -> bool {
        let off = (self.ms_p50 - self.asked_ms).abs();
        off <= DELAY_MS || off <= DELAY * self.asked_ms
    }

    /// Whether the loss is within three standard deviations.
    #[must_use]
    pub fn loss_holds(&self) -> bool {
        (self.missing_bounds.0..=self.missing_bounds.1).contains(&self.missing)
    }

    /// Whether rate, delay and loss are within their tolerances, and the rate with tbf, where it was measured, is within
    /// 5 % of the relay's.
    #[must_use]
    pub fn pass(&self) -> bool {
        let tbf = self.tbf_off().is_none_or(|off| off.abs() <= TBF);
        self.rate_holds() && self.delay_holds() && self.loss_holds() && tbf
    }
}

/// The smallest of `sorted` values that at least a share `q` of them do not exceed; 0 without values.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Least and most of `sent` datagrams that may be missing: the binomial mean and three standard deviations, which are wider
/// where losses come in bursts.
fn loss_bounds(loss: Loss, share: f64, sent: usize) -> (usize, usize) {
    let correlation = match loss {
        Loss::Runs { enter, leave } => 1.0 - enter - leave,
        _ => 0.0,
    };
    let mean = share * sent as f64;
    let spread = (mean * (1.0 - share) * (1.0 + correlation) / (1.0 - correlation)).sqrt();
    let low = (mean - DEVIATIONS * spread).max(0.0).ceil() as usize;
    (low, (mean + DEVIATIONS * spread).floor() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Ladder;

    /// The upward direction of `lte` with a measurement that fits it, but for `change`.
    fn up(change: impl FnOnce(&mut Probed)) -> DirectionFidelity {
        let mut probed = Probed {
            kbit: Some(6_000.0),
            small: 100,
            delays_ms: vec![25.2; 9],
            sent: 1000,
            missing: 0,
            overtaken: 0,
        };
        change(&mut probed);
        DirectionFidelity::new(Ladder::shipped().find("lte").unwrap(), Direction::Up, &probed)
    }

    #[test]
    fn each_tolerance_applies_on_both_sides() {
        assert!(up(|_| ()).pass());
        for (kbit, holds) in [(5_821.0, true), (6_179.0, true), (5_819.0, false), (6_181.0, false)] {
            assert_eq!(up(|probed| probed.kbit = Some(kbit)).rate_holds(), holds, "{kbit}");
        }
        assert!(!up(|probed| probed.kbit = None).rate_holds());
        // 100 bytes at 6 Mbit/s and half of 50 ms are 25.13 ms.
        for (ms, holds) in [(24.2, true), (26.1, true), (24.1, false), (26.2, false)] {
            assert_eq!(up(|probed| probed.delays_ms = vec![ms]).delay_holds(), holds, "{ms}");
        }
        assert!(!up(|probed| probed.missing = 1).loss_holds());
        let mut crossed = up(|_| ());
        crossed.tbf_kbit = Some(6_301.0);
        assert!(!crossed.pass());
        crossed.tbf_kbit = Some(5_701.0);
        assert!(crossed.pass());
    }

    #[test]
    fn loss_bounds_are_binomial_and_wider_for_bursts() {
        // 10000 at 1 %: 100 with a standard deviation of 9.95.
        assert_eq!(loss_bounds(Loss::Single(0.01), 0.01, 10_000), (71, 129));
        let runs = Loss::Runs { enter: 0.01 / (4.0 * 0.99), leave: 0.25 };
        let (low, high) = loss_bounds(runs, 0.01, 10_000);
        assert!(low < 71 && high > 129, "{low} {high}");
        assert_eq!(loss_bounds(Loss::None, 0.0, 10_000), (0, 0));
    }
}
