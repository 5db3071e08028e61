//! Histograms of times and their percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Samples below which a 90th percentile is not stated, a 95th, and a 99th.
const FOR_P90: u64 = 10;
const FOR_P95: u64 = 20;
const FOR_P99: u64 = 1000;

/// Longest time that is told from longer ones, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;

/// Times with a resolution of a microsecond and 0.1 %, in constant memory.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

/// Percentiles in milliseconds. One that the number of samples does not support is `None`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// Median; `None` without samples.
    pub p50: Option<f64>,
    /// `None` for fewer than 10 samples.
    pub p90: Option<f64>,
    /// `None` for fewer than 20 samples.
    pub p95: Option<f64>,
    /// `None` for fewer than 1,000 samples.
    pub p99: Option<f64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies(Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds and digits are in range"))
    }
}

impl Latencies {
    /// Adds one time.
    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Number of times.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let at = |quantile, samples| {
            (self.len() >= samples).then(|| self.0.value_at_quantile(quantile) as f64 / 1e3)
        };
        Percentiles { p50: at(0.5, 1), p90: at(0.9, FOR_P90), p95: at(0.95, FOR_P95), p99: at(0.99, FOR_P99) }
    }
}

/// Milliseconds for a table; a dash for `None`.
pub(crate) fn shown(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_stated_only_where_the_samples_support_them() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles().p50, None);
        for ms in 1..=1000u64 {
            latencies.record(Duration::from_millis(ms));
            let Percentiles { p50, p95, p99, .. } = latencies.percentiles();
            assert_eq!((p50.is_some(), p95.is_some(), p99.is_some()), (true, ms >= 20, ms >= 1000));
        }
        let near = |found: Option<f64>, exact: f64| found.is_some_and(|ms| (ms / exact - 1.0).abs() < 1e-3);
        let Percentiles { p50, p90, p95, p99 } = latencies.percentiles();
        assert!(
            near(p90, 900.0) && near(p50, 500.0) && near(p95, 950.0) && near(p99, 990.0),
            "{p50:?} {p95:?} {p99:?}"
        );
    }
}
