//! Who may come in, and whether anybody still waits for a piece of work (pure).

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

/// Counts connections against a limit.
#[derive(Clone, Debug)]
pub struct Door {
    inside: Arc<AtomicUsize>,
    limit: usize,
}

/// A place inside; dropping it frees the place.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Door {
    /// A door that lets in `limit` at once.
    pub fn new(limit: usize) -> Door {
        Door { inside: Arc::default(), limit }
    }

    /// A place, if there is one.
    pub fn enter(&self) -> Option<Place> {
        let room = |inside: usize| (inside < self.limit).then_some(inside + 1);
        self.inside.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
        Some(Place(Arc::clone(&self.inside)))
    }

    /// Places taken.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const CANCELLED: u8 = 2;

/// One piece of work between the frame that waits for it and the worker that does it: exactly one of
/// [`Ticket::claim`] and [`Ticket::cancel`] succeeds.
#[derive(Clone, Debug, Default)]
pub struct Ticket(Arc<AtomicU8>);

impl Ticket {
    /// The worker begins. False if the frame has given up.
    pub fn claim(&self) -> bool {
        self.0.compare_exchange(QUEUED, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The frame gives up. False if the work has begun (or was cancelled before).
    pub fn cancel(&self) -> bool {
        self.0.compare_exchange(QUEUED, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// True until the frame gives up.
    pub fn wanted(&self) -> bool {
        self.0.load(Ordering::Acquire) != CANCELLED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_lets_in_its_limit_and_a_leaver_makes_room() {
        let door = Door::new(2);
        let first = door.enter().unwrap();
        let _second = door.enter().unwrap();
        assert!(door.enter().is_none());
        drop(first);
        assert_eq!(door.inside(), 1);
        assert!(door.enter().is_some());
    }

    #[test]
    fn work_is_claimed_or_cancelled_but_never_both() {
        let ticket = Ticket::default();
        assert!(ticket.wanted() && ticket.claim());
        assert!(!ticket.cancel() && ticket.wanted());
        let ticket = Ticket::default();
        assert!(ticket.cancel());
        assert!(!ticket.claim() && !ticket.wanted());
        for _ in 0..200 {
            let ticket = Ticket::default();
            let other = ticket.clone();
            let claimed = std::thread::spawn(move || other.claim());
            let cancelled = ticket.cancel();
            assert_ne!(claimed.join().unwrap(), cancelled);
        }
    }
}
