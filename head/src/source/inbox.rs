//! Where the frames of live sources wait: one of each, the newest.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use narrows_video::Raw;
use tokio::sync::Notify;

use crate::{Error, frame::Capture, report::CameraTally};

/// What happens to a frame that waits when the next one arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// It is replaced, and counted.
    Newest,
    /// It stays, and the source is held up until it is taken.
    Every,
}

/// A frame as it arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) content: Content,
    /// When its last byte arrived.
    pub(super) at: Instant,
    /// The same moment on this device's calendar.
    pub(super) on: SystemTime,
    /// The file that it was read from, in a watched folder.
    pub(super) file: Option<PathBuf>,
}

/// What a frame holds, not decoded.
#[derive(Debug)]
pub(super) enum Content {
    /// An image file.
    File(Vec<u8>),
    /// A frame that is not compressed.
    Raw(Raw),
    /// Nothing that can be used.
    Failed(Error),
    /// A picture of a source of files.
    Capture(Box<Capture>),
}

/// A frame that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    /// The place of its source.
    pub(super) source: usize,
    pub(super) arrival: Arrival,
    /// Position of the frame among all of its source.
    pub(super) sequence: u64,
    /// Frames that were replaced since the last one that was taken.
    pub(super) replaced: u64,
}

/// The frames that wait, one place for each source. Sources put frames in from threads of their own; one thread takes them.
#[derive(Debug)]
pub(super) struct Inbox {
    places: Mutex<Places>,
    /// Rung at each arrival, and when a source ends.
    pub(super) bell: Notify,
    /// Woken at each frame that is taken, and at the end.
    room: Condvar,
}

#[derive(Debug)]
struct Places {
    all: Vec<Place>,
    is_closed: bool,
}

#[derive(Debug)]
struct Place {
    tally: Arc<CameraTally>,
    waiting: Option<Arrival>,
    arrived: u64,
    replaced: u64,
    has_ended: bool,
}

impl From<Capture> for Arrival {
    fn from(capture: Capture) -> Self {
        let (at, on) = (capture.captured_at, capture.captured_on);
        Arrival { content: Content::Capture(Box::new(capture)), at, on, file: None }
    }
}

impl Inbox {
    /// An inbox for sources that count in `tallies`.
    pub(super) fn new(tallies: &[Arc<CameraTally>]) -> Self {
        let place = |tally: &Arc<CameraTally>| Place {
            tally: Arc::clone(tally),
            waiting: None,
            arrived: 0,
            replaced: 0,
            has_ended: false,
        };
        let places = Places { all: tallies.iter().map(place).collect(), is_closed: false };
        Inbox { places: Mutex::new(places), bell: Notify::new(), room: Condvar::new() }
    }

    /// Puts in a frame of a source. With [`Keep::Every`] it waits until the one before was taken.
    pub(super) fn put(&self, source: usize, arrival: Arrival, keep: Keep) {
        let mut places = match keep {
            Keep::Newest => self.lock(),
            Keep::Every => self.wait_for_room(source),
        };
        if places.is_closed {
            return;
        }
        let place = &mut places.all[source];
        place.arrived += 1;
        place.tally.count_arrival();
        if place.waiting.replace(arrival).is_some() {
            place.replaced += 1;
            place.tally.count_replaced();
        }
        drop(places);
        self.bell.notify_one();
    }

    /// Waits until no frame of a source waits; returns whether more are wanted.
    pub(super) fn wait_until_taken(&self, source: usize) -> bool {
        !self.wait_for_room(source).is_closed
    }

    /// Takes the next frame: that of the first source from `first` on, in a circle, which has one and is `due`.
    pub(super) fn take(&self, first: usize, due: impl Fn(usize) -> bool) -> Option<Taken> {
        let mut places = self.lock();
        let count = places.all.len();
        let source = (first..first + count)
            .map(|place| place % count)
            .find(|&source| places.all[source].waiting.is_some() && due(source))?;
        let place = &mut places.all[source];
        let arrival = place.waiting.take()?;
        let (sequence, replaced) = (place.arrived - 1, std::mem::take(&mut place.replaced));
        drop(places);
        self.room.notify_all();
        Some(Taken { source, arrival, sequence, replaced })
    }

    /// Whether a frame of this source waits.
    pub(super) fn has(&self, source: usize) -> bool {
        self.lock().all[source].waiting.is_some()
    }

    /// Notes that a source has ended.
    pub(super) fn end(&self, source: usize) {
        self.lock().all[source].has_ended = true;
        self.bell.notify_one();
    }

    /// Whether every source has ended and no frame waits.
    pub(super) fn is_done(&self) -> bool {
        self.lock().all.iter().all(|place| place.has_ended && place.waiting.is_none())
    }

    /// Takes no frames any more, and lets every source go on that waits.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.room.notify_all();
    }

    fn wait_for_room(&self, source: usize) -> MutexGuard<'_, Places> {
        let is_full = |places: &mut Places| !places.is_closed && places.all[source].waiting.is_some();
        self.room.wait_while(self.lock(), is_full).unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Every change leaves the places whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn arrival(byte: u8) -> Arrival {
        Arrival {
            content: Content::File(vec![byte]),
            at: Instant::now(),
            on: SystemTime::UNIX_EPOCH,
            file: None,
        }
    }

    fn inbox(sources: usize) -> Inbox {
        let tally = |place| Arc::new(CameraTally::new(format!("camera-{place}")));
        Inbox::new(&(0..sources).map(tally).collect::<Vec<_>>())
    }

    fn byte(taken: &Taken) -> u8 {
        match &taken.arrival.content {
            Content::File(bytes) => bytes[0],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_frame_replaces_the_one_that_waits_and_is_counted() {
        let inbox = inbox(1);
        for byte in 0..5 {
            inbox.put(0, arrival(byte), Keep::Newest);
        }
        let taken = inbox.take(0, |_| true).unwrap();
        assert_eq!((byte(&taken), taken.sequence, taken.replaced), (4, 4, 4));
        assert!(inbox.take(0, |_| true).is_none());
        inbox.put(0, arrival(5), Keep::Newest);
        let taken = inbox.take(0, |_| true).unwrap();
        assert_eq!((byte(&taken), taken.sequence, taken.replaced), (5, 5, 0));
    }

    #[test]
    fn sources_take_turns() {
        let inbox = inbox(3);
        let mut order = Vec::new();
        let mut first = 0;
        for _ in 0..6 {
            (0..3).for_each(|source| inbox.put(source, arrival(0), Keep::Newest));
            let source = inbox.take(first, |source| source != 1 || order.len() > 3).unwrap().source;
            first = source + 1;
            order.push(source);
        }
        assert_eq!(order, [0, 2, 0, 2, 0, 1]);
    }

    #[test]
    fn a_source_of_every_frame_waits_until_the_one_before_is_taken_or_the_inbox_closes() {
        let inbox = Arc::new(inbox(1));
        let putting = thread::spawn({
            let inbox = Arc::clone(&inbox);
            move || (0..4).for_each(|byte| inbox.put(0, arrival(byte), Keep::Every))
        });
        for byte_of in 0..3 {
            let taken = loop {
                match inbox.take(0, |_| true) {
                    Some(taken) => break taken,
                    None => thread::yield_now(),
                }
            };
            assert_eq!((byte(&taken), taken.replaced), (byte_of, 0));
        }
        inbox.close();
        putting.join().unwrap();
        inbox.end(0);
        assert!(inbox.is_done() || inbox.take(0, |_| true).is_some());
    }
}
