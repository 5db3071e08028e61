//! A folder of spooled frames, one file each, bounded by bytes and age.
//!
//! A file is written aside, synced, renamed and the folder synced, so that after a loss of power it is there whole or not at all.
//! Its name has its number, the time of its capture and the bundle, so that a start reads no file. What is damaged all the same is
//! put aside into `damaged`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::record::{Record, RecordError};
use crate::config::{SpoolDrop, SpoolSettings};

/// Bytes that a file takes at least; sizes are counted in these.
const BLOCK: u64 = 4096;
/// Damaged files that are kept for whoever wants to know.
const DAMAGED: usize = 16;
/// Captures before this moment, the beginning of 2020, were made before the device's clock was set; they do not age.
const CLOCK_SET: u64 = 1_577_836_800_000;

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    settings: SpoolSettings,
    /// The first digits of the bundle whose frames this run sends.
    bundle: String,
    /// By their numbers, which ascend.
    entries: BTreeMap<u64, Entry>,
    /// The numbers of this run's frames that can be taken.
    ready: BTreeSet<u64>,
    /// All frames by the time of their capture.
    captures: BTreeSet<(u64, u64)>,
    /// This run's frames.
    own: u64,
    next: u64,
    bytes: u64,
    /// Held as long as the folder is open, so that no other process uses it. It has the number that follows those of frames that
    /// are gone, in hexadecimal.
    lock: File,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    captured_ms: u64,
    bundle: String,
    bytes: u64,
    taken: bool,
    attempts: u32,
}

/// Why a frame was not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("the spool is full: {bytes} bytes of {limit}")]
    Full { bytes: u64, limit: u64 },
    #[error("it cannot be spooled")]
    Record(#[from] RecordError),
    #[error("cannot write to the spool")]
    Write(#[source] io::Error),
}

/// What has gone without an answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone {
    /// For want of room.
    pub(super) full: u64,
    /// By age.
    pub(super) aged: u64,
    /// Put aside as damaged, or left because it cannot be read.
    pub(super) damaged: u64,
}

impl Folder {
    /// Opens a folder, which is made if it is missing, for the frames of `bundle`.
    ///
    /// # Errors
    /// The folder cannot be made, read or written, or another process uses it.
    pub(super) fn open(settings: SpoolSettings, bundle: String) -> io::Result<Self> {
        fs::create_dir_all(&settings.folder)?;
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        let mut lock = options.open(settings.folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other(
                    "another process uses this spool; give each a folder of its own",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut noted = Vec::new();
        (&mut lock).take(16).read_to_end(&mut noted)?;
        // In a new folder there is none.
        let next = u64::from_str_radix(&String::from_utf8_lossy(&noted), 16).unwrap_or(0);
        let mut folder = Folder {
            settings,
            bundle,
            entries: BTreeMap::new(),
            ready: BTreeSet::new(),
            captures: BTreeSet::new(),
            own: 0,
            next,
            bytes: 0,
            lock,
        };
        for entry in fs::read_dir(&folder.settings.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".tmp") {
                // It was being written when the power went, and nobody was told that it was kept.
                let _ = fs::remove_file(entry.path());
            } else if let Some((number, captured_ms, bundle)) = parse_name(&name) {
                let bytes = on_disk(entry.metadata()?.len());
                let entry = Entry { captured_ms, bundle, bytes, taken: false, attempts: 0 };
                folder.next = folder.next.max(number.saturating_add(1));
                folder.insert(number, entry);
            }
        }
        Ok(folder)
    }

    /// Keeps a frame, and returns its number once it is safe on disk. Adds to `gone` what had to make room.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing is kept.
    pub(super) fn store(&mut self, record: &Record, now_ms: u64, gone: &mut Gone) -> Result<u64, StoreError> {
        let bytes = record.encode()?;
        let size = on_disk(bytes.len() as u64);
        self.drop_aged(now_ms, gone);
        let limit = self.settings.bytes;
        while self.bytes + size > limit {
            let oldest = self.entries.iter().find(|(_, entry)| !entry.taken).map(|(&number, _)| number);
            match oldest.filter(|_| self.settings.drop == SpoolDrop::Oldest && size <= limit) {
                Some(oldest) => {
                    self.remove(oldest);
                    gone.full += 1;
                }
                None => return Err(StoreError::Full { bytes: self.bytes, limit }),
            }
        }
        let number = self.next;
        let entry = Entry {
            captured_ms: record.description.captured_ms,
            bundle: self.bundle.clone(),
            bytes: size,
            taken: false,
            attempts: 0,
        };
        self.write(&self.path(number, &entry), &bytes).map_err(StoreError::Write)?;
        self.next += 1;
        self.insert(number, entry);
        Ok(number)
    }

    /// Takes the oldest frame of this run's bundle, until it is removed or given back; with it how often it was given back. Damaged
    /// files are put aside, and those that cannot be read are left.
    pub(super) fn take(&mut self, now_ms: u64, gone: &mut Gone) -> Option<(u64, u32, Record)> {
        self.drop_aged(now_ms, gone);
        loop {
            let number = self.ready.pop_first()?;
            let entry = self.entries.get_mut(&number)?;
            entry.taken = true;
            let entry = entry.clone();
            let path = self.path(number, &entry);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // That may be for want of descriptors or memory, and says nothing about what is in it.
                Err(error) => {
                    let path = crate::name::Escaped(&path);
                    tracing::warn!("--spool: {path}: {error}; it is left until the next start");
                    self.forget(number);
                    gone.damaged += 1;
                    continue;
                }
            };
            match Record::parse(&bytes) {
                Ok(record) => return Some((number, entry.attempts, record)),
                Err(reason) => {
                    tracing::warn!("--spool: {}: {reason}; it is put aside", crate::name::Escaped(&path));
                    self.note_number(number);
                    self.set_aside(&path);
                    self.forget(number);
                    gone.damaged += 1;
                }
            }
        }
    }

    /// Gives a frame back that was not answered. `failed` tells whether that counts against the frame.
    pub(super) fn give_back(&mut self, number: u64, failed: bool) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.taken = false;
            entry.attempts += u32::from(failed);
            self.ready.insert(number);
        }
    }

    /// Removes a frame.
    pub(super) fn remove(&mut self, number: u64) {
        self.note_number(number);
        if let Some(entry) = self.entries.get(&number) {
            // It may be gone already; what cannot be removed is sent again after the next start.
            let _ = fs::remove_file(self.path(number, entry));
        }
        self.forget(number);
    }

    /// Drops what is older than the limit.
    pub(super) fn drop_aged(&mut self, now_ms: u64, gone: &mut Gone) {
        let limit = self.settings.age_ms;
        let set = self.captures.range((CLOCK_SET, 0)..);
        let aged = set.take_while(|(captured_ms, _)| now_ms.saturating_sub(*captured_ms) > limit);
        let is_taken = |number: &u64| self.entries.get(number).is_some_and(|entry| entry.taken);
        let aged: Vec<u64> = aged.map(|&(_, number)| number).filter(|number| !is_taken(number)).collect();
        for number in aged {
            self.remove(number);
            gone.aged += 1;
        }
    }

    /// Frames that wait to be sent, and those that wait for a run with their bundle.
    pub(super) fn waiting(&self) -> (u64, u64) {
        (self.own, self.entries.len() as u64 - self.own)
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest frame was captured, in milliseconds of the calendar.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.captures.first().map(|(captured_ms, _)| *captured_ms)
    }

    /// Notes which number comes next where the file goes whose name tells it, so that no later run gives a number again.
    fn note_number(&self, number: u64) {
        if self.entries.last_key_value().is_some_and(|(&last, _)| last == number) {
            // Without it a number may be given again, which is no reason to keep a frame.
            let _ = self.lock.write_all_at(format!("{:016x}", self.next).as_bytes(), 0);
        }
    }

    fn forget(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number) {
            self.bytes -= entry.bytes;
            self.own -= u64::from(entry.bundle == self.bundle);
            self.ready.remove(&number);
            self.captures.remove(&(entry.captured_ms, number));
        }
    }

    fn insert(&mut self, number: u64, entry: Entry) {
        self.bytes += entry.bytes;
        if entry.bundle == self.bundle {
            self.own += 1;
            self.ready.insert(number);
        }
        self.captures.insert((entry.captured_ms, number));
        self.entries.insert(number, entry);
    }

    fn path(&self, number: u64, entry: &Entry) -> PathBuf {
        let name = format!("{number:016x}-{}-{}.frame", entry.captured_ms, entry.bundle);
        self.settings.folder.join(name)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let aside = path.with_extension("tmp");
        let written = (|| {
            let mut file = File::create(&aside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&aside, path)?;
            File::open(&self.settings.folder)?.sync_all()
        })();
        if written.is_err() {
            // Whichever of them is there takes room that others need.
            let _ = fs::remove_file(&aside);
            let _ = fs::remove_file(path);
        }
        written
    }

    fn set_aside(&self, path: &Path) {
        let aside = self.settings.folder.join("damaged");
        let kept = fs::create_dir_all(&aside).and_then(|()| Ok(fs::read_dir(&aside)?.count()));
        let name = path.file_name().unwrap_or_default();
        let moved = kept.is_ok_and(|kept| kept < DAMAGED) && fs::rename(path, aside.join(name)).is_ok();
        if !moved {
            let _ = fs::remove_file(path);
        }
    }
}

/// Number, time of capture and bundle in the name of a file.
fn parse_name(name: &str) -> Option<(u64, u64, String)> {
    let mut parts = name.strip_suffix(".frame")?.split('-');
    let number = parts.next().filter(|digits| digits.len() == 16)?;
    let (captured, bundle) = (parts.next()?.parse().ok()?, parts.next()?);
    let is_whole = parts.next().is_none() && !bundle.is_empty();
    Some((u64::from_str_radix(number, 16).ok()?, captured, bundle.to_owned())).filter(|_| is_whole)
}

fn on_disk(bytes: u64) -> u64 {
    bytes.max(1).div_ceil(BLOCK) * BLOCK
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::{super::record::tests::record, *};

    /// The beginning of 2026.
    const NOW: u64 = 1_767_225_600_000;

    fn open(folder: &TempDir, frames: u64, drop: SpoolDrop, bundle: &str) -> Folder {
        let folder = folder.path().join("spool");
        let settings = SpoolSettings { folder, bytes: frames * BLOCK, age_ms: 1000, drop };
        Folder::open(settings, bundle.to_owned()).unwrap()
    }

    fn frames(folder: &mut Folder) -> Vec<u64> {
        let mut gone = Gone::default();
        std::iter::from_fn(|| folder.take(NOW, &mut gone))
            .map(|(_, _, record)| record.description.frame)
            .collect()
    }

    #[test]
    fn frames_survive_a_restart_in_their_order_and_are_taken_once() {
        let (place, mut gone) = (tempfile::tempdir().unwrap(), Gone::default());
        let mut folder = open(&place, 10, SpoolDrop::Oldest, "b");
        for frame in 0..3 {
            folder.store(&record(frame, NOW, 900), NOW, &mut gone).unwrap();
        }
        let (number, _, _) = folder.take(NOW, &mut gone).unwrap();
        folder.remove(number);
        std::fs::write(place.path().join("spool/0000000000000009-1-b.tmp"), "half").unwrap();
        drop(folder);
        let mut folder = open(&place, 10, SpoolDrop::Oldest, "b");
        assert_eq!((folder.waiting(), folder.bytes()), ((2, 0), 2 * BLOCK));
        let (number, _, taken) = folder.take(NOW, &mut gone).unwrap();
        assert_eq!(taken.description.frame, 1);
        assert_eq!(frames(&mut folder), [2]);
        folder.give_back(number, true);
        assert_eq!(frames(&mut folder), [1]);
        assert_eq!(gone, Gone::default());
        assert!(!place.path().join("spool/0000000000000009-1-b.tmp").exists());
    }

    #[test]
    fn the_number_of_a_frame_that_is_gone_is_not_given_again() {
        let (place, mut gone) = (tempfile::tempdir().unwrap(), Gone::default());
        let mut numbers = Vec::new();
        for frame in 0..3 {
            let mut folder = open(&place, 9, SpoolDrop::Oldest, "b");
            let number = folder.store(&record(frame, NOW, 9), NOW, &mut gone).unwrap();
            folder.remove(number);
            numbers.push(number);
        }
        assert_eq!(numbers, [0, 1, 2]);
    }

    #[test]
    fn without_room_the_oldest_or_the_newest_goes() {
        let (place, mut gone) = (tempfile::tempdir().unwrap(), Gone::default());
        let mut folder = open(&place, 2, SpoolDrop::Oldest, "b");
        for frame in 0..4 {
            folder.store(&record(frame, NOW, 900), NOW, &mut gone).unwrap();
        }
        let error = folder.store(&record(4, NOW, 9000), NOW, &mut gone).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!((frames(&mut folder), gone.full), (vec![2, 3], 2));
        drop(folder);
        let mut folder = open(&place, 2, SpoolDrop::Newest, "b");
        let error = folder.store(&record(5, NOW, 900), NOW, &mut gone).unwrap_err();
        assert!(error.to_string().contains("full: 8192 bytes of 8192"), "{error}");
        assert_eq!(frames(&mut folder), [2, 3]);
    }

    #[test]
    fn frames_age_unless_they_were_captured_before_the_clock_was_set() {
        let (place, mut gone) = (tempfile::tempdir().unwrap(), Gone::default());
        let mut folder = open(&place, 9, SpoolDrop::Oldest, "b");
        for (frame, captured) in [(0, NOW), (1, 5000), (2, NOW + 500)] {
            folder.store(&record(frame, captured, 9), NOW, &mut gone).unwrap();
        }
        folder.drop_aged(NOW + 1001, &mut gone);
        assert_eq!((frames(&mut folder), gone.aged), (vec![1, 2], 1));
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_the_others_are_read() {
        let (place, mut gone) = (tempfile::tempdir().unwrap(), Gone::default());
        let mut folder = open(&place, 9, SpoolDrop::Oldest, "b");
        for frame in 0..3 {
            folder.store(&record(frame, NOW, 900), NOW, &mut gone).unwrap();
        }
        let path = folder.path(1, &folder.entries[&1]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let mut taken = Vec::new();
        while let Some((_, _, record)) = folder.take(NOW, &mut gone) {
            taken.push(record.description.frame);
        }
        assert_eq!((taken, gone.damaged), (vec![0, 2], 1));
        assert!(place.path().join("spool/damaged").join(path.file_name().unwrap()).exists());
    }

    #[test]
    fn frames_of_another_bundle_wait_for_it() {
        let (place, mut gone) = (tempfile::tempdir().unwrap(), Gone::default());
        open(&place, 9, SpoolDrop::Oldest, "a").store(&record(0, NOW, 9), NOW, &mut gone).unwrap();
        let mut folder = open(&place, 9, SpoolDrop::Oldest, "b");
        assert_eq!((folder.waiting(), frames(&mut folder)), ((0, 1), vec![]));
        drop(folder);
        assert_eq!(frames(&mut open(&place, 9, SpoolDrop::Oldest, "a")), [0]);
    }

    #[test]
    fn a_folder_has_one_user_and_other_files_in_it_stay() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("spool")).unwrap();
        std::fs::write(place.path().join("spool/README"), "mine").unwrap();
        let folder = open(&place, 9, SpoolDrop::Oldest, "b");
        let error = Folder::open(folder.settings.clone(), "b".to_owned()).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
        assert!(place.path().join("spool/README").exists());
    }
}
