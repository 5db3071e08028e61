//! The file of one spooled frame: what is sent, and what its line tells besides the answer.
//!
//! `NRSPOOL1`, then three little-endian u32 (length of the description, length of the request, CRC-32 of both), the description
//! as JSON, and the request as wire/PROTOCOL.md section 4 has it, without number, bundle and budget.

use std::path::PathBuf;

use narrows_wire::{Payload, Request, TaskRequest};
use serde::{Deserialize, Serialize};

/// The first bytes of a record.
const MAGIC: &[u8; 8] = b"NRSPOOL1";
/// Bytes before the description.
const HEADER: usize = 20;
/// Longest description.
const MAX_DESCRIPTION: usize = 64 << 10;

/// What is known of a frame besides what is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Description {
    /// Its number in the run that captured it.
    pub(super) frame: u64,
    /// When it was captured, in milliseconds of this device's calendar.
    pub(super) captured_ms: u64,
    pub(super) camera: Option<String>,
    pub(super) sequence: Option<u64>,
    pub(super) replaced: u64,
    /// The bytes of its file's path.
    pub(super) file: Option<Vec<u8>>,
    pub(super) sent: Sent,
}

/// How what is sent was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Sent {
    /// A packet of the split.
    Packet { geometry: u8, level: u8, coding: Option<String> },
    /// An image file.
    Image { geometry: u8, webp: bool, quality: u8, full_chroma: bool, original: bool },
}

/// A frame on disk.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) description: Description,
    pub(super) tasks: Vec<TaskRequest>,
    pub(super) payload: Payload,
}

/// Why a file is no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("it is no record of a spool")]
    Magic,
    #[error("it was not written to its end, or is longer than it says")]
    Length,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its description cannot be read")]
    Description(#[source] serde_json::Error),
    #[error("its request cannot be read")]
    Request(#[source] narrows_wire::Error),
}

impl Record {
    /// The bytes of the file.
    ///
    /// # Errors
    /// A payload over the protocol's limits.
    pub(super) fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let description = serde_json::to_vec(&self.description).map_err(RecordError::Description)?;
        let (task_requests, payload) = (self.tasks.clone(), self.payload.clone());
        let request = Request { id: 0, bundle: 0, budget: None, task_requests, payload };
        let request = request.encode().map_err(RecordError::Request)?;
        let mut bytes = Vec::with_capacity(HEADER + description.len() + request.len());
        bytes.extend(MAGIC);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&description);
        checksum.update(&request);
        for number in [description.len() as u32, request.len() as u32, checksum.finalize()] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(description);
        bytes.extend(request);
        Ok(bytes)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`RecordError`] for bytes that [`Record::encode`] did not make.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(RecordError::Length)?;
        if !header.starts_with(MAGIC) {
            return Err(RecordError::Magic);
        }
        let number =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (description, request) = (number(8) as usize, number(12) as usize);
        if description > MAX_DESCRIPTION || description.checked_add(request) != Some(rest.len()) {
            return Err(RecordError::Length);
        }
        if crc32fast::hash(rest) != number(16) {
            return Err(RecordError::Checksum);
        }
        let (description, request) = rest.split_at(description);
        let description = serde_json::from_slice(description).map_err(RecordError::Description)?;
        let Request { task_requests: tasks, payload, .. } =
            Request::parse(request).map_err(RecordError::Request)?;
        Ok(Record { description, tasks, payload })
    }
}

impl Description {
    /// The file that the frame was read from.
    pub(super) fn path(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        self.file.clone().map(|bytes| std::ffi::OsString::from_vec(bytes).into())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use narrows_wire::Query;

    use super::*;

    /// A record of a packet of this many bytes.
    pub(in super::super) fn record(frame: u64, captured_ms: u64, bytes: usize) -> Record {
        let sent = Sent::Packet { geometry: 0, level: 1, coding: Some("static".into()) };
        let description = Description {
            frame,
            captured_ms,
            camera: Some("gate".into()),
            sequence: Some(7),
            replaced: 0,
            file: Some(b"a/\xff.jpg".to_vec()),
            sent,
        };
        let tasks = vec![TaskRequest { task: 0, query: Query::Classify { top_k: 5 } }];
        Record { description, tasks, payload: Payload::Packet(vec![7; bytes]) }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = record(3, 1_700_000_000_000, 900);
        assert_eq!(Record::parse(&record.encode().unwrap()).unwrap(), record);
        assert_eq!(record.description.path().unwrap().as_os_str().len(), 7);
    }

    #[test]
    fn a_record_that_was_cut_or_changed_anywhere_is_an_error() {
        let bytes = record(3, 1_700_000_000_000, 40).encode().unwrap();
        for length in 0..bytes.len() {
            Record::parse(&bytes[..length]).unwrap_err();
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            Record::parse(&changed).unwrap_err();
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(matches!(Record::parse(&longer), Err(RecordError::Length)));
    }
}
