//! Who may come in, and whether anybody still waits for a piece of work (pure).

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

/// Counts connections against a limit.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    in_use: Arc<AtomicUsize>,
    limit: usize,
}

/// A connection that counts against the limit until this is dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl ConnectionLimit {
    /// A limit that lets in `limit` at once.
    pub fn new(limit: usize) -> ConnectionLimit {
        ConnectionLimit { in_use: Arc::default(), limit }
    }

    /// A place, if there is one.
    pub fn acquire(&self) -> Option<Permit> {
        let room = |in_use: usize| (in_use < self.limit).then_some(in_use + 1);
        self.in_use.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
        Some(Permit(Arc::clone(&self.in_use)))
    }

    /// Places taken.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Acquire)
    }
}

impl Drop for Permit {
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
    fn the_limit_lets_in_its_limit_and_a_leaver_makes_room() {
        let connections = ConnectionLimit::new(2);
        let first = connections.acquire().unwrap();
        let _second = connections.acquire().unwrap();
        assert!(connections.acquire().is_none());
        drop(first);
        assert_eq!(connections.in_use(), 1);
        assert!(connections.acquire().is_some());
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
