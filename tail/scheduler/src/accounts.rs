//! The accounts of the devices: their terms, their quotas, and how many frames they have.

use std::{collections::BTreeMap, time::Duration};

use crate::{Terms, bucket::Bucket, refused::Refused};

/// Accounts below which none is removed.
const FEW: usize = 256;

/// Account of a device, by its place among the accounts.
pub(crate) type Slot = usize;

/// The accounts of all devices that have frames, or whose quota is not full.
#[derive(Clone, Debug)]
pub(crate) struct Accounts<D> {
    slots: Vec<Option<Account<D>>>,
    free: Vec<Slot>,
    by_device: BTreeMap<D, Slot>,
    /// The number of accounts at which those that need not be kept are removed.
    full: usize,
}

#[derive(Clone, Debug)]
struct Account<D> {
    device: D,
    terms: Terms,
    frames: Bucket,
    time: Bucket,
    /// Frames that wait or run.
    present: usize,
}

impl<D: Ord + Clone> Accounts<D> {
    pub(crate) fn new() -> Self {
        Accounts { slots: Vec::new(), free: Vec::new(), by_device: BTreeMap::new(), full: FEW }
    }

    /// Number of accounts.
    pub(crate) fn len(&self) -> usize {
        self.by_device.len()
    }

    /// The account of a device, with its terms as they are now. A new one has full quotas. The accounts that were removed to
    /// make room are added to `removed`.
    pub(crate) fn open(&mut self, now: Duration, device: &D, terms: &Terms, removed: &mut Vec<Slot>) -> Slot {
        if let Some(&slot) = self.by_device.get(device) {
            if let Some(account) = &mut self.slots[slot] {
                account.renew(now, terms);
            }
            return slot;
        }
        if self.len() >= self.full {
            self.remove_idle(now, removed);
            self.full = (2 * self.len()).max(FEW);
        }
        let account = Account {
            device: device.clone(),
            terms: *terms,
            frames: Bucket::full(now, terms.frames().map_or(0.0, |(_, capacity)| capacity)),
            time: Bucket::full(now, terms.time().map_or(0.0, |(_, capacity)| capacity)),
            present: 0,
        };
        let slot = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(place) => *place = Some(account),
            None => self.slots.push(Some(account)),
        }
        self.by_device.insert(device.clone(), slot);
        slot
    }

    /// Checks the device's quotas.
    ///
    /// # Errors
    /// The quota that is used up.
    pub(crate) fn check_quotas(&self, slot: Slot) -> Result<(), Refused> {
        let Some(account) = &self.slots[slot] else { return Ok(()) };
        if let Some((rate, _)) = account.terms.frames()
            && account.frames.level() < 1.0 - 1e-9
        {
            return Err(Refused::FrameQuota { quota: rate, retry: account.frames.time_until(1.0, rate) });
        }
        if let Some((rate, _)) = account.terms.time()
            && account.time.level() <= 0.0
        {
            let retry = account.time.time_until(0.0, rate).max(Duration::from_millis(1));
            return Err(Refused::TimeQuota { quota: rate * 1e3, retry });
        }
        Ok(())
    }

    /// Counts a frame against the device's quota.
    pub(crate) fn take_frame(&mut self, slot: Slot) {
        if let Some(account) = &mut self.slots[slot] {
            account.frames.take(1.0);
        }
    }

    /// Counts a frame for a network, and reserves its time.
    pub(crate) fn enter(&mut self, slot: Slot, reserved: Duration) {
        if let Some(account) = &mut self.slots[slot] {
            account.present += 1;
            account.time.take(reserved.as_secs_f64());
        }
    }

    /// Counts a frame as gone, and settles what was reserved against the time that it took.
    pub(crate) fn leave(&mut self, slot: Slot, reserved: Duration, took: Duration) {
        if let Some(account) = &mut self.slots[slot] {
            account.present -= 1;
            account.time.take(took.as_secs_f64() - reserved.as_secs_f64());
        }
    }

    /// Removes the accounts that are as new ones would be.
    fn remove_idle(&mut self, now: Duration, removed: &mut Vec<Slot>) {
        for slot in 0..self.slots.len() {
            let Some(account) = &mut self.slots[slot] else { continue };
            let terms = account.terms;
            account.renew(now, &terms);
            let full = |bucket: &Bucket, quota: Option<(f64, f64)>| {
                quota.is_none_or(|(_, capacity)| bucket.level() >= capacity)
            };
            if account.present == 0
                && full(&account.frames, terms.frames())
                && full(&account.time, terms.time())
            {
                self.by_device.remove(&account.device);
                self.slots[slot] = None;
                self.free.push(slot);
                removed.push(slot);
            }
        }
    }
}

impl<D> Account<D> {
    /// Refills the buckets by the terms that held until now, and takes over new ones.
    fn renew(&mut self, now: Duration, terms: &Terms) {
        for (bucket, before, after) in [
            (&mut self.frames, self.terms.frames(), terms.frames()),
            (&mut self.time, self.terms.time(), terms.time()),
        ] {
            match (before, after) {
                (_, None) => *bucket = Bucket::full(now, 0.0),
                (None, Some((_, capacity))) => *bucket = Bucket::full(now, capacity),
                (Some((rate, _)), Some((_, capacity))) => bucket.refill(now, rate, capacity),
            }
        }
        self.terms = *terms;
    }
}
