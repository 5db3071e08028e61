//! JSON lines in a file.

use std::{sync::Arc, time::Duration};

use super::{
    event::Event,
    queue::{Next, Queue},
};
use crate::{line_file::LineFile, report::Totals};

/// The longest wait for a line at a time; the next one follows.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes lines to a file.
#[derive(Debug)]
pub(super) struct FileSink(pub(super) LineFile);

impl FileSink {
    /// Writes lines until the queue ends. A line that cannot be written is counted as lost, and the next one is tried.
    pub(super) fn run(mut self, queue: &Queue<Arc<Event>>, totals: &Totals) {
        let mut failed = false;
        loop {
            let events = match queue.take(PATIENCE) {
                Next::Entries(events) => events,
                Next::Nothing => continue,
                Next::End => break,
            };
            self.0.look_after();
            for event in events {
                match self.0.write(&event.json) {
                    Ok(()) => {
                        queue.tally().deliver();
                        queue.tally().note_recovery();
                    }
                    Err(error) => {
                        queue.tally().lose(1);
                        queue.tally().note_trouble(format!("cannot be written: {error}"));
                        if !std::mem::replace(&mut failed, true) {
                            totals.note_error(self.0.error(error));
                        }
                    }
                }
            }
        }
        // After a power cut the last lines would be missing.
        self.0.sync();
    }
}
