//! The right to do a piece of work, which either its worker takes or its job withdraws.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const CANCELLED: u8 = 2;

/// The state of one piece of work, shared by the job that waits for it and the worker that does it. Exactly one of
/// [`Ticket::claim`] and [`Ticket::cancel`] succeeds.
#[derive(Clone, Debug, Default)]
pub(super) struct Ticket(Arc<AtomicU8>);

impl Ticket {
    /// Begins the work. False if the job has been given up.
    pub(super) fn claim(&self) -> bool {
        self.0.compare_exchange(QUEUED, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Gives the work up. False if it has begun or was given up before.
    pub(super) fn cancel(&self) -> bool {
        self.0.compare_exchange(QUEUED, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// True until the work is given up.
    pub(super) fn wanted(&self) -> bool {
        self.0.load(Ordering::Acquire) != CANCELLED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
