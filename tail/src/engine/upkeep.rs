//! The thread that loads, replaces and unloads bundles, one after the other, while the others answer frames.
#![expect(clippy::disallowed_methods, reason = "a bundle is unloaded some time after its last use")]

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use narrows_models::Digest;

use super::{
    bundle::OpenedBundle,
    error::{Error, chain},
    loader::{Loaded, Loader},
    model::Model,
    options::{BundleOptions, Load},
    registry::{Command, Entry, Registry, Residence, Unserved},
};

/// How often it is looked whether a bundle is still used.
const LOOK: Duration = Duration::from_millis(250);

/// What keeps the bundles of an engine.
pub(super) struct Upkeep {
    pub(super) registry: Arc<Registry>,
    pub(super) loader: Loader,
    pub(super) commands: Receiver<Command>,
}

/// Opens the bundles in these folders, and loads those that are to be in memory at the start.
///
/// # Errors
/// The first [`Error`]. All bundles are checked before the first network is loaded.
pub(super) fn open(
    folders: &[PathBuf],
    loader: &Loader,
    opened: Vec<OpenedBundle>,
) -> Result<Vec<Entry>, Error> {
    let BundleOptions { memory, load, .. } = loader.options.bundles;
    let mut entries: Vec<Entry> = Vec::new();
    let mut taken = 0;
    for (folder, opened) in folders.iter().zip(opened) {
        let bytes = bytes(&opened, loader);
        check_fits(folder, bytes, memory)?;
        let fits = memory.is_none_or(|memory| taken + bytes <= memory);
        entries.push(if load == Load::Start && fits {
            taken += bytes;
            let loaded = loader.load(opened, None)?;
            loader.metrics.bundles_loaded.add(1);
            let entry = Entry::new(Arc::clone(&loaded.model.bundle), folder, bytes);
            Entry { residence: Residence::Loaded(loaded), ..entry }
        } else {
            unloaded(folder, opened, bytes)
        });
    }
    Ok(entries)
}

/// The bytes that a bundle takes in memory.
fn bytes(opened: &OpenedBundle, loader: &Loader) -> u64 {
    opened.bytes(loader.options.unsplit) * loader.options.workers.max(1) as u64
}

/// Checks that a bundle fits into the memory at all.
fn check_fits(folder: &Path, bytes: u64, memory: Option<u64>) -> Result<(), Error> {
    match memory {
        Some(memory) if bytes > memory => {
            let (bytes, memory) = (mebibytes(bytes), mebibytes(memory));
            let reason = format!(
                "its networks take about {bytes} MiB of memory, and all bundles may take {memory} (--bundles-memory)"
            );
            Err(Error::Unfit { folder: folder.to_owned(), reason })
        }
        _ => Ok(()),
    }
}

/// An entry of a bundle that is loaded when it is asked for.
fn unloaded(folder: &Path, mut opened: OpenedBundle, bytes: u64) -> Entry {
    opened.bundle.release();
    let bundle = Arc::new(opened.bundle);
    tracing::info!(bundle = bundle.name(), digest = %bundle.digest(), "is loaded when it is asked for");
    Entry::new(bundle, folder, bytes)
}

impl Upkeep {
    /// Starts the thread. It ends when the registry is closed.
    ///
    /// # Errors
    /// The operating system's error if the thread cannot be started.
    pub(super) fn start(self) -> io::Result<JoinHandle<()>> {
        Builder::new().name("bundles".into()).spawn(move || self.run())
    }

    fn run(mut self) {
        loop {
            match self.commands.recv_timeout(LOOK) {
                // What it was asked for before nobody waits for any more.
                Ok(_) if self.registry.is_closed() => return,
                Ok(Command::Load(digest)) => self.load_asked(digest),
                Ok(Command::Serve(folders, options, done)) => {
                    self.loader.options.bundles = options;
                    self.serve(&folders);
                    // Who asked may have gone.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.sweep(Instant::now());
        }
    }

    /// Loads a bundle that was asked for.
    fn load_asked(&self, digest: Digest) {
        let found = self.registry.change(|entries| {
            let entry = entries.iter().find(|entry| entry.bundle.digest() == digest)?;
            Some((entry.folder.clone(), entry.bytes))
        });
        let Some((folder, bytes)) = found else { return self.registry.tell_loads() };
        let loaded = self.make_room(bytes).map_err(Unserved::NoMemory).and_then(|()| {
            let opened = OpenedBundle::open(&folder, self.loader.options.unsplit);
            let failed = |error: Error| {
                let reason = chain(&error);
                tracing::error!(reason, "a bundle that was asked for cannot be loaded");
                Unserved::Failed(reason)
            };
            let opened = opened.map_err(failed)?;
            if opened.bundle.digest() != digest {
                let reason = format!("{} holds another one now", folder.display());
                return Err(Unserved::Failed(reason));
            }
            self.load(opened, None).map_err(failed)
        });
        self.registry.change(|entries| {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.bundle.digest() == digest) {
                entry.used = Instant::now();
                entry.untaken = loaded.is_ok().then(Instant::now);
                entry.residence = match loaded {
                    Ok(loaded) => Residence::Loaded(loaded),
                    Err(reason) => Residence::Failed(reason, Instant::now()),
                };
            }
        });
        self.registry.tell_loads();
    }

    fn load(&self, opened: OpenedBundle, before: Option<&Model>) -> Result<Loaded, Error> {
        let metrics = &self.loader.metrics;
        let folder = opened.bundle.dir().to_owned();
        // A panic would end this thread, and who asks for a bundle from then on would wait in vain.
        let loaded = catch_unwind(AssertUnwindSafe(|| self.loader.load(opened, before)));
        let loaded =
            loaded.unwrap_or_else(|_| Err(Error::Unfit { folder, reason: "loading it panicked".to_owned() }));
        if loaded.is_ok() { &metrics.bundles_loaded } else { &metrics.bundles_failed }.add(1);
        loaded
    }

    /// Serves the bundles in these folders. What is served from a folder whose bundle cannot be used stays; of others that are
    /// served nothing new is offered, and they are unloaded when nothing uses them any more.
    fn serve(&self, folders: &[PathBuf]) {
        let mut order: Vec<Digest> = Vec::new();
        for folder in folders {
            if self.registry.is_closed() {
                return;
            }
            match self.take_up(folder, &order) {
                Ok(digest) => {
                    order.push(digest);
                    self.note(folder, None);
                }
                Err(error) => {
                    let reason = chain(&error);
                    let kept = self.registry.change(|entries| {
                        let is_kept = |entry: &&Entry| !entry.is_leaving && entry.folder == *folder;
                        entries.iter().find(is_kept).map(|entry| entry.bundle.digest())
                    });
                    match kept.filter(|digest| !order.contains(digest)) {
                        Some(digest) => {
                            tracing::error!(reason, "what was served before stays");
                            order.push(digest);
                        }
                        None => tracing::error!(reason, "the bundle is not served"),
                    }
                    self.note(folder, Some(reason));
                }
            }
        }
        let leaving = self.registry.change(|entries| {
            let mut leaving = Vec::new();
            for entry in entries.iter_mut() {
                let leaves = !order.contains(&entry.bundle.digest());
                if leaves && !entry.is_leaving {
                    leaving.push(Arc::clone(&entry.bundle));
                }
                entry.is_leaving = leaves;
            }
            let place = |entry: &Entry| order.iter().position(|digest| *digest == entry.bundle.digest());
            entries.sort_by_key(|entry| place(entry).unwrap_or(usize::MAX));
            leaving
        });
        for bundle in leaving {
            tracing::info!(bundle = bundle.name(), digest = %bundle.digest(), "serves those who use it, and no longer others");
        }
        self.registry.tell_offers();
    }

    /// Notes why what is in a folder is not served, or that it is.
    fn note(&self, folder: &Path, fault: Option<String>) {
        self.registry.change(|entries| {
            let of_folder = entries.iter_mut().filter(|entry| !entry.is_leaving && entry.folder == *folder);
            of_folder.for_each(|entry| entry.fault.clone_from(&fault));
        });
    }

    /// Has the bundle in a folder among the entries, and returns its digest. It is loaded where it takes the place of one that is.
    fn take_up(&self, folder: &Path, order: &[Digest]) -> Result<Digest, Error> {
        let opened = OpenedBundle::open(folder, self.loader.options.unsplit)?;
        let (digest, name) = (opened.bundle.digest(), opened.bundle.name().to_owned());
        if order.contains(&digest) {
            return Err(Error::Unfit {
                folder: folder.to_owned(),
                reason: "the same bundle is served twice".into(),
            });
        }
        let known = self.registry.change(|entries| {
            let entry = entries.iter_mut().find(|entry| entry.bundle.digest() == digest)?;
            entry.folder = folder.to_owned();
            Some(())
        });
        if known.is_some() {
            return Ok(digest);
        }
        let BundleOptions { memory, load, .. } = self.loader.options.bundles;
        let bytes = bytes(&opened, &self.loader);
        check_fits(folder, bytes, memory)?;
        // Of the versions of a name any tells what is in use; what was served from the folder is what this one replaces.
        let (before, replaces, taken) = self.registry.change(|entries| {
            let is_version = |entry: &&Entry| !entry.is_leaving && entry.bundle.name() == name;
            let is_here =
                |entry: &Entry| !entry.is_leaving && entry.folder == *folder && entry.loaded().is_some();
            let model =
                entries.iter().filter(is_version).find_map(Entry::loaded).map(|own| Arc::clone(&own.model));
            let loaded = entries.iter().filter(|entry| entry.loaded().is_some());
            (model, entries.iter().any(is_here), loaded.map(|entry| entry.bytes).sum::<u64>())
        });
        if replaces {
            // The one before it goes on until there is memory for this one.
            let unfit = |reason| Error::Unfit { folder: folder.to_owned(), reason };
            self.make_room(bytes).map_err(unfit)?;
        }
        let fits = memory.is_none_or(|memory| taken + bytes <= memory);
        let entry = match replaces || load == Load::Start && fits {
            true => {
                let loaded = self.load(opened, before.as_deref())?;
                let entry = Entry::new(Arc::clone(&loaded.model.bundle), folder, bytes);
                Entry { residence: Residence::Loaded(loaded), ..entry }
            }
            false => unloaded(folder, opened, bytes),
        };
        self.registry.change(|entries| entries.push(entry));
        self.registry.tell_loads();
        Ok(digest)
    }

    /// Unloads what was used least recently until there is memory for `bytes` more.
    ///
    /// # Errors
    /// What is in use leaves no room.
    fn make_room(&self, bytes: u64) -> Result<(), String> {
        let Some(memory) = self.loader.options.bundles.memory else { return Ok(()) };
        loop {
            let evicted = self.registry.change(|entries| {
                let loaded = |entry: &&mut Entry| entry.loaded().is_some();
                let taken: u64 = entries.iter_mut().filter(loaded).map(|entry| entry.bytes).sum();
                if taken + bytes <= memory {
                    return Ok(None);
                }
                // What was just loaded for somebody would else be unloaded for the next before the first has it, and so on.
                let idle = |entry: &&mut Entry| {
                    !entry.is_awaited() && entry.loaded().is_some_and(|loaded| !loaded.is_in_use())
                };
                let oldest = entries.iter_mut().filter(idle).min_by_key(|entry| entry.used);
                let Some(entry) = oldest else {
                    return Err(format!(
                        "the bundles in use take {} of {} MiB, and this one about {}",
                        mebibytes(taken),
                        mebibytes(memory),
                        mebibytes(bytes)
                    ));
                };
                let residence = std::mem::replace(&mut entry.residence, Residence::Unloaded);
                Ok(Some((Arc::clone(&entry.bundle), residence)))
            })?;
            let Some((bundle, residence)) = evicted else { return Ok(()) };
            if let Residence::Loaded(mut loaded) = residence {
                loaded.end();
            }
            self.loader.metrics.bundles_evicted.add(1);
            tracing::info!(bundle = bundle.name(), digest = %bundle.digest(), "unloaded, to make room for another bundle");
        }
    }

    /// Notes what is in use at this time, and unloads what leaves and has not been used for a while.
    fn sweep(&self, now: Instant) {
        let unload_after = self.loader.options.bundles.unload_after;
        let gone = self.registry.change(|entries| {
            for entry in entries.iter_mut() {
                if entry.loaded().is_some_and(Loaded::is_in_use) {
                    entry.used = now;
                }
            }
            let is_gone = |entry: &mut Entry| {
                let is_idle = match &entry.residence {
                    Residence::Loaded(loaded) => {
                        !loaded.is_in_use()
                            && !entry.is_awaited()
                            && now.saturating_duration_since(entry.used) >= unload_after
                    }
                    Residence::Asked => false,
                    Residence::Unloaded | Residence::Failed(..) => true,
                };
                entry.is_leaving && is_idle
            };
            entries.extract_if(.., is_gone).collect::<Vec<_>>()
        });
        for Entry { bundle, residence, .. } in gone {
            if let Residence::Loaded(mut loaded) = residence {
                loaded.end();
                self.loader.metrics.bundles_left.add(1);
                tracing::info!(bundle = bundle.name(), digest = %bundle.digest(), "unloaded, nothing uses it any more");
            }
        }
        // The memory may be less than it was.
        let _ = self.make_room(0);
    }
}

/// Whole mebibytes, at least one.
fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
