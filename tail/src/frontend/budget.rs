//! A budget of bytes for the requests and replies that are in memory, over all connections.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The part of the budget that the connections of one device may take together: one of this many.
const SHARES: usize = 4;

/// The bytes that requests and replies may take in all and per device.
#[derive(Debug)]
pub(crate) struct Budget {
    total: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    /// Devices that hold bytes.
    devices: BTreeMap<Arc<str>, usize>,
}

/// Bytes that one request or reply has taken from a [`Budget`]; they are given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Arc<Budget>,
    device: Arc<str>,
    bytes: usize,
}

/// The budget does not hold the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exhausted {
    /// The device has taken its share.
    #[error("the requests and replies of the device take {taken} of {limit} bytes")]
    Device {
        /// The bytes that it has taken.
        taken: usize,
        /// The bytes that it may take.
        limit: usize,
    },
    /// All devices together have taken everything.
    #[error("the requests and replies of all devices take {taken} of {limit} bytes")]
    Server {
        /// The bytes that are taken.
        taken: usize,
        /// The bytes that may be taken.
        limit: usize,
    },
}

impl Budget {
    /// A budget of `total` bytes, of which one device may take a quarter.
    pub(crate) fn new(total: usize) -> Budget {
        Budget { total, taken: Mutex::default() }
    }

    /// A lease of no bytes for `device`.
    pub(crate) fn lease(self: &Arc<Self>, device: Arc<str>) -> Lease {
        Lease { budget: Arc::clone(self), device, bytes: 0 }
    }

    /// The bytes that are taken, and those that may be.
    pub(crate) fn taken_of(&self) -> (usize, usize) {
        (self.lock().total, self.total)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Takes more bytes or gives some back, so that the lease has `bytes`.
    ///
    /// # Errors
    /// [`Exhausted`] if there are not as many; the lease keeps what it has then.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let mut taken = self.budget.lock();
        let of_device = taken.devices.get(&self.device).copied().unwrap_or_default();
        // What this lease has is part of both sums.
        let (device, total) = (of_device - self.bytes + bytes, taken.total - self.bytes + bytes);
        if bytes > self.bytes {
            let limit = self.budget.total / SHARES;
            if device > limit {
                return Err(Exhausted::Device { taken: of_device, limit });
            }
            if total > self.budget.total {
                return Err(Exhausted::Server { taken: taken.total, limit: self.budget.total });
            }
        }
        taken.total = total;
        match device {
            0 => taken.devices.remove(&self.device),
            _ => taken.devices.insert(Arc::clone(&self.device), device),
        };
        self.bytes = bytes;
        Ok(())
    }

    /// Takes more bytes where the lease has fewer than `bytes`.
    ///
    /// # Errors
    /// [`Exhausted`] if there are not as many; the lease keeps what it has then.
    pub(crate) fn raise_to(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.resize(bytes.max(self.bytes))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Giving bytes back cannot fail.
        let _ = self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_takes_no_more_than_its_share_and_all_no_more_than_the_budget() {
        let budget = Arc::new(Budget::new(400));
        let lease = |device: &str| budget.lease(device.into());
        let mut first = lease("a");
        first.resize(60).unwrap();
        first.resize(80).unwrap();
        assert_eq!(budget.taken_of(), (80, 400));
        let mut second = lease("a");
        assert_eq!(second.resize(21), Err(Exhausted::Device { taken: 80, limit: 100 }));
        second.resize(20).unwrap();
        let mut others = ["b", "c", "d"].map(lease);
        others.iter_mut().for_each(|lease| lease.resize(100).unwrap());
        assert_eq!(lease("e").resize(1), Err(Exhausted::Server { taken: 400, limit: 400 }));
        first.resize(10).unwrap();
        let mut late = lease("e");
        late.resize(70).unwrap();
        assert!(late.resize(71).is_err());
        drop((first, second, others, late));
        let taken = budget.lock();
        assert_eq!((taken.total, taken.devices.len()), (0, 0));
    }
}
