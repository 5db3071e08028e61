//! Limits of what a front end accepts at once, counted by permits.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A count of connections or requests, raised by [`PermitCount::acquire`] and lowered when the permit is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct PermitCount(Arc<AtomicUsize>);

/// A limit of the connections that are open at once.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimit {
    permits: PermitCount,
    limit: usize,
}

/// One unit of a [`PermitCount`]; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl PermitCount {
    /// Takes a permit.
    pub(crate) fn acquire(&self) -> Permit {
        self.0.fetch_add(1, Ordering::AcqRel);
        Permit(Arc::clone(&self.0))
    }

    /// The number of permits that have not been dropped.
    pub(crate) fn in_use(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl ConnectionLimit {
    /// A limit of `limit` connections.
    pub(crate) fn new(limit: usize) -> ConnectionLimit {
        ConnectionLimit { permits: PermitCount::default(), limit }
    }

    /// Takes a permit for one more connection, if the limit allows one.
    pub(crate) fn acquire(&self) -> Option<Permit> {
        let raised = |in_use: usize| (in_use < self.limit).then_some(in_use + 1);
        self.permits.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, raised).ok()?;
        Some(Permit(Arc::clone(&self.permits.0)))
    }

    /// The number of connections that hold a permit.
    pub(crate) fn in_use(&self) -> usize {
        self.permits.in_use()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
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
    fn permits_without_a_limit_are_counted_until_they_are_dropped() {
        let requests = PermitCount::default();
        let (first, second) = (requests.acquire(), requests.acquire());
        assert_eq!(requests.in_use(), 2);
        drop(first);
        assert_eq!(requests.in_use(), 1);
        drop(second);
        assert_eq!(requests.in_use(), 0);
    }
}
