//! The time that runs take, estimated for each batch size from those that were measured.

use std::time::Duration;

/// The weight of a new sample in the mean and in the deviation, as in RFC 6298 (there of round trips).
const MEAN_GAIN: f64 = 1.0 / 8.0;
const DEVIATION_GAIN: f64 = 1.0 / 4.0;

/// Deviations by which a sample may differ from the mean; one that differs more counts as one that differs by this much. A
/// single outlier hardly moves the estimate, while a lasting change raises the deviation and is followed within about ten runs.
const CLIP: f64 = 3.0;

/// The least deviation for that limit, as a part of the mean.
const LEAST_DEVIATION: f64 = 1.0 / 8.0;

/// The runs that a batch size must have had for its time to say that larger ones are not worth while. The first run of a size
/// takes longer, since memory is laid out for it.
const KNOWN: u32 = 3;

/// The part by which a frame of a larger run must be cheaper to make up for the time that the run takes longer.
const CHEAPER: f64 = 1.0 / 32.0;

/// One run in this many may have any size, so that a size is measured again that was slow once, and one in this many is half a
/// full one while nothing is known of such runs.
const EXPLORED: u32 = 64;
const HALVED: u32 = 16;

/// The time without a run after which an estimate is no reason to give a frame up: the next one is run and measured.
const STALE: Duration = Duration::from_secs(1);

/// The estimated times of one network's runs on frames of one shape.
#[derive(Clone, Debug)]
pub(crate) struct CostTable {
    /// By batch size, from 1.
    samples: Vec<Option<Estimate>>,
    /// The mean for every batch size, and what a quick run takes; both never fall with the size.
    mean: Vec<Duration>,
    quick: Vec<Duration>,
    /// The time of the last measurement, and what was measured.
    measured: Option<(Duration, Duration)>,
    /// The largest run that is worth while.
    size: usize,
    /// Runs measured.
    runs: u32,
}

/// A smoothed time in seconds.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    mean: f64,
    deviation: f64,
    samples: u32,
}

impl Estimate {
    fn first(sample: f64) -> Estimate {
        Estimate { mean: sample, deviation: sample / 2.0, samples: 1 }
    }

    fn add(&mut self, sample: f64) {
        let limit = CLIP * self.deviation.max(self.mean * LEAST_DEVIATION);
        let difference = (sample - self.mean).clamp(-limit, limit);
        self.samples = self.samples.saturating_add(1);
        self.mean += difference * MEAN_GAIN.max(1.0 / f64::from(self.samples));
        self.deviation += (difference.abs() - self.deviation) * DEVIATION_GAIN;
    }
}

impl CostTable {
    /// No knowledge about runs of up to `batch` frames: each is estimated to take no time.
    pub(crate) fn new(batch: usize) -> CostTable {
        let size = batch.max(1);
        let zero = vec![Duration::ZERO; size];
        CostTable {
            samples: vec![None; size],
            mean: zero.clone(),
            quick: zero,
            measured: None,
            size,
            runs: 0,
        }
    }

    /// Takes a run of `batch` frames into the estimate.
    pub(crate) fn record(&mut self, now: Duration, batch: usize, took: Duration) {
        let Some(sample) = batch.checked_sub(1).and_then(|index| self.samples.get_mut(index)) else { return };
        self.measured = Some((now, took));
        let took = took.as_secs_f64();
        match sample {
            Some(estimate) => estimate.add(took),
            None => *sample = Some(Estimate::first(took)),
        }
        self.mean = self.dense(|estimate| estimate.mean);
        self.quick = self.dense(|estimate| (estimate.mean - estimate.deviation).max(0.0));
        self.size = self.worthwhile();
        self.runs = self.runs.wrapping_add(1);
    }

    /// The largest run that is worth while. On a processor a frame soon costs the same in runs of any size, and then larger ones
    /// only let frames wait.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The same for the next run, which now and then has another size, so that such runs are measured, too.
    pub(crate) fn next_size(&self) -> usize {
        let half = self.size / 2;
        let is_unknown = |size: usize| self.samples[size - 1].is_none_or(|sample| sample.samples < KNOWN);
        if half > 0 && is_unknown(half) && self.runs % HALVED == HALVED - 1 {
            half
        } else if self.runs % EXPLORED == EXPLORED - 1 {
            self.samples.len()
        } else {
            self.size
        }
    }

    /// The largest size below the first one that is known to be no cheaper for a frame than a smaller one.
    fn worthwhile(&self) -> usize {
        let known = self.samples.iter().zip(1..).filter_map(|(sample, size)| {
            let sample = sample.as_ref().filter(|sample| sample.samples >= KNOWN)?;
            Some((size, sample.mean / size as f64))
        });
        let known: Vec<(usize, f64)> = known.collect();
        let least = known.iter().map(|(_, frame)| *frame).fold(f64::INFINITY, f64::min);
        let mut good = known.iter().skip_while(|(_, frame)| *frame > least * (1.0 + CHEAPER));
        match (good.next(), good.next()) {
            (Some(_), Some((no_cheaper, _))) => no_cheaper - 1,
            _ => self.samples.len(),
        }
    }

    /// The mean time of a run.
    pub(crate) fn mean(&self, batch: usize) -> Duration {
        self.mean[batch.clamp(1, self.mean.len()) - 1]
    }

    /// The time of a run of one frame that goes well; zero where none has been measured lately. If the last run was quick, the
    /// next one may be.
    pub(crate) fn quick(&self, now: Duration) -> Duration {
        match self.measured {
            Some((at, last)) if now.saturating_sub(at) <= STALE => self.quick[0].min(last),
            _ => Duration::ZERO,
        }
    }

    /// The time of the largest run that is worth while.
    pub(crate) fn full(&self) -> Duration {
        self.mean(self.size)
    }

    /// The time of one frame in such a run.
    pub(crate) fn share(&self) -> Duration {
        self.full() / u32::try_from(self.size).unwrap_or(u32::MAX)
    }

    /// Values for every batch size. Between two that were measured they lie on a line; below the smallest and above the largest
    /// they are in proportion to the size. So without a measurement a small run is estimated too low, which gives no frame up,
    /// and a large one too high, which lets no batch grow into a deadline.
    fn dense(&self, value: impl Fn(&Estimate) -> f64) -> Vec<Duration> {
        let known: Vec<(usize, f64)> = self
            .samples
            .iter()
            .enumerate()
            .filter_map(|(index, sample)| Some((index + 1, value(sample.as_ref()?))))
            .collect();
        let at = |size: usize| {
            let above = known.iter().find(|(known, _)| *known >= size);
            let below = known.iter().rfind(|(known, _)| *known <= size);
            match (below, above) {
                (Some(&(low, cost)), Some(&(high, more))) if high > low => {
                    cost + (more - cost) * (size - low) as f64 / (high - low) as f64
                }
                (_, Some(&(known, cost))) | (Some(&(known, cost)), None) => cost * size as f64 / known as f64,
                (None, None) => 0.0,
            }
        };
        let mut dense: Vec<f64> = (1..=self.samples.len()).map(at).collect();
        // A run of fewer frames does not take longer.
        for index in (1..dense.len()).rev() {
            dense[index - 1] = dense[index - 1].min(dense[index]);
        }
        dense.into_iter().map(|cost| Duration::try_from_secs_f64(cost).unwrap_or(Duration::MAX)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn near(found: Duration, exact: Duration) -> bool {
        found.abs_diff(exact) < Duration::from_micros(2)
    }

    #[test]
    fn sizes_that_were_not_measured_are_estimated_from_their_neighbours() {
        let mut table = CostTable::new(16);
        assert_eq!((table.mean(1), table.share()), (Duration::ZERO, Duration::ZERO));
        table.record(MS, 4, MS * 20);
        assert!(near(table.mean(1), MS * 5) && near(table.mean(16), MS * 80));
        table.record(MS, 8, MS * 24);
        assert!(near(table.mean(6), MS * 22) && near(table.mean(16), MS * 48), "{table:?}");
        // Fewer frames never take longer.
        (0..50).for_each(|_| table.record(MS, 2, MS * 40));
        assert!(near(table.mean(2), MS * 20), "{table:?}");
        table.record(MS, 17, MS * 900);
        assert!(near(table.mean(16), MS * 48));
    }

    #[test]
    fn an_outlier_hardly_moves_the_estimate_and_a_lasting_change_is_followed() {
        let mut table = CostTable::new(1);
        (0..100).for_each(|_| table.record(MS, 1, MS * 10));
        table.record(MS, 1, MS * 2000);
        assert!(table.mean(1) < MS * 11, "{table:?}");
        (0..20).for_each(|_| table.record(MS, 1, MS * 10));
        (0..25).for_each(|_| table.record(MS, 1, MS * 100));
        assert!(table.mean(1) > MS * 70, "{table:?}");
    }

    #[test]
    fn an_old_measurement_gives_no_frame_up() {
        let mut table = CostTable::new(1);
        (0..20).for_each(|_| table.record(MS * 100, 1, MS * 10));
        assert!(table.quick(MS * 1100) > MS * 9 && table.quick(MS * 1100) <= MS * 10);
        assert_eq!(table.quick(MS * 1101), Duration::ZERO);
    }

    /// Measures runs of these sizes as often as makes them known.
    fn measure(table: &mut CostTable, runs: &[(usize, u32)]) {
        for &(batch, took) in runs {
            (0..KNOWN).for_each(|_| table.record(MS, batch, MS * took));
        }
    }

    #[test]
    fn runs_are_no_larger_than_makes_a_frame_cheaper() {
        // A processor: beyond four frames nothing is gained.
        let mut table = CostTable::new(8);
        measure(&mut table, &[(1, 25), (2, 41), (4, 74), (8, 171)]);
        assert_eq!(
            (table.size(), table.full(), table.share()),
            (7, MS * 74 + MS * 97 * 3 / 4, table.full() / 7)
        );
        measure(&mut table, &[(5, 100)]);
        assert_eq!((table.size(), table.full()), (4, MS * 74));
        // A graphics card: the more, the cheaper.
        let mut table = CostTable::new(8);
        measure(&mut table, &[(1, 10), (2, 11), (4, 13), (8, 17)]);
        assert_eq!(table.size(), 8);
        // Nothing is known of larger runs, or not enough.
        let mut table = CostTable::new(8);
        measure(&mut table, &[(1, 10), (2, 19)]);
        table.record(MS, 4, MS * 90);
        assert_eq!(table.size(), 8);
        // A frame costs the same in all.
        let mut table = CostTable::new(8);
        measure(&mut table, &[(1, 10), (2, 20), (3, 30)]);
        assert_eq!(table.size(), 1);
    }

    #[test]
    fn a_size_that_was_slow_once_is_measured_again() {
        let mut table = CostTable::new(4);
        measure(&mut table, &[(1, 10), (2, 30)]);
        let sizes: Vec<usize> = (0..EXPLORED)
            .map(|_| {
                table.record(MS, 1, MS * 10);
                table.next_size()
            })
            .collect();
        assert_eq!((sizes.iter().filter(|size| **size == 4).count(), table.size()), (1, 1));
    }

    #[test]
    fn smaller_runs_are_measured_where_only_full_ones_are_made() {
        let mut table = CostTable::new(8);
        // Four frames at a time are the cheapest.
        let took = |size: u32| MS * (20 * size + if size > 4 { 8 * (size - 4) } else { 8 * (4 - size) });
        for _ in 0..400 {
            let size = table.next_size();
            table.record(MS, size, took(u32::try_from(size).unwrap()));
        }
        assert_eq!(table.size(), 4, "{table:?}");
    }
}
