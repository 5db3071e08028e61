//! Means, quantiles and 95 % confidence intervals of samples.

/// The 97.5th percentile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// Resamples of a bootstrap.
const RESAMPLES: usize = 1000;

/// The arithmetic mean; 0 without samples.
#[must_use]
pub fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}

/// The `q` quantile, 0 ≤ q ≤ 1, by nearest rank: the smallest sample that at least a share `q` of all samples do not
/// exceed; 0 without samples.
#[must_use]
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Wilson's score interval of the share `hits` of `count`; 0 to 1 where `count` is 0.
#[must_use]
pub fn wilson(hits: usize, count: usize) -> (f64, f64) {
    if count == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (count as f64, hits as f64 / count as f64);
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0))
}

/// The 95 % interval of the difference of two shares of the same items, in points: Wald's with half an item added to each
/// of the four counts (Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", 2005).
/// Unlike a bootstrap it does not collapse where all answers agree.
#[must_use]
pub fn paired_difference(pairs: impl Iterator<Item = (bool, bool)>) -> (f64, f64) {
    let (mut count, mut only_first, mut only_second) = (2.0, 0.5, 0.5);
    for (first, second) in pairs {
        count += 1.0;
        only_first += f64::from(u8::from(first && !second));
        only_second += f64::from(u8::from(second && !first));
    }
    let difference = (only_first - only_second) / count;
    let variance = ((only_first + only_second) / count - difference * difference) / count;
    let half = Z * variance.sqrt();
    (100.0 * (difference - half).max(-1.0), 100.0 * (difference + half).min(1.0))
}

/// The percentile bootstrap interval of `statistic`, which is called with `count` indices below `count`, drawn with
/// replacement, 1000 times. The same seed draws the same indices.
pub fn bootstrap(count: usize, seed: u64, mut statistic: impl FnMut(&[usize]) -> f64) -> (f64, f64) {
    if count == 0 {
        return (0.0, 0.0);
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let mut drawn = vec![0; count];
    let values: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            drawn.iter_mut().for_each(|index| *index = random.usize(..count));
            statistic(&drawn)
        })
        .collect();
    (quantile(&values, 0.025), quantile(&values, 0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_and_the_mean_is_arithmetic() {
        let samples = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(quantile(&samples, 0.0), 1.0);
        assert_eq!(quantile(&samples, 0.5), 3.0);
        assert_eq!(quantile(&samples, 0.95), 5.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(mean(&samples), 3.0);
        assert_eq!(mean(&[]), 0.0);
    }

    #[test]
    fn wilson_gives_the_published_intervals() {
        // Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (hits, count, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let (found_low, found_high) = wilson(hits, count);
            assert!((found_low - low).abs() < 5e-5, "{hits} of {count}: {found_low}");
            assert!((found_high - high).abs() < 5e-5, "{hits} of {count}: {found_high}");
        }
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }

    #[test]
    fn the_bootstrap_of_a_mean_is_near_the_normal_interval() {
        // 400 coin throws: mean 0.5, standard error 0.025.
        let throws: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let of = |drawn: &[usize]| drawn.iter().map(|&i| throws[i]).sum::<f64>() / drawn.len() as f64;
        let (low, high) = bootstrap(throws.len(), 7, of);
        assert!((low - (0.5 - Z * 0.025)).abs() < 0.006, "{low}");
        assert!((high - (0.5 + Z * 0.025)).abs() < 0.006, "{high}");
        assert_eq!(bootstrap(throws.len(), 7, of), (low, high));
        assert_eq!(bootstrap(0, 7, |_| f64::NAN), (0.0, 0.0));
    }

    #[test]
    fn an_interval_of_paired_answers_does_not_collapse_where_all_agree() {
        let pairs = |first, second, both| {
            let pairs = [((true, false), first), ((false, true), second), ((true, true), both)];
            paired_difference(pairs.into_iter().flat_map(|(pair, count)| std::iter::repeat_n(pair, count)))
        };
        // By hand: 25 of 1146 more, with a standard error of 1.350 points.
        let (low, high) = pairs(132, 107, 905);
        assert!((low - -0.464).abs() < 0.01 && (high - 4.827).abs() < 0.01, "{low} {high}");
        // One of 102 in a standard error of its square root.
        let (low, high) = pairs(0, 0, 100);
        assert!((low - -1.92).abs() < 0.01 && (high - 1.92).abs() < 0.01, "{low} {high}");
    }
}
