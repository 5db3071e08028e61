//! Totals of a run, in memory that does not grow with the number of frames.

use std::fmt;

use hdrhistogram::Histogram;

use super::{CameraSummary, Joules, Line, SinkStatus, SpoolStatus, Status};

/// Significant decimal digits of the durations in the histogram: quantiles are exact within 0.1 %.
const DIGITS: u8 = 3;
/// Longest duration in the histogram in microseconds, two hours; `--budget` allows one.
const LONGEST: u64 = 7_200_000_000;

/// Totals of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Frames for which at least one task was answered.
    pub answered: u64,
    /// Frames that the server refused.
    pub refused: u64,
    /// Frames that nobody answered.
    pub failed: u64,
    /// Frames whose place a newer one took.
    pub dropped: u64,
    /// Frames that wait on disk for a server.
    pub spooled: u64,
    /// Frames from the disk that a server answered, or refused for good; they were counted before, in this run or an earlier one.
    pub late: u64,
    /// What became of the frames of the spool, if there is one.
    pub spool: Option<SpoolStatus>,
    /// Frames that were begun and had no outcome when the process had to end.
    pub unfinished: u64,
    /// Frames of the source that were not begun because the run ended early; 0 if the source has no known total.
    pub not_begun: u64,
    /// Answered frames that this device answered.
    pub local: u64,
    /// Answered frames that kept the answer to an earlier one.
    pub kept: u64,
    /// What became of the frames of each camera.
    pub cameras: Vec<CameraSummary>,
    /// What each sink beside standard output delivered and lost.
    pub sinks: Vec<SinkStatus>,
    /// Bytes of the packets of all frames that a server answered.
    packet_bytes: u64,
    /// Modelled joules of all frames, where energy was to be saved.
    joules: Option<f64>,
    /// Microseconds from the capture to the answer of the answered frames.
    totals: Histogram<u64>,
}

impl Default for Summary {
    fn default() -> Self {
        let totals = Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds are in range");
        Summary {
            answered: 0,
            refused: 0,
            failed: 0,
            dropped: 0,
            spooled: 0,
            late: 0,
            spool: None,
            unfinished: 0,
            not_begun: 0,
            local: 0,
            kept: 0,
            cameras: Vec::new(),
            sinks: Vec::new(),
            packet_bytes: 0,
            joules: None,
            totals,
        }
    }
}

impl Summary {
    /// Frames whose outcome is known.
    pub(crate) fn finished(&self) -> u64 {
        self.answered + self.refused + self.failed + self.dropped + self.spooled
    }

    /// Counts a frame.
    pub fn add(&mut self, line: &Line) {
        if let Some(Joules { computing, sending }) = line.joules {
            *self.joules.get_or_insert(0.0) += computing + sending;
        }
        if line.is_late() {
            self.late += 1;
            return;
        }
        match line.status {
            Status::Answered => {
                self.answered += 1;
                let is_kept = line.path.as_deref() == Some("kept");
                self.kept += u64::from(is_kept);
                self.local += u64::from(line.bytes.is_none() && !is_kept);
                self.packet_bytes += line.bytes.map_or(0, |bytes| bytes.packet as u64);
                if let Some(ms) = line.ms {
                    self.totals.saturating_record((ms.total * 1e3).round() as u64);
                }
            }
            Status::Refused => self.refused += 1,
            Status::Failed => self.failed += 1,
            Status::Dropped => self.dropped += 1,
            Status::Spooled => self.spooled += 1,
        }
    }

    /// Whether every frame of the source was answered, but for those that were dropped for newer ones.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.refused + self.failed + self.unfinished + self.not_begun == 0
    }

    /// Mean packet size in bytes of the frames that a server answered.
    #[must_use]
    pub fn mean_packet_bytes(&self) -> Option<f64> {
        let sent = self.answered - self.local - self.kept;
        (sent > 0).then(|| self.packet_bytes as f64 / sent as f64)
    }

    /// Modelled joules of an answered frame, with those of frames without an answer; `None` where no energy was to be saved.
    #[must_use]
    pub fn joules_per_answer(&self) -> Option<f64> {
        self.joules.filter(|_| self.answered > 0).map(|joules| joules / self.answered as f64)
    }

    /// Quantile of the milliseconds from capture to answer over the answered frames, by nearest rank and exact within
    /// 0.1 %. `quantile` is from 0 to 1.
    #[must_use]
    pub fn total_ms(&self, quantile: f64) -> Option<f64> {
        let value = || self.totals.value_at_quantile(quantile) as f64 / 1e3;
        (!self.totals.is_empty()).then(value)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames = self.finished() + self.unfinished;
        let s = if frames == 1 { "" } else { "s" };
        write!(f, "{frames} frame{s}: {} answered", self.answered)?;
        write!(f, ", {} refused, {} failed", self.refused, self.failed)?;
        if self.dropped > 0 {
            write!(f, ", {} dropped for newer ones", self.dropped)?;
        }
        if self.spooled > 0 {
            write!(f, ", {} spooled", self.spooled)?;
        }
        if self.unfinished > 0 {
            write!(f, ", {} unfinished", self.unfinished)?;
        }
        if self.not_begun > 0 {
            write!(f, ", {} not begun", self.not_begun)?;
        }
        if self.local > 0 {
            write!(f, ", {} on this device alone", self.local)?;
        }
        if self.kept > 0 {
            write!(f, ", {} kept from an earlier frame", self.kept)?;
        }
        if let Some(bytes) = self.mean_packet_bytes() {
            write!(f, "; packet {bytes:.0} bytes on average")?;
        }
        if let (Some(p50), Some(p95)) = (self.total_ms(0.5), self.total_ms(0.95)) {
            write!(f, "; total p50 {p50:.1} ms, p95 {p95:.1} ms")?;
        }
        if let Some(joules) = self.joules_per_answer() {
            write!(f, "; {joules:.4} J modelled for each answer")?;
        }
        self.spool.iter().try_for_each(|spool| write!(f, "\n{spool}"))?;
        self.cameras.iter().try_for_each(|camera| write!(f, "\n{camera}"))?;
        self.sinks.iter().try_for_each(|sink| write!(f, "\n{sink}"))
    }
}
