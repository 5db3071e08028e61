//! The recording of a USB meter: a CSV file, aligned with the clock of the run by the [`marker`](crate::marker) in it.

use std::time::Duration;

use crate::{
    Error, Measured, Method, Plan, Quality, Rail, Scope, Trace,
    marker::{CHIP, CHIPS, LENGTH},
};

/// Most rows of a recording: a day at 50 Hz.
const MOST_ROWS: usize = 5_000_000;
/// Longest recording in seconds: a day.
const MOST_SECONDS: f64 = 86_400.0;
/// Watts beyond which a row cannot be the reading of a device.
const MOST_WATTS: f64 = 1e6;
/// Grid on which the marker is searched, in seconds.
const COARSE: f64 = 0.02;
/// Grid on which the place of the marker is refined, in seconds.
const FINE: f64 = 0.001;
/// Largest drift between the two clocks, as a share of the time between two markers.
const DRIFT: f64 = 0.005;
/// Smallest correlation of a marker that counts as found.
const FOUND: f64 = 0.8;
/// A second place whose correlation is above this share of the best makes the result ambiguous.
const AMBIGUOUS: f64 = 0.9;

/// A recording on the clock of the meter.
#[derive(Debug, Clone)]
pub struct Log {
    /// Seconds and watts.
    points: Vec<(f64, f64)>,
    /// Joules from the first point to each point.
    joules: Vec<f64>,
}

/// A recording on the clock of the run.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The meter as a rail.
    pub rail: Rail,
    /// The readings on the clock of the run.
    pub trace: Trace,
    /// Seconds of the run's clock per second of the meter's.
    pub rate: f64,
    /// Correlation of the markers with the pattern; 1 is perfect.
    pub correlation: f64,
}

/// Indices of the columns, each with the factor to seconds, volts, amperes or watts.
struct Columns {
    time: (usize, f64),
    volts: Option<(usize, f64)>,
    amperes: Option<(usize, f64)>,
    watts: Option<(usize, f64)>,
}

impl Log {
    /// Reads CSV with a header: `time`, and `volts` and `amps`, or `watts`. `voltage`, `current`, `power`, units in
    /// brackets (`time(ms)`, `current [mA]`) and further columns are accepted.
    ///
    /// # Errors
    /// [`Error::Csv`] or [`Error::Recording`], naming the line.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
        let columns = Columns::of(reader.headers()?)?;
        let mut points: Vec<(f64, f64)> = Vec::new();
        for record in reader.records() {
            let record = record?;
            let line = record.position().map_or(0, |position| position.line());
            let field = |(index, unit): (usize, f64)| {
                let text = record.get(index).unwrap_or_default();
                let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
                value
                    .map(|value| value * unit)
                    .ok_or_else(|| Error::Recording(format!("line {line}: {text:?} is no number")))
            };
            let time = field(columns.time)?;
            let watts = match (columns.watts, columns.volts, columns.amperes) {
                (Some(watts), ..) => field(watts)?,
                (None, Some(volts), Some(amperes)) => field(volts)? * field(amperes)?,
                _ => {
                    return Err(Error::Recording(
                        "the heading has neither watts nor volts and amps".to_owned(),
                    ));
                }
            };
            match points.last() {
                Some(&(last, _)) if time < last => {
                    return Err(Error::Recording(format!("line {line}: time runs backwards")));
                }
                // Meters that count in whole milliseconds repeat themselves.
                Some(&(last, _)) if time == last => continue,
                _ if watts.abs() > MOST_WATTS || !watts.is_finite() => {
                    return Err(Error::Recording(format!("line {line}: {watts} W is no reading")));
                }
                _ if points.first().is_some_and(|&(first, _)| time - first > MOST_SECONDS) => {
                    return Err(Error::Recording(format!("line {line}: longer than a day")));
                }
                _ if points.len() == MOST_ROWS => {
                    return Err(Error::Recording(format!("more than {MOST_ROWS} rows")));
                }
                _ => points.push((time, watts)),
            }
        }
        if points.len() < 2 {
            return Err(Error::Recording("fewer than two readings".to_owned()));
        }
        let mut joules = Vec::with_capacity(points.len());
        let mut sum = 0.0;
        joules.push(sum);
        for pair in points.windows(2) {
            sum += (pair[0].1 + pair[1].1) / 2.0 * (pair[1].0 - pair[0].0);
            joules.push(sum);
        }
        Ok(Log { points, joules })
    }

    /// Finds the markers that were played at the times `markers` of the run's clock, one or two of them in order. With
    /// two, the rate of the meter's clock is corrected as well.
    ///
    /// # Errors
    /// [`Error::Recording`] if a marker is not found, or found at more than one place.
    pub fn place(&self, markers: &[Duration]) -> Result<Placed, Error> {
        let markers: Vec<f64> = markers.iter().map(Duration::as_secs_f64).collect();
        let (first, second) = match markers[..] {
            [first] => (first, None),
            [first, second] if second > first => (first, Some(second - first)),
            _ => return Err(Error::Recording("give the times of one marker or of two in order".to_owned())),
        };
        // Where the first marker correlates, the best second one within the largest drift counts as well.
        let score = |at: f64| match (self.correlate(at)?, second) {
            (found, Some(apart)) if found >= FOUND => {
                let steps = (DRIFT * apart / COARSE).ceil() as i64;
                let grid = (-steps..=steps).map(|step| at + apart + step as f64 * COARSE);
                let other = grid.filter_map(|at| self.correlate(at)).max_by(f64::total_cmp)?;
                Some((found + other) / 2.0)
            }
            (found, Some(_)) => Some(found / 2.0),
            (found, None) => Some(found),
        };
        let (start, end) = (self.points[0].0, self.points[self.points.len() - 1].0);
        // At most a day: the number of steps fits.
        let steps = ((end - start - LENGTH.as_secs_f64()) / COARSE).max(0.0) as usize;
        let grid = (0..=steps).map(|step| start + step as f64 * COARSE);
        let scores: Vec<(f64, f64)> = grid.filter_map(|at| Some((at, score(at)?))).collect();
        let best = |of: &mut dyn Iterator<Item = (f64, f64)>| of.max_by(|a, b| a.1.total_cmp(&b.1));
        let (at, found) = best(&mut scores.iter().copied()).unwrap_or((start, 0.0));
        if found < FOUND {
            return Err(Error::Recording(format!(
                "no marker was found (best correlation {found:.2}, {FOUND} is needed): did the meter record from before \
                 the first marker, and does the load show in its watts?"
            )));
        }
        let away = |&(other, _): &(f64, f64)| (other - at).abs() > LENGTH.as_secs_f64() / 2.0;
        if let Some((other, rival)) = best(&mut scores.iter().copied().filter(away))
            && rival > AMBIGUOUS * found
        {
            return Err(Error::Recording(format!(
                "a marker was found at {at:.1} s and as well at {other:.1} s: cut the recording to one run"
            )));
        }
        let refine = |around: f64, within: f64| {
            let steps = (within / FINE) as i64;
            let grid = (-steps..=steps).map(|step| around + step as f64 * FINE);
            best(&mut grid.filter_map(|at| Some((at, self.correlate(at)?)))).unwrap_or((around, 0.0))
        };
        let (at, mut correlation) = refine(at, 2.0 * COARSE);
        let mut rate = 1.0;
        if let Some(apart) = second {
            let (other, as_well) = refine(at + apart, 2.0 * COARSE + DRIFT * apart);
            correlation = correlation.min(as_well);
            rate = apart / (other - at);
        }
        let mut widths: Vec<f64> = self.points.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        let middle = widths.len() / 2;
        let interval = Duration::from_secs_f64(*widths.select_nth_unstable_by(middle, f64::total_cmp).1);
        let rail = Rail {
            name: "USB meter".to_owned(),
            covers: "the whole device at its supply, as far as it is fed through the meter".to_owned(),
            scope: Scope::Device,
            part_of: None,
            sensor: format!("CSV of {} readings, aligned by marker", self.points.len()),
            method: Method::Recording,
            quality: Quality::Measured,
            interval,
            trust: None,
        };
        let mut trace = Trace::new(&rail, interval);
        for &(time, watts) in &self.points {
            if let Ok(time) = Duration::try_from_secs_f64(first + (time - at) * rate) {
                trace.push(time, watts);
            }
        }
        Ok(Placed { rail, trace, rate, correlation })
    }

    /// Correlation of the mean watts with the pattern, chip by chip, for a marker that began at `at`: −1 to 1; `None`
    /// outside the recording or if the watts do not change.
    fn correlate(&self, at: f64) -> Option<f64> {
        let chip = CHIP.as_secs_f64();
        let mut means = [0.0; CHIPS.len()];
        let mut before = self.joules_at(at)?;
        for (index, mean) in means.iter_mut().enumerate() {
            let after = self.joules_at(at + chip * (index + 1) as f64)?;
            *mean = after - before;
            before = after;
        }
        let count = CHIPS.len() as f64;
        let pattern = CHIPS.map(|busy| if busy { 1.0 } else { 0.0 });
        let (middle, centre) = (means.iter().sum::<f64>() / count, pattern.iter().sum::<f64>() / count);
        let (mut both, mut one, mut other) = (0.0, 0.0, 0.0);
        for (mean, chip) in means.iter().zip(pattern) {
            let (mean, chip) = (mean - middle, chip - centre);
            both += mean * chip;
            one += mean * mean;
            other += chip * chip;
        }
        (one > 1e-12 * middle * middle).then(|| both / (one * other).sqrt())
    }

    /// Joules from the first reading to `time`.
    fn joules_at(&self, time: f64) -> Option<f64> {
        let after = self.points.partition_point(|&(at, _)| at <= time);
        let (index, next) = (after.checked_sub(1)?, after);
        let (at, watts) = self.points[index];
        let Some(&(end, last)) = self.points.get(next) else {
            return (time == at).then(|| self.joules[index]);
        };
        let here = watts + (last - watts) * (time - at) / (end - at);
        Some(self.joules[index] + (watts + here) / 2.0 * (time - at))
    }
}

impl Placed {
    /// Returns the meter's joules over the windows of `plan`.
    #[must_use]
    pub fn over(&self, plan: &Plan) -> Measured {
        Measured::new(&self.rail, |window| self.trace.energy(window), plan)
    }
}

impl Columns {
    fn of(headings: &csv::StringRecord) -> Result<Self, Error> {
        let named = |names: &[&str]| {
            headings.iter().enumerate().find_map(|(index, heading)| {
                let heading = heading.trim_start_matches('\u{feff}').to_lowercase();
                let (name, unit) = match heading.find(['(', '[', '_', ' ']) {
                    Some(at) => heading.split_at(at),
                    None => (heading.as_str(), ""),
                };
                let unit = unit.trim_matches(['(', ')', '[', ']', '_', ' ']);
                let worth = if matches!(unit, "ms" | "ma" | "mv" | "mw") { 1e-3 } else { 1.0 };
                names.contains(&name).then_some((index, worth))
            })
        };
        let columns = Columns {
            time: named(&["time", "timestamp", "elapsed", "t"])
                .ok_or_else(|| Error::Recording("the heading has no `time`".to_owned()))?,
            volts: named(&["volts", "voltage", "vbus", "v"]),
            amperes: named(&["amps", "amperes", "current", "ibus", "i", "a"]),
            watts: named(&["watts", "power", "p", "w"]),
        };
        match (columns.watts, columns.volts.and(columns.amperes)) {
            (None, None) => {
                Err(Error::Recording("the heading has neither `watts` nor `volts` and `amps`".to_owned()))
            }
            _ => Ok(columns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_with_units_are_accepted() {
        for text in [
            "time,volts,amps\n0,5,1\n1,5,1\n",
            "Time(ms), Voltage(V), Current(mA)\n0,5,1000\n1000,5,1000\n",
            "elapsed [s],power_w\n0,5\n1,5\n",
        ] {
            let log = Log::parse(text.as_bytes()).unwrap();
            assert_eq!(log.joules, [0.0, 5.0], "{text}");
        }
    }

    #[test]
    fn a_malformed_recording_is_refused_with_its_line() {
        for (text, part) in [
            ("", "no `time`"),
            ("time,volts\n0,5\n", "neither"),
            ("time,watts\n0,5\n1,much\n", "line 3: \"much\""),
            ("time,watts\n1,5\n0,5\n", "line 3: time runs backwards"),
            ("time,watts\n1,5\n", "fewer than two"),
            ("time,watts\n0,1e300\n1,5\n", "line 2: "),
            ("time,watts\n0,5\n1e300,5\n", "line 3: longer than a day"),
            ("time,watts\n1,5,6\n", "found record with 3 fields"),
        ] {
            let error = Log::parse(text.as_bytes()).unwrap_err().report();
            assert!(error.starts_with("the meter's recording: ") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_recording_without_the_marker_is_refused() {
        let flat: String = (0..400).map(|step| format!("{},5,1\n", f64::from(step) * 0.1)).collect();
        let log = Log::parse(format!("time,volts,amps\n{flat}").as_bytes()).unwrap();
        let error = log.place(&[Duration::from_secs(1)]).unwrap_err().to_string();
        assert!(error.contains("no marker was found"), "{error}");
    }
}
