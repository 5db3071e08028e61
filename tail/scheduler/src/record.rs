//! Recordings of what a server was asked and how long its runs took: one JSON object a line.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{NetworkLimits, Terms};

/// A line of a recording: an event, and the time since the recording began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Microseconds from the beginning.
    pub at_us: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// An event of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A network that is served. They are numbered in the order of their lines, from 0.
    Network {
        /// Its name.
        name: String,
        /// Frames in one run.
        batch: usize,
        /// Microseconds that a frame may wait for others.
        wait_us: u64,
        /// Frames that may wait.
        queue: usize,
        /// Workers.
        workers: usize,
    },
    /// A frame that arrived.
    Frame {
        /// The name of its device.
        device: String,
        /// What its device might ask for.
        #[serde(default)]
        terms: Terms,
        /// Microseconds from its arrival to its deadline.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget_us: Option<u64>,
        /// The networks that it was for.
        parts: Vec<Part>,
    },
    /// A run that has ended.
    Run {
        /// The number of its network.
        network: usize,
        /// The shape of its frames.
        shape: usize,
        /// Its frames.
        batch: usize,
        /// Microseconds that it took.
        took_us: u64,
    },
}

/// A frame's work for one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The number of the network.
    pub network: usize,
    /// The shape of the frame; `None` where it was refused before the shape was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<usize>,
}

/// A line that is no record.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
#[non_exhaustive]
pub struct RecordError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Event {
    /// The event that tells of a network.
    #[must_use]
    pub fn network(name: &str, limits: &NetworkLimits) -> Event {
        let wait_us = micros(limits.wait);
        let NetworkLimits { batch, queue, workers, .. } = *limits;
        Event::Network { name: name.to_owned(), batch, wait_us, queue, workers }
    }
}

impl Record {
    /// Reads the lines of a recording. Empty lines are left out.
    ///
    /// # Errors
    /// The first line that is no record, or that names a network before the line of that network.
    pub fn parse(text: &str) -> Result<Vec<Record>, RecordError> {
        let mut networks = 0;
        let mut records = Vec::new();
        for (index, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
            let fail = |reason: String| RecordError { line: index + 1, reason };
            let record: Record = serde_json::from_str(text).map_err(|error| fail(error.to_string()))?;
            let mut named = Vec::new();
            match &record.event {
                Event::Network { batch, workers, queue, .. } => {
                    if [*batch, *workers, *queue].contains(&0) {
                        return Err(fail("batch, queue and workers must be at least 1".to_owned()));
                    }
                    networks += 1;
                }
                Event::Frame { parts, terms, .. } => {
                    named.extend(parts.iter().map(|part| part.network));
                    let quotas =
                        [terms.frames_per_second, terms.tail_ms_per_second, Some(terms.burst_seconds)];
                    if quotas.into_iter().flatten().any(|quota| !quota.is_finite() || quota <= 0.0) {
                        return Err(fail("quotas and bursts must be above 0".to_owned()));
                    }
                }
                Event::Run { network, .. } => named.push(*network),
            }
            if let Some(network) = named.into_iter().find(|network| *network >= networks) {
                return Err(fail(format!("network {network} has no line before this one")));
            }
            records.push(record);
        }
        Ok(records)
    }

    /// The line of this record, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        // Every part of a record is text or a number.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// Microseconds, for a record.
#[must_use]
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let limits = NetworkLimits { batch: 8, wait: Duration::ZERO, queue: 64, workers: 2 };
        let terms = Terms { frames_per_second: Some(5.0), ..Terms::default() };
        let part = Part { network: 0, shape: Some(1) };
        let events = [
            Event::network("classify", &limits),
            Event::Frame { device: "cam-1".into(), terms, budget_us: Some(9000), parts: vec![part] },
            Event::Run { network: 0, shape: 1, batch: 3, took_us: 812 },
        ];
        let records: Vec<Record> =
            events.into_iter().zip(0..).map(|(event, at_us)| Record { at_us, event }).collect();
        let text: String = records.iter().map(Record::line).collect();
        assert_eq!(Record::parse(&text).unwrap(), records, "{text}");
        let bare = "{\"at_us\":0,\"network\":{\"name\":\"n\",\"batch\":1,\"wait_us\":0,\"queue\":1,\"workers\":1}}\n\
                    {\"at_us\":3,\"frame\":{\"device\":\"a\",\"parts\":[{\"network\":0}]}}";
        assert_eq!(Record::parse(bare).unwrap().len(), 2);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = Record::parse("\n{\"at_us\":1}").unwrap_err().to_string();
        assert!(error.starts_with("line 2: "), "{error}");
        let error = Record::parse("{\"at_us\":1,\"frame\":{\"device\":\"a\",\"parts\":[{\"network\":0}]}}");
        assert!(error.unwrap_err().to_string().contains("network 0 has no line"));
    }
}
