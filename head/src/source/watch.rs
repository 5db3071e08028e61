//! A folder into which others write image files: each is taken once it is complete.
//!
//! A file that is closed after writing, or renamed into the folder, is read at once; if it is not whole, somebody has begun to
//! write it again and will close it again. A file of which nothing is heard, as on a network file system, is taken when its
//! size and its time of change have stayed the same for a while; only then is one that is not whole reported.
#![expect(
    clippy::disallowed_methods,
    reason = "frames are timestamped when they arrive, and files watched for a while"
)]

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, PipeReader, Read},
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use narrows_video::{Parser, Picture};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};

use super::{
    inbox::Content,
    listing::is_image,
    loss::CameraFault,
    outlet::{End, Outlet},
};
use crate::{
    Error,
    image::{FILE_MAX, ImageFault},
};

/// How often the folder is listed at most; listing takes at most a twentieth of the time.
const LISTED: Duration = Duration::from_millis(500);
const SHARE: u32 = 20;
/// How long a file must stay the same to be taken although nobody has closed it.
const SETTLED: Duration = Duration::from_secs(1);
/// Bytes for what the system tells about the folder.
const EVENTS: usize = 16 << 10;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    size: u64,
    /// Seconds and nanoseconds of the last change.
    changed: (i64, i64),
    inode: u64,
}

/// What is known about the files of a folder. It is kept while the folder cannot be listed, so that no file is taken twice.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// By path: the state in which it was taken last.
    taken: HashMap<PathBuf, State>,
    /// By path: the state in which it was seen and not taken, and since when.
    waiting: HashMap<PathBuf, (State, Instant)>,
}

/// Takes the files of a folder until the run ends or the folder cannot be listed. What has not changed since `began` is not
/// taken.
pub(super) fn watch(
    folder: &Path,
    files: &mut Files,
    began: SystemTime,
    stop: &PipeReader,
    outlet: &mut Outlet,
) -> End {
    let lost = |source| End::Lost(CameraFault::Open { path: folder.to_owned(), source });
    // Without it, the folder is only listed.
    let events = listen(folder).ok();
    if let Err(error) = files.list(folder, |meta| meta.ctime() >= seconds(began)) {
        return lost(error);
    }
    let mut next = Instant::now() + LISTED;
    let mut buffer = [MaybeUninit::uninit(); EVENTS];
    loop {
        let left = Timespec::try_from(next.saturating_duration_since(Instant::now())).ok();
        let mut polled = vec![PollFd::new(stop, PollFlags::IN)];
        polled.extend(events.iter().map(|events| PollFd::new(events, PollFlags::IN)));
        match poll(&mut polled, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return End::Lost(CameraFault::Read(error.into())),
        }
        if !polled[0].revents().is_empty() {
            return End::Stopped;
        }
        let has_events = polled.get(1).is_some_and(|polled| !polled.revents().is_empty());
        drop(polled);
        if let Some(events) = events.as_ref().filter(|_| has_events) {
            for path in closed(events, folder, &mut buffer) {
                files.take_closed(&path, outlet);
            }
        }
        if Instant::now() >= next {
            let begin = Instant::now();
            if let Err(error) = files.list(folder, |_| true) {
                return lost(error);
            }
            files.take_settled(outlet);
            next = Instant::now() + LISTED.max(SHARE * begin.elapsed());
        }
    }
}

impl Files {
    /// Notes the files of the folder that have changed since they were taken; those that are not `new` count as taken.
    fn list(&mut self, folder: &Path, is_new: impl Fn(&fs::Metadata) -> bool) -> io::Result<()> {
        let mut present = HashMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if !is_image(&path) {
                continue;
            }
            // A file that has gone meanwhile, or a link that leads nowhere.
            let Ok(meta) = fs::metadata(&path) else { continue };
            if meta.is_file() {
                let state = State::of(&meta);
                present.insert(path.clone(), state);
                if !is_new(&meta) {
                    self.taken.insert(path, state);
                }
            }
        }
        self.taken.retain(|path, _| present.contains_key(path));
        self.waiting.retain(|path, _| present.contains_key(path));
        let now = Instant::now();
        for (path, state) in present {
            if self.taken.get(&path) != Some(&state)
                && self.waiting.get(&path).is_none_or(|(seen, _)| *seen != state)
            {
                self.waiting.insert(path, (state, now));
            }
        }
        Ok(())
    }

    /// Takes a file that somebody has closed or renamed, if it is whole.
    fn take_closed(&mut self, path: &Path, outlet: &mut Outlet) {
        if !is_image(path) || !fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
            return;
        }
        if let Ok((bytes, state)) = read(path)
            && is_whole(&bytes)
        {
            self.deliver(path, Ok(bytes), state, outlet);
        }
    }

    /// Takes the files that have stayed the same for a while, whatever is in them; the one that changed last comes last.
    fn take_settled(&mut self, outlet: &mut Outlet) {
        let mut settled: Vec<(PathBuf, State)> = self
            .waiting
            .iter()
            .filter(|(_, (_, since))| since.elapsed() >= SETTLED)
            .map(|(path, (state, _))| (path.clone(), *state))
            .collect();
        settled.sort_by_key(|(_, state)| state.changed);
        for (path, seen) in settled {
            match read(&path) {
                Ok((bytes, state)) if state == seen => self.deliver(&path, Ok(bytes), state, outlet),
                // It has changed meanwhile, or it has gone.
                Ok((_, state)) => drop(self.waiting.insert(path, (state, Instant::now()))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => drop(self.waiting.remove(&path)),
                Err(error) => self.deliver(&path, Err(error), seen, outlet),
            }
        }
    }

    fn deliver(&mut self, path: &Path, bytes: io::Result<Vec<u8>>, state: State, outlet: &mut Outlet) {
        self.waiting.remove(path);
        self.taken.insert(path.to_owned(), state);
        let content = match bytes {
            Ok(bytes) if bytes.len() as u64 > FILE_MAX => {
                let source = ImageFault::File(state.size);
                Content::Failed(Error::Image { file: path.to_owned(), source })
            }
            Ok(bytes) => Content::File(bytes),
            Err(source) => Content::Failed(Error::File { file: path.to_owned(), source }),
        };
        outlet.deliver(content, Instant::now(), SystemTime::now(), Some(path.to_owned()));
    }
}

impl State {
    fn of(meta: &fs::Metadata) -> Self {
        State { size: meta.len(), changed: (meta.mtime(), meta.mtime_nsec()), inode: meta.ino() }
    }
}

/// Begins to listen for files that are closed after writing, or renamed into the folder.
fn listen(folder: &Path) -> io::Result<OwnedFd> {
    let events = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    let wanted = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&events, folder, wanted)?;
    Ok(events)
}

/// The files of which something was heard, each once. Where more happened than the system keeps, listing finds the others.
fn closed(events: &OwnedFd, folder: &Path, buffer: &mut [MaybeUninit<u8>]) -> Vec<PathBuf> {
    let mut reader = inotify::Reader::new(events, buffer);
    let mut found: Vec<PathBuf> = Vec::new();
    // The order of the last events counts: the newest file comes last.
    while let Ok(event) = reader.next() {
        if let Some(name) = event.file_name() {
            let path = folder.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            found.retain(|other| *other != path);
            found.push(path);
        }
    }
    found
}

/// Reads a file, and its state as it was before and after that.
fn read(path: &Path) -> io::Result<(Vec<u8>, State)> {
    let mut file = File::open(path)?;
    let before = State::of(&file.metadata()?);
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    let after = State::of(&file.metadata()?);
    // One that changes while it is read is read again when that is over.
    match before == after {
        true => Ok((bytes, after)),
        false => Ok((Vec::new(), after)),
    }
}

/// Whether an image file has its end, as far as its structure tells without decoding it.
fn is_whole(bytes: &[u8]) -> bool {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    match bytes {
        [0xff, 0xd8, ..] => {
            let (mut parser, mut found) = (Parser::new(None, bytes.len()), false);
            let pushed = parser.push(bytes, &mut |picture| found |= matches!(picture, Picture::Jpeg(_)));
            pushed.is_ok() && found
        }
        [0x89, b'P', b'N', b'G', ..] => bytes.len() > 12 && bytes[bytes.len() - 8..].starts_with(b"IEND"),
        [b'R', b'I', b'F', b'F', ..] => number(4).is_some_and(|size| bytes.len() >= size.saturating_add(8)),
        [b'B', b'M', ..] => number(2).is_some_and(|size| bytes.len() >= size),
        // Not an image, or not enough of it to tell: it is reported once it has settled.
        _ => false,
    }
}

fn seconds(moment: SystemTime) -> i64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_with_its_last_byte() {
        for format in [
            image::ImageFormat::Jpeg,
            image::ImageFormat::Png,
            image::ImageFormat::WebP,
            image::ImageFormat::Bmp,
        ] {
            let mut bytes = io::Cursor::new(Vec::new());
            image::RgbImage::new(24, 16).write_to(&mut bytes, format).unwrap();
            let bytes = bytes.into_inner();
            assert!(is_whole(&bytes), "{format:?}");
            for keep in 0..bytes.len() {
                assert!(!is_whole(&bytes[..keep]), "{format:?}: {keep} of {}", bytes.len());
            }
        }
        assert!(!is_whole(b"a text"));
    }

    #[test]
    fn a_file_is_waited_for_until_it_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jpg");
        for name in ["a.jpg", ".b.jpg", "c.txt", "d.jpg.part"] {
            fs::write(folder.path().join(name), b"x").unwrap();
        }
        let mut files = Files::default();
        files.list(folder.path(), |_| true).unwrap();
        assert_eq!(files.waiting.keys().collect::<Vec<_>>(), [&path]);
        let first = files.waiting[&path];
        files.list(folder.path(), |_| true).unwrap();
        assert_eq!(files.waiting[&path], first);
        fs::write(&path, b"xx").unwrap();
        files.list(folder.path(), |_| true).unwrap();
        assert_ne!(files.waiting[&path].0, first.0);
        fs::remove_file(&path).unwrap();
        files.list(folder.path(), |_| true).unwrap();
        assert!(files.waiting.is_empty());
        fs::write(&path, b"old").unwrap();
        files.list(folder.path(), |_| false).unwrap();
        assert!(files.waiting.is_empty() && files.taken.contains_key(&path));
    }
}
