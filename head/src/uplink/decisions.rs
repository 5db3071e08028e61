//! A file of everything that rate control observed and decided (`--decisions`), on which it can be decided again.
//!
//! What is noted waits in a bounded queue for a thread that writes it, so that no frame waits for the disk. What does not fit into the
//! queue, or onto the disk, is counted and leaves a gap, and the record is taken up with the whole state.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use narrows_policy::Entry;

use crate::{Error, config::DecisionSettings, line_file::LineFile, name::Escaped, report::Tally};

/// Entries that may wait for the disk: some seconds of a fast link.
const QUEUE: usize = 8192;
/// Entries that are written at once.
const BATCH: usize = 256;
/// Full files that are kept.
const KEEP: u32 = 1;

/// Takes note of observations and decisions.
#[derive(Debug, Clone)]
pub(crate) struct DecisionLog {
    entries: SyncSender<Entry>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Whether nothing can be decided again before the whole state has been noted.
    is_incomplete: AtomicBool,
    /// Whether the whole state is wanted, so that a new file can be begun.
    is_full: AtomicBool,
    /// Entries that are missing since the last state.
    missing: AtomicU64,
    tally: Arc<Tally>,
}

/// The thread that writes the file.
#[derive(Debug)]
pub(crate) struct DecisionFile {
    file: LineFile,
    size: u64,
    entries: Receiver<Entry>,
    state: Arc<State>,
}

impl DecisionLog {
    /// Opens the file, and creates what fills it. `add` is told of the counts.
    ///
    /// # Errors
    /// [`Error::Output`] with the file.
    pub(crate) fn open(
        settings: &DecisionSettings,
        add: impl FnOnce(Arc<Tally>),
    ) -> Result<(Self, DecisionFile), Error> {
        // A new file is begun here, with the state, and not in the middle.
        let file = LineFile::open("--decisions", &settings.file, u64::MAX, KEEP)?;
        let tally = Arc::new(Tally::new(format!("decisions {}", Escaped(&settings.file))));
        add(Arc::clone(&tally));
        let (sender, entries) = sync_channel(QUEUE);
        let state = Arc::new(State {
            is_incomplete: AtomicBool::new(true),
            is_full: AtomicBool::new(false),
            missing: AtomicU64::new(0),
            tally,
        });
        let log = DecisionLog { entries: sender, state: Arc::clone(&state) };
        Ok((log, DecisionFile { file, size: settings.size, entries, state }))
    }

    /// Begins a connection: what was observed of another one says nothing about it.
    pub(super) fn begin(&self) {
        self.state.is_incomplete.store(true, Relaxed);
    }

    /// Takes note of an observation or a decision that stands behind a state.
    pub(super) fn note(&self, entry: impl FnOnce() -> Entry) {
        if !self.state.is_incomplete.load(Relaxed) {
            self.push(entry());
        } else if self.state.missing.load(Relaxed) > 0 {
            self.state.lose(1);
        }
    }

    /// Takes note of a decision that needs no state.
    pub(crate) fn note_alone(&self, entry: Entry) {
        self.push(entry);
    }

    /// Takes note of the whole state, where that is wanted.
    pub(super) fn note_state(&self, state: impl FnOnce() -> Entry) {
        if !self.state.is_incomplete.load(Relaxed) && !self.state.is_full.swap(false, Relaxed) {
            return;
        }
        let missing = self.state.missing.swap(0, Relaxed);
        if missing > 0 && !self.push(Entry::Gap { entries: missing }) {
            self.state.missing.fetch_add(missing, Relaxed);
            return;
        }
        if self.push(state()) {
            self.state.is_incomplete.store(false, Relaxed);
        }
    }

    fn push(&self, entry: Entry) -> bool {
        self.state.tally.offer();
        let pushed = self.entries.try_send(entry).is_ok();
        if !pushed {
            self.state.is_incomplete.store(true, Relaxed);
            self.state.lose(1);
        }
        pushed
    }
}

impl State {
    fn lose(&self, entries: u64) {
        self.missing.fetch_add(entries, Relaxed);
        self.tally.lose(entries);
    }
}

impl DecisionFile {
    /// Writes until nothing can be noted any more.
    pub(crate) fn run(mut self) {
        let mut lines = Lines::default();
        while let Ok(first) = self.entries.recv() {
            if self.file.look_after() {
                // Somebody has taken the file away; the next one begins with a state.
                lines.missing.get_or_insert(0);
                self.state.is_full.store(true, Relaxed);
            }
            let more: Vec<Entry> = self.entries.try_iter().take(BATCH).collect();
            for entry in std::iter::once(first).chain(more) {
                if let Entry::State { .. } = entry {
                    self.write(&mut lines);
                    match self.rotate() {
                        Ok(()) => lines.resume(),
                        Err(error) => self.fail(&mut lines, &error),
                    }
                }
                if !lines.push(&entry) {
                    self.state.tally.lose(1);
                }
            }
            self.write(&mut lines);
            if self.file.length().is_ok_and(|length| length >= self.size) {
                self.state.is_full.store(true, Relaxed);
            }
        }
        self.file.sync();
    }

    /// Begins a new file where this one is full.
    fn rotate(&mut self) -> io::Result<()> {
        if self.file.length()? >= self.size {
            self.file.rotate()?;
        }
        Ok(())
    }

    /// Writes the lines. Where that fails they are missing.
    fn write(&mut self, lines: &mut Lines) {
        if lines.text.is_empty() {
            return;
        }
        match self.file.write(&lines.text) {
            Ok(()) => {
                (0..lines.count).for_each(|_| self.state.tally.deliver());
                self.state.tally.note_recovery();
                lines.clear();
            }
            Err(error) => self.fail(lines, &error),
        }
    }

    /// Gives the lines up, and whatever follows until the next state.
    fn fail(&self, lines: &mut Lines, error: &io::Error) {
        self.state.tally.note_trouble(format!("cannot be written: {error}"));
        self.state.tally.lose(lines.count);
        *lines.missing.get_or_insert(0) += lines.count;
        lines.clear();
        // The record is taken up where that works again.
        self.state.is_full.store(true, Relaxed);
    }
}

/// Lines that are to be written.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    /// Entries in the text.
    count: u64,
    /// Entries that are missing behind the last state, where nothing more is written before the next one.
    missing: Option<u64>,
}

impl Lines {
    /// Adds an entry; returns whether it is not missing.
    fn push(&mut self, entry: &Entry) -> bool {
        match &mut self.missing {
            Some(missing) => *missing += 1,
            None => {
                self.add(entry);
                self.count += 1;
            }
        }
        self.missing.is_none()
    }

    /// Goes on with a state, which is to follow; what was missing before it leaves a gap.
    fn resume(&mut self) {
        if let Some(entries) = self.missing.take().filter(|entries| *entries > 0) {
            self.add(&Entry::Gap { entries });
        }
    }

    fn clear(&mut self) {
        self.text.clear();
        self.count = 0;
    }

    fn add(&mut self, entry: &Entry) {
        // Numbers, texts and lists of them are always JSON, and memory takes every byte.
        serde_json::to_writer(&mut self.text, entry).ok();
        self.text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use narrows_policy::{Link, LinkConfig, Planner, PlannerConfig, ServerTime};

    use super::*;

    fn state() -> Entry {
        let (link, planner) = (Link::new(LinkConfig::default()), Planner::new(PlannerConfig::default()));
        Entry::State {
            version: "0".into(),
            link: link.state(),
            planner: Box::new(planner),
            server: ServerTime::default(),
        }
    }

    fn open(file: &Path, size: u64) -> (DecisionLog, DecisionFile, Arc<Tally>) {
        let mut tally = None;
        let settings = DecisionSettings { file: file.to_owned(), size };
        let (log, file) = DecisionLog::open(&settings, |counts| tally = Some(counts)).unwrap();
        (log, file, tally.unwrap())
    }

    /// The names of the entries in a file.
    fn names(file: &Path) -> Vec<String> {
        let text = fs::read_to_string(file).unwrap();
        let name = |line: &str| line[2..line[2..].find('"').unwrap() + 2].to_owned();
        text.lines().map(name).collect()
    }

    #[test]
    fn a_record_begins_with_the_state_and_only_what_is_behind_it_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (log, file, tally) = open(&path, 1 << 20);
        log.note(|| panic!("there is no state yet"));
        log.note_state(state);
        log.note(|| Entry::Lost { bytes: 1 });
        log.note_state(|| panic!("nothing has happened to the record"));
        log.begin();
        log.note(|| panic!("there is no state of this connection yet"));
        log.note_state(state);
        drop(log);
        file.run();
        assert_eq!(names(&path), ["state", "lost", "state"]);
        assert_eq!((tally.status().delivered, tally.status().lost), (3, 0));
    }

    #[test]
    fn a_full_file_is_renamed_at_the_next_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (log, file, _) = open(&path, 60);
        let writer = std::thread::spawn(move || file.run());
        log.note_state(state);
        // Until the thread has seen that the file is full.
        for _ in 0..1000 {
            log.note(|| Entry::Lost { bytes: 1 });
            std::thread::sleep(std::time::Duration::from_millis(1));
            log.note_state(state);
            if folder.path().join("a.1").exists() {
                break;
            }
        }
        drop(log);
        writer.join().unwrap();
        for file in ["a", "a.1"] {
            assert_eq!(names(&folder.path().join(file))[0], "state", "{file}");
        }
    }

    #[test]
    fn what_does_not_fit_into_the_queue_leaves_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (log, file, tally) = open(&path, 1 << 30);
        log.note_state(state);
        (0..QUEUE + 9).for_each(|_| log.note(|| Entry::Lost { bytes: 1 }));
        log.note_state(|| unreachable!("there is no room for the gap before it"));
        let writer = std::thread::spawn(move || file.run());
        while tally.status().delivered < QUEUE as u64 {
            std::thread::yield_now();
        }
        log.note(|| panic!("nothing is noted in a gap"));
        log.note_state(state);
        log.note(|| Entry::Lost { bytes: 2 });
        drop(log);
        writer.join().unwrap();
        let names = names(&path);
        assert_eq!(names[QUEUE..], ["gap", "state", "lost"]);
        assert!(tally.status().lost >= 10, "{:?}", tally.status());
    }

    #[test]
    fn what_the_disk_does_not_take_leaves_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (log, mut file, tally) = open(&path, 1 << 20);
        log.note_state(state);
        log.note(|| Entry::Lost { bytes: 1 });
        // A file that cannot be renamed, and is full.
        file.size = 0;
        fs::create_dir(folder.path().join("a.1")).unwrap();
        drop(log);
        file.run();
        assert!(fs::read_to_string(&path).unwrap().is_empty());
        assert_eq!((tally.status().delivered, tally.status().lost), (0, 2));
        assert!(tally.status().trouble.unwrap().contains("cannot be written"));
    }
}
