//! The readings of a rail over time, and the energy of a window of them. Without a clock: times are arguments.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Method, Rail};

/// Two readings further apart than this many usual intervals have a gap between them.
const GAP: f64 = 5.0;

/// A span of time on the clock of the recorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Start of the window; serialized in seconds.
    #[serde(rename = "from_s", with = "crate::seconds")]
    pub from: Duration,
    /// End of the window; serialized in seconds.
    #[serde(rename = "to_s", with = "crate::seconds")]
    pub to: Duration,
}

impl Window {
    /// The window between two times.
    #[must_use]
    pub fn new(from: Duration, to: Duration) -> Self {
        Window { from, to }
    }

    /// Length of the window; zero if it ends before it starts.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }
}

/// The energy of a rail in a window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Energy {
    /// Joules in the time that readings cover.
    pub joules: f64,
    /// Seconds of the window that readings cover.
    pub covered_s: f64,
    /// Seconds of the window that they do not cover, and that are not in [`Energy::joules`].
    pub missing_s: f64,
    /// Spans without readings.
    pub gaps: Vec<Gap>,
    /// Number of readings in the window.
    pub readings: usize,
    /// Longest time between two readings, in seconds.
    pub longest_s: f64,
}

/// A span without readings, in seconds on the clock of the recorder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gap {
    /// Start of the gap.
    pub from_s: f64,
    /// End of the gap.
    pub to_s: f64,
    /// Whether its energy is known nevertheless, because the hardware went on counting.
    pub counted: bool,
}

impl Energy {
    /// Mean watts of the time that readings cover; `None` if they cover nothing.
    #[must_use]
    pub fn watts(&self) -> Option<f64> {
        (self.covered_s > 0.0).then(|| self.joules / self.covered_s)
    }

    /// Whether the energy of the whole window is known.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.gaps.iter().all(|gap| gap.counted) && self.covered_s > 0.0
    }
}

/// The readings of one rail, oldest first.
#[derive(Debug, Clone)]
pub struct Trace {
    counts: bool,
    nominal: f64,
    trust: f64,
    points: Vec<(f64, f64)>,
}

impl Trace {
    /// Starts without readings of `rail`, which is read every `every`.
    #[must_use]
    pub fn new(rail: &Rail, every: Duration) -> Self {
        Trace {
            counts: rail.method == Method::EnergyCounter,
            nominal: every.max(rail.interval).as_secs_f64(),
            trust: rail.trust.map_or(f64::INFINITY, |trust| trust.as_secs_f64()),
            points: Vec::new(),
        }
    }

    /// Adds a reading. One that is not later than the last, or not finite, is dropped.
    pub fn push(&mut self, at: Duration, value: f64) {
        let at = at.as_secs_f64();
        if value.is_finite() && self.points.last().is_none_or(|&(last, _)| at > last) {
            self.points.push((at, value));
        }
    }

    /// Times in seconds, each with its reading.
    #[must_use]
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// Integrates the energy of `window`: trapezoids over the real timestamps, or differences of a counter.
    ///
    /// Power is not interpolated across a gap. The energy of a counter is, unless it may have wrapped twice.
    #[must_use]
    pub fn energy(&self, window: Window) -> Energy {
        let (from, to) = (window.from.as_secs_f64(), window.to.as_secs_f64());
        let limit = self.limit();
        let mut energy = Energy {
            joules: 0.0,
            covered_s: 0.0,
            missing_s: 0.0,
            gaps: Vec::new(),
            readings: 0,
            longest_s: 0.0,
        };
        let inside = |&&(at, _): &&(f64, f64)| (from..=to).contains(&at);
        energy.readings = self.points.iter().filter(inside).count();
        let mut reached = from;
        let first = self.points.partition_point(|&(at, _)| at <= from).saturating_sub(1);
        for pair in self.points[first..].windows(2) {
            let ((t0, v0), (t1, v1)) = (pair[0], pair[1]);
            let (a, b) = (t0.max(from), t1.min(to));
            if b <= a {
                continue;
            }
            energy.add_missing(reached, a, limit);
            reached = b;
            let width = t1 - t0;
            energy.longest_s = energy.longest_s.max(width);
            let lost = match self.counts {
                true => width > self.trust || v1 < v0,
                false => width > limit,
            };
            if lost || width > limit {
                energy.gaps.push(Gap { from_s: a, to_s: b, counted: !lost });
            }
            if lost {
                energy.missing_s += b - a;
                continue;
            }
            let at = |time: f64| v0 + (v1 - v0) * (time - t0) / width;
            energy.covered_s += b - a;
            energy.joules += match self.counts {
                true => at(b) - at(a),
                false => (at(a) + at(b)) / 2.0 * (b - a),
            };
        }
        energy.add_missing(reached, to, limit);
        energy
    }

    /// Longest time between two readings that is not a gap: [`GAP`] times the median.
    fn limit(&self) -> f64 {
        let mut widths: Vec<f64> = self.points.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        let middle = widths.len() / 2;
        let usual = match widths.is_empty() {
            true => self.nominal,
            false => *widths.select_nth_unstable_by(middle, f64::total_cmp).1,
        };
        GAP * usual.max(self.nominal)
    }
}

impl Energy {
    /// Counts the time from `from` to `to` as missing; it is a gap only if it is longer than `limit`.
    fn add_missing(&mut self, from: f64, to: f64, limit: f64) {
        if to <= from {
            return;
        }
        self.missing_s += to - from;
        if to - from > limit {
            self.gaps.push(Gap { from_s: from, to_s: to, counted: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Quality, Scope};

    fn rail(method: Method, trust: Option<Duration>) -> Rail {
        Rail {
            name: "rail".into(),
            covers: "all".into(),
            scope: Scope::Device,
            part_of: None,
            sensor: "test".into(),
            method,
            quality: Quality::Measured,
            interval: Duration::from_millis(100),
            trust,
        }
    }

    fn window(from: f64, to: f64) -> Window {
        Window::new(Duration::from_secs_f64(from), Duration::from_secs_f64(to))
    }

    fn trace(method: Method, trust: Option<Duration>, points: &[(f64, f64)]) -> Trace {
        let mut trace = Trace::new(&rail(method, trust), Duration::from_millis(100));
        for &(at, value) in points {
            trace.push(Duration::from_secs_f64(at), value);
        }
        trace
    }

    #[test]
    fn a_ramp_is_integrated_between_the_readings() {
        let trace = trace(Method::Power, None, &[(0.0, 0.0), (0.1, 1.0), (0.3, 3.0), (0.4, 4.0)]);
        let energy = trace.energy(window(0.05, 0.35));
        assert!((energy.joules - 10.0 * (0.35f64.powi(2) - 0.05f64.powi(2)) / 2.0).abs() < 1e-12);
        assert!((energy.covered_s - 0.3).abs() < 1e-12 && energy.complete(), "{energy:?}");
        assert_eq!(energy.readings, 2);
    }

    #[test]
    fn power_is_not_carried_across_a_gap() {
        let mut points: Vec<_> = (0..=10).map(|step| (f64::from(step) * 0.1, 2.0)).collect();
        points.extend((0..=10).map(|step| (5.0 + f64::from(step) * 0.1, 2.0)));
        let energy = trace(Method::Power, None, &points).energy(window(0.0, 6.0));
        assert!((energy.joules - 4.0).abs() < 1e-9, "{energy:?}");
        assert!((energy.missing_s - 4.0).abs() < 1e-9 && !energy.complete());
        assert_eq!(energy.gaps, [Gap { from_s: 1.0, to_s: 5.0, counted: false }]);
        assert_eq!(energy.watts(), Some(energy.joules / energy.covered_s));
    }

    #[test]
    fn the_energy_of_a_counter_is_known_across_a_gap_unless_it_may_have_wrapped() {
        let points = [(0.0, 100.0), (0.1, 101.0), (0.2, 102.0), (5.2, 152.0), (5.3, 153.0)];
        let energy = trace(Method::EnergyCounter, None, &points).energy(window(0.0, 5.3));
        assert!((energy.joules - 53.0).abs() < 1e-9 && energy.complete() && energy.gaps.len() == 1);
        let wrapping = trace(Method::EnergyCounter, Some(Duration::from_secs(2)), &points);
        let energy = wrapping.energy(window(0.0, 5.3));
        assert!((energy.joules - 3.0).abs() < 1e-9 && !energy.complete(), "{energy:?}");
    }

    #[test]
    fn a_counter_that_was_reset_is_a_gap() {
        let points = [(0.0, 100.0), (0.1, 101.0), (0.2, 0.5), (0.3, 1.5)];
        let energy = trace(Method::EnergyCounter, None, &points).energy(window(0.0, 0.3));
        assert!((energy.joules - 2.0).abs() < 1e-9 && !energy.complete(), "{energy:?}");
    }

    #[test]
    fn time_that_readings_do_not_cover_is_missing() {
        let points: Vec<_> = (0..=10).map(|step| (2.0 + f64::from(step) * 0.1, 3.0)).collect();
        let trace = trace(Method::Power, None, &points);
        let energy = trace.energy(window(0.0, 3.2));
        assert!((energy.missing_s - 2.2).abs() < 1e-9 && energy.gaps.len() == 1, "{energy:?}");
        let before = trace.energy(window(0.0, 1.0));
        assert!(before.watts().is_none() && !before.complete() && before.gaps.len() == 1);
        let empty = Trace::new(&rail(Method::Power, None), Duration::from_millis(100));
        assert!(!empty.energy(window(0.0, 1.0)).complete());
    }
}
