//! Recording of arrivals and runs to a file, on a thread of its own.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use narrows_scheduler::{Event, NetworkLimits, Part, Record, micros};

use super::client::Client;

/// Records that may wait to be written; further ones are left out and counted.
const WAITING: usize = 4096;

/// Writes records to a file.
pub(super) struct Recorder {
    state: Mutex<Option<(SyncSender<Record>, JoinHandle<()>)>>,
    left_out: super::metrics::Counter,
}

impl Recorder {
    /// Begins a recording in a new file at `path`, in place of one that is there.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn create(path: &Path) -> io::Result<Recorder> {
        let file = BufWriter::new(File::create(path)?);
        let (sender, records) = sync_channel(WAITING);
        let path = path.to_owned();
        let thread = Builder::new().name("recorder".into()).spawn(move || write(&path, file, &records))?;
        Ok(Recorder { state: Mutex::new(Some((sender, thread))), left_out: Default::default() })
    }

    /// Records a network.
    pub(super) fn network(&self, now: Duration, name: &str, limits: &NetworkLimits) {
        self.send(now, Event::network(name, limits));
    }

    /// Records a frame.
    pub(super) fn frame(&self, now: Duration, client: &Client, budget_us: Option<u64>, parts: Vec<Part>) {
        let device = client.name.to_string();
        self.send(now, Event::Frame { device, terms: client.terms, budget_us, parts });
    }

    /// Records a run.
    pub(super) fn run(&self, now: Duration, network: usize, shape: usize, batch: usize, took: Duration) {
        self.send(now, Event::Run { network, shape, batch, took_us: micros(took) });
    }

    /// Ends the recording; what waits is written.
    pub(super) fn close(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((sender, thread)) = state else { return };
        drop(sender);
        // It logs its own faults.
        let _ = thread.join();
        let left_out = self.left_out.value();
        if left_out > 0 {
            tracing::warn!(left_out, "records of arrivals that the disk was too slow for");
        }
    }

    fn send(&self, now: Duration, event: Event) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((sender, _)) = &*state else { return };
        if let Err(TrySendError::Full(_)) = sender.try_send(Record { at_us: micros(now), event }) {
            self.left_out.add(1);
        }
    }
}

/// Writes records until the sender is gone, or the first one cannot be written.
fn write(path: &Path, mut file: BufWriter<File>, records: &Receiver<Record>) {
    let result = records
        .iter()
        .try_for_each(|record| file.write_all(record.line().as_bytes()))
        .and_then(|()| file.flush());
    if let Err(error) = result {
        tracing::error!(file = %path.display(), %error, "the recording of arrivals ends here");
    }
}
