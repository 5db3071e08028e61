//! Recorded links: when each packet may leave, read from a file.

use std::time::Duration;

/// Bytes of the packet of one opportunity, IP header included (mahimahi's MTU).
pub const PACKET: usize = 1500;

/// The most packets of a trace, which bounds memory; four hours at 10 Mbit/s have 12 million.
const MAX_PACKETS: usize = 50_000_000;

/// A recorded link: the times at which a packet of [`PACKET`] bytes may leave. It begins anew at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Ascending; not empty.
    times: Vec<Duration>,
    period: Duration,
}

/// Why a text is no recorded link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct TraceError {
    /// The line, from 1; `None` if the problem is that of the whole file.
    pub line: Option<usize>,
    /// What is wrong, and which form is read.
    pub problem: &'static str,
}

impl Trace {
    /// Reads a link in one of two forms. mahimahi's has one whole number per line: a millisecond at which one packet may
    /// leave, several lines for several packets. The other has two columns: seconds, and the rate in Mbit/s from then on;
    /// the last row only says when the row before ends.
    ///
    /// # Errors
    /// [`TraceError`] with the first line of another form, of a time that goes backwards, or of an impossible rate; or if no
    /// packet may ever leave.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let lines = || text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let columns = lines().next().map_or(0, |(_, line)| line.split_whitespace().count());
        let (times, period) = match columns {
            1 => opportunities(lines())?,
            2 => rates(lines())?,
            _ => return Err(TraceError { line: lines().next().map(|(index, _)| index + 1), problem: FORMS }),
        };
        if times.is_empty() || period.is_zero() {
            return Err(TraceError {
                line: None,
                problem: "no packet may leave on this link, or it has no length",
            });
        }
        Ok(Trace { times, period })
    }

    /// When the packet with this number may leave, counted from 0 over all repetitions.
    #[must_use]
    pub fn time(&self, number: u64) -> Duration {
        let packets = self.times.len() as u64;
        let round = u32::try_from(number / packets).unwrap_or(u32::MAX);
        self.period.saturating_mul(round) + self.times[(number % packets) as usize]
    }

    /// The number of the first packet that may leave at `time` or later.
    #[must_use]
    pub fn first_at(&self, time: Duration) -> u64 {
        let round = time.as_nanos() / self.period.as_nanos();
        let within = time.saturating_sub(self.period.saturating_mul(round as u32));
        let before = self.times.partition_point(|&at| at < within) as u64;
        let mut number = round as u64 * self.times.len() as u64 + before;
        // The last packet of a round and the first of the next may have the same time.
        while let Some(previous) = number.checked_sub(1)
            && self.time(previous) >= time
        {
            number = previous;
        }
        number
    }

    /// The time after which the link begins anew.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The mean rate in bits per second.
    #[must_use]
    pub fn mean_rate(&self) -> f64 {
        (self.times.len() * PACKET * 8) as f64 / self.period.as_secs_f64()
    }
}

const FORMS: &str = "must be one column of milliseconds (mahimahi), or two of seconds and Mbit/s";

type Read = Result<(Vec<Duration>, Duration), TraceError>;

fn opportunities<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Read {
    let mut times = Vec::new();
    for (index, line) in lines {
        let error = |problem| TraceError { line: Some(index + 1), problem };
        let millis =
            line.trim().parse::<u64>().map_err(|_| error("must be a whole number of milliseconds"))?;
        let time = Duration::from_millis(millis);
        if times.last().is_some_and(|&last| time < last) {
            return Err(error("is earlier than the line before"));
        }
        if times.len() == MAX_PACKETS {
            return Err(error("is more than fifty million packets"));
        }
        times.push(time);
    }
    let period = times.last().copied().unwrap_or_default();
    Ok((times, period))
}

fn rates<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Read {
    let (mut times, mut before) = (Vec::new(), None::<(f64, f64)>);
    let mut start = 0.0;
    // The part of a packet that has left since the last whole one.
    let mut begun = 0.0;
    for (index, line) in lines {
        let error = |problem| TraceError { line: Some(index + 1), problem };
        let numbers: Vec<Option<f64>> = line.split_whitespace().map(|number| number.parse().ok()).collect();
        let [Some(seconds), Some(mbit)] = numbers[..] else {
            return Err(error("must be two numbers: seconds and Mbit/s"));
        };
        if !(0.0..=1e9).contains(&seconds) || !(0.0..=1e6).contains(&mbit) {
            return Err(error("must be 0 to 1e9 seconds and 0 to 1e6 Mbit/s"));
        }
        match before {
            None => start = seconds,
            Some((from, _)) if seconds < from => return Err(error("is earlier than the line before")),
            Some((from, rate)) => {
                let per_second = rate * 1e6 / (8 * PACKET) as f64;
                let total = begun + (seconds - from) * per_second;
                if times.len() as f64 + total > MAX_PACKETS as f64 {
                    return Err(error("is more than fifty million packets"));
                }
                // A packet that is whole but for rounding has left.
                let whole = (total + 1e-9).floor();
                for number in 1..=whole as usize {
                    let at = (from + (number as f64 - begun) / per_second).min(seconds);
                    times.push(Duration::from_secs_f64(at - start));
                }
                begun = (total - whole).max(0.0);
            }
        }
        before = Some((seconds, mbit));
    }
    let end = before.map_or(0.0, |(end, _)| end - start);
    Ok((times, Duration::from_secs_f64(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn a_list_of_milliseconds_repeats_after_its_last_line() {
        let trace = Trace::parse("2\n2\n5\n\n10\n").unwrap();
        let times: Vec<Duration> = (0..7).map(|number| trace.time(number)).collect();
        assert_eq!(times, [2, 2, 5, 10, 12, 12, 15].map(ms));
        assert_eq!([0, 2, 3, 10, 11, 25].map(|at| trace.first_at(ms(at))), [0, 0, 2, 3, 4, 10]);
        assert_eq!(trace.period(), ms(10));
        assert_eq!(trace.mean_rate(), 4.0 * 12_000.0 / 0.01);
    }

    #[test]
    fn the_end_and_the_beginning_of_a_round_may_fall_together() {
        let trace = Trace::parse("0\n4\n").unwrap();
        assert_eq!([0, 1, 2, 3].map(|number| trace.time(number)), [0, 4, 4, 8].map(ms));
        assert_eq!([0, 1, 4, 5, 8].map(|at| trace.first_at(ms(at))), [0, 1, 1, 3, 3]);
    }

    #[test]
    fn a_table_of_rates_gives_evenly_spaced_packets() {
        // 12 Mbit/s is a packet each millisecond, 6 Mbit/s one each two.
        let trace = Trace::parse("1.0 12\n1.003 0\n1.010 6\n1.015 6\n").unwrap();
        let times: Vec<f64> = (0..5).map(|number| 1e3 * trace.time(number).as_secs_f64()).collect();
        for (time, right) in times.iter().zip([1.0, 2.0, 3.0, 12.0, 14.0]) {
            assert!((time - right).abs() < 1e-3, "{times:?}");
        }
        assert_eq!(trace.period(), ms(15));
    }

    #[test]
    fn another_form_is_named_with_its_line() {
        for (text, line, words) in [
            ("", None, "one column"),
            ("1 2 3", Some(1), "one column"),
            ("1\nx", Some(2), "whole number"),
            ("5\n\n4", Some(3), "earlier"),
            ("0 1\n1", Some(2), "two numbers"),
            ("0 1\n1 -1", Some(2), "0 to 1e6"),
            ("0 NaN", Some(1), "0 to 1e6"),
            ("1 1\n0 1", Some(2), "earlier"),
            ("0 1e6\n1e9 0", Some(2), "fifty million"),
            ("0 0\n1 0", None, "no packet"),
            ("0", None, "no length"),
        ] {
            let error = Trace::parse(text).unwrap_err();
            assert!(error.line == line && error.to_string().contains(words), "{text:?}: {error}");
        }
    }
}
