//! The bundles that an engine serves, and which of them are in memory.
#![expect(clippy::disallowed_methods, reason = "what was used least recently is unloaded first")]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use narrows_models::{Bundle, Digest};
use tokio::sync::watch;

use super::{loader::Loaded, model::Model, options::BundleOptions};

/// Time after which a bundle that could not be loaded is tried again when it is asked for.
const AGAIN: Duration = Duration::from_secs(5);
/// Time in which who asked for a bundle takes its model once it is loaded. A head that was told to come back does so after one second.
const TAKEN: Duration = Duration::from_secs(2);

/// A bundle that is served, as it is now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BundleStatus {
    /// The bundle.
    pub bundle: Arc<Bundle>,
    /// Whether its unsplit networks are served as well.
    pub unsplit: bool,
    /// Whether it is in memory.
    pub state: BundleState,
    /// Bytes that its networks take in memory, estimated by the size of their files.
    pub bytes: u64,
    /// Whether it is served only as long as something uses it.
    pub is_leaving: bool,
    /// Why what is in its folder now, or the bundle itself, could not be loaded.
    pub fault: Option<String>,
}

/// Whether a bundle is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BundleState {
    /// Its networks answer frames.
    Loaded,
    /// It is being loaded.
    Loading,
    /// It is loaded when it is asked for.
    Unloaded,
}

/// Another version of a bundle, which is the one that clients should have.
#[derive(Clone, Debug)]
pub struct Successor {
    /// The other version.
    pub bundle: Arc<Bundle>,
    /// Whether the version that it takes the place of is leaving.
    pub is_leaving: bool,
}

/// Why a bundle has no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unserved {
    /// No bundle of this digest is served.
    #[error("no bundle of this digest is served")]
    Unknown,
    /// The bundles that are in use leave no memory for it.
    #[error("{0}")]
    NoMemory(String),
    /// It could not be loaded.
    #[error("the bundle cannot be loaded: {0}")]
    Failed(String),
    /// The engine is shutting down.
    #[error("the server is shutting down")]
    Closed,
}

/// What the thread that loads bundles is asked for.
pub(super) enum Command {
    /// Load this bundle, which is served and not in memory.
    Load(Digest),
    /// Serve the bundles in these folders from now on, and tell when that is done.
    Serve(Vec<PathBuf>, BundleOptions, tokio::sync::oneshot::Sender<()>),
}

/// The bundles of an engine.
pub(super) struct Registry {
    unsplit: bool,
    state: Mutex<State>,
    /// Raised when a bundle is loaded or cannot be.
    loads: watch::Sender<u64>,
    /// Raised when other bundles are served than before.
    offers: watch::Sender<u64>,
}

struct State {
    /// In the order of their folders; those that are leaving come last.
    entries: Vec<Entry>,
    commands: Option<mpsc::Sender<Command>>,
}

/// A bundle of a [`Registry`].
pub(super) struct Entry {
    pub(super) bundle: Arc<Bundle>,
    pub(super) folder: PathBuf,
    pub(super) bytes: u64,
    pub(super) is_leaving: bool,
    pub(super) residence: Residence,
    /// When something used it last.
    pub(super) used: Instant,
    /// When it was loaded for somebody who does not have it yet.
    pub(super) untaken: Option<Instant>,
    /// Why what is in the folder now is not served.
    pub(super) fault: Option<String>,
}

/// Where a bundle is.
pub(super) enum Residence {
    /// In its folder alone.
    Unloaded,
    /// About to be loaded.
    Asked,
    /// In memory.
    Loaded(Loaded),
    /// In its folder, and it could not be loaded.
    Failed(Unserved, Instant),
}

impl Entry {
    /// An entry of a bundle that is not loaded.
    pub(super) fn new(bundle: Arc<Bundle>, folder: &Path, bytes: u64) -> Entry {
        let (residence, used) = (Residence::Unloaded, Instant::now());
        let (folder, is_leaving, untaken, fault) = (folder.to_owned(), false, None, None);
        Entry { bundle, folder, bytes, is_leaving, residence, used, untaken, fault }
    }

    /// Whether it is in memory and stays so although nobody has it: it was loaded for somebody who is about to take it.
    pub(super) fn is_awaited(&self) -> bool {
        self.untaken.is_some_and(|loaded| loaded.elapsed() < TAKEN)
    }

    pub(super) fn loaded(&self) -> Option<&Loaded> {
        match &self.residence {
            Residence::Loaded(loaded) => Some(loaded),
            _ => None,
        }
    }

    fn status(&self, unsplit: bool) -> BundleStatus {
        let failed = match &self.residence {
            Residence::Failed(reason, _) => Some(reason.to_string()),
            _ => None,
        };
        BundleStatus {
            bundle: Arc::clone(&self.bundle),
            unsplit,
            state: match self.residence {
                Residence::Loaded(_) => BundleState::Loaded,
                Residence::Asked => BundleState::Loading,
                Residence::Unloaded | Residence::Failed(..) => BundleState::Unloaded,
            },
            bytes: self.bytes,
            is_leaving: self.is_leaving,
            fault: self.fault.clone().or(failed),
        }
    }
}

impl BundleStatus {
    /// Whether the task of this index answers images.
    #[must_use]
    pub fn serves_unsplit(&self, task: usize) -> bool {
        self.unsplit && self.bundle.tasks().get(task).is_some_and(|task| task.reference.is_some())
    }
}

impl Registry {
    /// The bundles of an engine that serves the unsplit networks as well, or not.
    pub(super) fn new(unsplit: bool, entries: Vec<Entry>, commands: mpsc::Sender<Command>) -> Registry {
        let state = Mutex::new(State { entries, commands: Some(commands) });
        Registry { unsplit, state, loads: watch::Sender::new(0), offers: watch::Sender::new(0) }
    }

    /// The models in memory, in the order of their folders.
    pub(super) fn models(&self) -> Vec<Arc<Model>> {
        let state = self.lock();
        state.entries.iter().filter_map(Entry::loaded).map(|loaded| Arc::clone(&loaded.model)).collect()
    }

    /// The bundles that are served, those that are leaving last.
    pub(super) fn bundles(&self) -> Vec<BundleStatus> {
        self.lock().entries.iter().map(|entry| entry.status(self.unsplit)).collect()
    }

    /// The model of a bundle, which is loaded first if it is not in memory.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(super) async fn model(&self, digest: Digest) -> Result<Arc<Model>, Unserved> {
        let mut loads = self.loads.subscribe();
        loop {
            // What happens after this is not missed.
            loads.mark_unchanged();
            if let Some(found) = self.find(digest) {
                return found;
            }
            loads.changed().await.map_err(|_| Unserved::Closed)?;
        }
    }

    /// The model of a bundle or the reason why there is none; `None` while it is loaded.
    fn find(&self, digest: Digest) -> Option<Result<Arc<Model>, Unserved>> {
        let mut state = self.lock();
        let State { entries, commands } = &mut *state;
        let Some(commands) = commands else { return Some(Err(Unserved::Closed)) };
        let Some(entry) = entries.iter_mut().find(|entry| entry.bundle.digest() == digest) else {
            return Some(Err(Unserved::Unknown));
        };
        entry.used = Instant::now();
        match &entry.residence {
            Residence::Loaded(loaded) => {
                entry.untaken = None;
                return Some(Ok(Arc::clone(&loaded.model)));
            }
            Residence::Failed(reason, at) if at.elapsed() < AGAIN => return Some(Err(reason.clone())),
            Residence::Asked => {}
            Residence::Unloaded | Residence::Failed(..) => {
                if commands.send(Command::Load(digest)).is_err() {
                    return Some(Err(Unserved::Closed));
                }
                entry.residence = Residence::Asked;
            }
        }
        None
    }

    /// The version of a bundle that clients should have, if that is another one: of those of its name that are not leaving the last.
    pub(super) fn successor(&self, digest: Digest) -> Option<Successor> {
        let state = self.lock();
        let own = state.entries.iter().find(|entry| entry.bundle.digest() == digest)?;
        let is_version = |entry: &&Entry| !entry.is_leaving && entry.bundle.name() == own.bundle.name();
        let newest = state.entries.iter().rfind(is_version)?;
        let is_other = newest.bundle.digest() != digest;
        is_other.then(|| Successor { bundle: Arc::clone(&newest.bundle), is_leaving: own.is_leaving })
    }

    /// Asks the thread that loads bundles for something. What it is asked for when the engine is closed is dropped.
    pub(super) fn ask(&self, command: Command) {
        if let Some(commands) = &self.lock().commands {
            // It ends when the engine is closed.
            let _ = commands.send(command);
        }
    }

    /// Changes the entries.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        change(&mut self.lock().entries)
    }

    /// Tells those who wait for a bundle to be loaded to look.
    pub(super) fn tell_loads(&self) {
        self.loads.send_modify(|count| *count += 1);
    }

    /// Tells those who offer bundles that others are served.
    pub(super) fn tell_offers(&self) {
        self.offers.send_modify(|count| *count += 1);
    }

    /// A receiver that is told when other bundles are served.
    pub(super) fn watch_offers(&self) -> watch::Receiver<u64> {
        self.offers.subscribe()
    }

    /// Gives out no more models to those who ask for them, and ends the thread that loads bundles.
    pub(super) fn close(&self) {
        self.lock().commands = None;
        self.tell_loads();
    }

    /// Whether it is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().commands.is_none()
    }

    /// Ends all workers once their queues are empty, and waits for them.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        let loaded = state.entries.iter_mut().filter_map(|entry| match &mut entry.residence {
            Residence::Loaded(loaded) => Some(loaded),
            _ => None,
        });
        let mut loaded: Vec<&mut Loaded> = loaded.collect();
        loaded.iter().for_each(|loaded| loaded.close());
        loaded.iter_mut().for_each(|loaded| loaded.end());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
