//! Asked and found, and whether the two agree (pure).

use serde::{Deserialize, Serialize};

use crate::{
    link::{Direction, Link},
    probe::Probed,
    shape::Loss,
};

/// Bounds of the judgement.
const RATE: f64 = 0.03;
const TBF: f64 = 0.05;
const DELAY_MS: f64 = 1.0;
const DELAY: f64 = 0.02;
/// Standard deviations on either side of the loss asked for; a right one lies outside once in 370.
const DEVIATIONS: f64 = 3.0;

/// A link as asked for and as found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fidelity {
    /// What was asked for.
    pub link: Link,
    /// From the head to the tail.
    pub up: DirectionFidelity,
    /// From the tail to the head.
    pub down: DirectionFidelity,
    /// Share of one core that the relay took while it was measured.
    pub relay_cpu: f64,
}

/// One direction of a link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DirectionFidelity {
    /// Rate asked for in 1000 bit/s on the wire; `None` does not limit.
    pub asked_kbit: Option<f64>,
    /// Rate found on a line that was never idle; `None` when there is no limit to find.
    pub kbit: Option<f64>,
    /// Rate found with the kernel's tbf in place of the relay.
    pub tbf_kbit: Option<f64>,
    /// One-way time asked of a small datagram on an idle line: its bits, half the round trip, the mean jitter.
    pub asked_ms: f64,
    /// Median found.
    pub ms_p50: f64,
    /// 95 % found.
    pub ms_p95: f64,
    /// Share of datagrams to be lost.
    pub asked_loss: f64,
    /// Datagrams sent.
    pub sent: usize,
    /// Of those, how many did not arrive.
    pub missing: usize,
    /// Least and most that may be missing for the loss to be right.
    pub missing_bounds: (usize, usize),
    /// Of those that arrived, how many came after one that was sent later.
    pub overtaken: usize,
}

impl Fidelity {
    /// Every judgement holds in both directions.
    pub fn pass(&self) -> bool {
        self.up.pass() && self.down.pass()
    }
}

impl DirectionFidelity {
    /// Holds what was found against what was asked for.
    pub(crate) fn judge(link: &Link, direction: Direction, probed: &Probed) -> Self {
        let shape = link.shape(direction);
        let mut delays_ms = probed.delays_ms.clone();
        delays_ms.sort_by(f64::total_cmp);
        let line = shape.rate.map_or(0.0, |rate| probed.small as f64 * 8e3 / rate as f64);
        DirectionFidelity {
            asked_kbit: shape.rate.map(|rate| rate as f64 / 1e3),
            kbit: probed.kbit,
            tbf_kbit: None,
            asked_ms: line + (link.rtt_ms + link.jitter_ms) / 2.0,
            ms_p50: quantile(&delays_ms, 0.5),
            ms_p95: quantile(&delays_ms, 0.95),
            asked_loss: link.loss,
            sent: probed.sent,
            missing: probed.missing,
            missing_bounds: bounds(shape.loss, link.loss, probed.sent),
            overtaken: probed.overtaken,
        }
    }

    /// Relative error of the rate.
    pub fn rate_off(&self) -> Option<f64> {
        Some(self.kbit? / self.asked_kbit? - 1.0)
    }

    /// Relative difference of tbf's rate from the relay's.
    pub fn tbf_off(&self) -> Option<f64> {
        Some(self.tbf_kbit? / self.kbit? - 1.0)
    }

    /// The rate is within 3 %, or not limited.
    pub fn rate_holds(&self) -> bool {
        match (self.asked_kbit, self.rate_off()) {
            (None, _) => true,
            (Some(_), off) => off.is_some_and(|off| off.abs() <= RATE),
        }
    }

    /// The median delay is within 1 ms or 2 %.
    pub fn delay_holds(&self) -> bool {
        let off = (self.ms_p50 - self.asked_ms).abs();
        off <= DELAY_MS || off <= DELAY * self.asked_ms
    }

    /// The loss lies within its interval.
    pub fn loss_holds(&self) -> bool {
        (self.missing_bounds.0..=self.missing_bounds.1).contains(&self.missing)
    }

    /// All of them hold, and tbf agrees within 5 % where it was asked.
    pub fn pass(&self) -> bool {
        let tbf = self.tbf_off().is_none_or(|off| off.abs() <= TBF);
        self.rate_holds() && self.delay_holds() && self.loss_holds() && tbf
    }
}

/// The smallest of `sorted` values that at least a share `q` of them do not exceed (nearest rank); 0 without values.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// How many of `sent` may be missing: the binomial's mean and three deviations, wider where losses come in runs.
fn bounds(loss: Loss, share: f64, sent: usize) -> (usize, usize) {
    let stays = match loss {
        Loss::Runs { enter, leave } => 1.0 - enter - leave,
        _ => 0.0,
    };
    let mean = share * sent as f64;
    let spread = (mean * (1.0 - share) * (1.0 + stays) / (1.0 - stays)).sqrt();
    let low = (mean - DEVIATIONS * spread).max(0.0).ceil() as usize;
    (low, (mean + DEVIATIONS * spread).floor() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Ladder;

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
        DirectionFidelity::judge(Ladder::shipped().find("lte").unwrap(), Direction::Up, &probed)
    }

    #[test]
    fn each_bound_is_kept_from_both_sides() {
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
    fn the_interval_of_loss_is_the_binomials_and_wider_for_runs() {
        // 10000 at 1 %: 100 with a deviation of 9.95.
        assert_eq!(bounds(Loss::Single(0.01), 0.01, 10_000), (71, 129));
        let runs = Loss::Runs { enter: 0.01 / (4.0 * 0.99), leave: 0.25 };
        let (low, high) = bounds(runs, 0.01, 10_000);
        assert!(low < 71 && high > 129, "{low} {high}");
        assert_eq!(bounds(Loss::None, 0.0, 10_000), (0, 0));
    }
}
