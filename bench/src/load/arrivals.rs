//! When frames are due, and of which head (pure).

use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;
use serde::Serialize;

/// When frames are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// At random, independent of each other
    Poisson,
    /// At equal distances for each head, with a random phase per head
    Fixed,
}

/// An endless iterator over frames: the time from the start at which each is due, never decreasing, and its head.
#[derive(Debug)]
pub(super) enum Arrivals {
    /// Independent Poisson processes of all heads, drawn as one process whose frames belong to any of them.
    Poisson { rng: Rng, heads: usize, all_per_second: f64, at: f64 },
    /// A common period, in which each head has its phase.
    Fixed { phases: Vec<(f64, usize)>, period: f64, sent: usize },
}

impl Arrivals {
    /// Frames of `heads` heads, `rate` per second each.
    pub(super) fn new(spacing: Spacing, heads: usize, rate: f64, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        match spacing {
            Spacing::Poisson => {
                Arrivals::Poisson { rng, heads, all_per_second: rate * heads as f64, at: 0.0 }
            }
            Spacing::Fixed => {
                let period = 1.0 / rate;
                let mut phases: Vec<(f64, usize)> =
                    (0..heads).map(|head| (rng.f64() * period, head)).collect();
                phases.sort_by(|a, b| a.0.total_cmp(&b.0));
                Arrivals::Fixed { phases, period, sent: 0 }
            }
        }
    }
}

impl Iterator for Arrivals {
    type Item = (Duration, usize);

    fn next(&mut self) -> Option<(Duration, usize)> {
        let (at, head) = match self {
            Arrivals::Poisson { rng, heads, all_per_second, at } => {
                // 1 - f64() is above 0, so the logarithm is finite.
                *at -= (1.0 - rng.f64()).ln() / *all_per_second;
                (*at, rng.usize(..*heads))
            }
            Arrivals::Fixed { phases, period, sent } => {
                let (phase, head) = phases[*sent % phases.len()];
                let at = (*sent / phases.len()) as f64 * *period + phase;
                *sent += 1;
                (at, head)
            }
        };
        Some((Duration::from_secs_f64(at), head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(spacing: Spacing, number: usize) -> Vec<(Duration, usize)> {
        Arrivals::new(spacing, 50, 2.0, 7).take(number).collect()
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_exponential_gaps() {
        let all = first(Spacing::Poisson, 100_000);
        assert!(all.is_sorted_by_key(|(at, _)| *at));
        // 100 frames a second: 1000 s, with a deviation of 3.2.
        let took = all[all.len() - 1].0.as_secs_f64();
        assert!((took - 1000.0).abs() < 16.0, "{took}");
        let gaps: Vec<f64> = all.windows(2).map(|two| (two[1].0 - two[0].0).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "exponential gaps: deviation equals mean");
        let of_one = all.iter().filter(|(_, head)| *head == 17).count();
        assert!((1_750..2_250).contains(&of_one), "{of_one}");
    }

    #[test]
    fn fixed_arrivals_give_each_head_one_frame_a_period() {
        let all = first(Spacing::Fixed, 150);
        assert!(all.is_sorted_by_key(|(at, _)| *at));
        for head in 0..50 {
            let own: Vec<f64> =
                all.iter().filter(|(_, other)| *other == head).map(|(at, _)| at.as_secs_f64()).collect();
            assert_eq!(own.len(), 3);
            assert!((own[1] - own[0] - 0.5).abs() < 1e-6 && own[0] < 0.5, "{own:?}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_frames() {
        assert_eq!(first(Spacing::Poisson, 50), first(Spacing::Poisson, 50));
    }
}
