//! The register of authenticated connections by their certificates: it limits how many connections are open in all and per
//! device, and closes those whose certificate is no longer accepted.
//!
//! A connection is registered once its handshake has authenticated the peer, and takes one of the limited places only when
//! its hello is accepted ([`Registration::open`]). Connections without a hello are bounded on their own: of one device there
//! are as many as it may have open, in all as many as may be open, and where one more arrives the oldest of the device, or
//! of the device that has the most, is closed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use narrows_wire::Close;
use rustls_pki_types::CertificateDer;

/// A connection that the register can close.
pub(crate) trait Connection: Clone + Send + Sync + 'static {
    /// Closes the connection with a code of the protocol and a text for the peer's log.
    fn close(&self, code: Close, reason: &str);
}

/// The limits of a [`Peers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Connections that may be open at once.
    pub(crate) connections: usize,
    /// Connections that one device may have open at once.
    pub(crate) per_device: usize,
}

/// The peer of a connection, by the certificate that it authenticated with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// The certificate's first DNS name; `None` if it has none.
    pub(crate) name: Option<String>,
    /// The certificates that it showed, its own first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// The authenticated connections.
pub(crate) struct Peers<C> {
    state: Mutex<State<C>>,
}

struct State<C> {
    limits: Limits,
    next: u64,
    /// The connections by their number, so in the order of their registration.
    entries: BTreeMap<u64, Entry<C>>,
    refusal: Box<Refusal>,
}

/// Why a chain of certificates is not accepted.
type Refusal = dyn Fn(&[CertificateDer<'static>]) -> Option<String> + Send + Sync;

struct Entry<C> {
    device: Device,
    connection: C,
    open: bool,
}

/// The place of one connection in the register; dropping it removes the connection.
pub(crate) struct Registration<C: Connection> {
    peers: Arc<Peers<C>>,
    number: u64,
    /// Connections that its device may have open at once.
    per_device: usize,
}

/// The certificate is no longer accepted, for this reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotAccepted(pub(crate) String);

/// The reason why a connection cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// As many connections are open as the server allows.
    Server {
        /// Their number.
        open: usize,
    },
    /// As many connections of this device are open as a device may have.
    Device {
        /// Their number.
        open: usize,
    },
    /// The connection has been closed meanwhile.
    Gone,
}

impl Device {
    /// What tells devices apart: the name, or without one the certificate, whose first byte no name has.
    pub(crate) fn key(&self) -> &[u8] {
        match (&self.name, self.chain.first()) {
            (Some(name), _) => name.as_bytes(),
            (None, Some(certificate)) => certificate,
            // No handshake succeeds without a certificate.
            (None, None) => &[],
        }
    }
}

impl<C: Connection> Peers<C> {
    /// An empty register with these limits.
    pub(crate) fn new(limits: Limits) -> Peers<C> {
        let state = State { limits, next: 0, entries: BTreeMap::new(), refusal: Box::new(|_| None) };
        Peers { state: Mutex::new(state) }
    }

    /// The limits.
    pub(crate) fn limits(&self) -> Limits {
        self.lock().limits
    }

    /// Sets other limits, for connections that come from now on.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.lock().limits = limits;
    }

    /// Registers an authenticated connection that has said no hello yet. Where too many wait for their hello, the oldest is
    /// closed.
    ///
    /// # Errors
    /// [`NotAccepted`] if its certificate is not accepted by the condition of [`Peers::recheck`], which may be newer than
    /// the one that its handshake began with; the connection is closed then.
    pub(crate) fn register(
        self: &Arc<Self>,
        device: Device,
        connection: C,
    ) -> Result<Registration<C>, NotAccepted> {
        let mut state = self.lock();
        if let Some(reason) = (state.refusal)(&device.chain) {
            close(&connection, &reason);
            return Err(NotAccepted(reason));
        }
        while let Some(oldest) = state.surplus(&device) {
            if let Some(entry) = state.entries.remove(&oldest) {
                entry.connection.close(Close::HelloTimeout, "too many connections without a hello");
            }
        }
        let number = state.next;
        state.next += 1;
        state.entries.insert(number, Entry { device, connection, open: false });
        Ok(Registration { peers: Arc::clone(self), number, per_device: state.limits.per_device })
    }

    /// Closes every connection for whose chain of certificates `refusal` has a reason, and from now on those that register
    /// with such a chain. A later call replaces the condition. Returns the devices whose connections were closed.
    pub(crate) fn recheck(
        &self,
        refusal: impl Fn(&[CertificateDer<'static>]) -> Option<String> + Send + Sync + 'static,
    ) -> Vec<(Device, NotAccepted)> {
        let mut state = self.lock();
        let mut refused = Vec::new();
        for (number, entry) in &state.entries {
            refused.extend(refusal(&entry.device.chain).map(|reason| (*number, reason)));
        }
        let remove = |(number, reason)| Some((state.entries.remove(&number)?, reason));
        let closed: Vec<(Entry<C>, String)> = refused.into_iter().filter_map(remove).collect();
        state.refusal = Box::new(refusal);
        drop(state);
        let close = |(entry, reason): (Entry<C>, String)| {
            close(&entry.connection, &reason);
            (entry.device, NotAccepted(reason))
        };
        closed.into_iter().map(close).collect()
    }

    /// The connections with an accepted hello.
    pub(crate) fn open(&self) -> usize {
        self.lock().entries.values().filter(|entry| entry.open).count()
    }

    /// Closes one connection, if it is still registered, so that its place is free at once. False if it was gone.
    fn displace(&self, number: u64) -> bool {
        let entry = self.lock().entries.remove(&number);
        let text = "silent, and a newer connection needs its place";
        entry.inspect(|entry| entry.connection.close(Close::Replaced, text)).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close(connection: &impl Connection, reason: &str) {
    connection.close(Close::Revoked, &format!("the certificate is no longer accepted: {reason}"));
}

impl<C> State<C> {
    /// The connection without a hello that has to go before another one of `device` may register.
    fn surplus(&self, device: &Device) -> Option<u64> {
        let waiting = self.entries.iter().filter(|(_, entry)| !entry.open);
        // The number of connections of each device, and the oldest of them.
        let mut devices: BTreeMap<&[u8], (usize, u64)> = BTreeMap::new();
        let mut in_all = 0;
        for (number, entry) in waiting {
            in_all += 1;
            devices.entry(entry.device.key()).or_insert((0, *number)).0 += 1;
        }
        match devices.get(device.key()) {
            Some((count, oldest)) if *count >= self.limits.per_device => Some(*oldest),
            _ if in_all < self.limits.connections => None,
            // Of equals the device whose connection is the oldest.
            _ => {
                let most = devices.values().max_by_key(|(count, oldest)| (*count, u64::MAX - oldest));
                most.map(|(_, oldest)| *oldest)
            }
        }
    }
}

impl<C: Connection> Registration<C> {
    /// The same registration of a device that may have this many connections open at once.
    pub(crate) fn limited(mut self, per_device: usize) -> Self {
        self.per_device = per_device;
        self
    }

    /// Takes a place among the open connections.
    ///
    /// # Errors
    /// [`Full`] if there is none.
    pub(crate) fn open(&self) -> Result<(), Full> {
        let mut state = self.peers.lock();
        let Some(this) = state.entries.get(&self.number) else { return Err(Full::Gone) };
        let open = || state.entries.values().filter(|entry| entry.open);
        let of_device = open().filter(|entry| entry.device.key() == this.device.key()).count();
        if of_device >= self.per_device {
            return Err(Full::Device { open: of_device });
        }
        let in_all = open().count();
        if in_all >= state.limits.connections {
            return Err(Full::Server { open: in_all });
        }
        if let Some(this) = state.entries.get_mut(&self.number) {
            this.open = true;
        }
        Ok(())
    }

    /// Takes a place among the open connections, and closes as many of `silent`, numbers of connections of the same device, as
    /// that takes. Other connections of the device may be doing the same: one of `silent` that is gone has made room for one
    /// of them. Returns how many were closed.
    ///
    /// # Errors
    /// [`Full`] if there is none.
    pub(crate) fn open_in_place_of(&self, silent: impl IntoIterator<Item = u64>) -> Result<u64, Full> {
        let (mut closed, mut opened) = (0, self.open());
        for number in silent {
            match opened {
                Ok(()) | Err(Full::Gone) => break,
                Err(_) => {}
            }
            if self.peers.displace(number) {
                closed += 1;
                opened = self.open();
            }
        }
        opened.map(|()| closed)
    }

    /// The open connections of the same device, oldest first, with their numbers in the register.
    pub(crate) fn siblings(&self) -> Vec<(u64, C)> {
        let state = self.peers.lock();
        let Some(this) = state.entries.get(&self.number) else { return Vec::new() };
        let open =
            state.entries.iter().filter(|(_, entry)| entry.open && entry.device.key() == this.device.key());
        open.map(|(number, entry)| (*number, entry.connection.clone())).collect()
    }
}

impl<C: Connection> Drop for Registration<C> {
    fn drop(&mut self) {
        self.peers.lock().entries.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that keeps the code it was closed with.
    #[derive(Clone, Default)]
    struct Link(Arc<Mutex<Option<Close>>>);

    impl Link {
        fn closed(&self) -> Option<Close> {
            *self.0.lock().unwrap()
        }
    }

    impl Connection for Link {
        fn close(&self, code: Close, _: &str) {
            *self.0.lock().unwrap() = Some(code);
        }
    }

    fn device(name: &str) -> Device {
        Device { name: Some(name.into()), chain: vec![CertificateDer::from(name.as_bytes().to_vec())] }
    }

    fn peers(connections: usize, per_device: usize) -> Arc<Peers<Link>> {
        Arc::new(Peers::new(Limits { connections, per_device }))
    }

    fn open(peers: &Arc<Peers<Link>>, name: &str) -> Result<Registration<Link>, Full> {
        let registration = peers.register(device(name), Link::default()).unwrap();
        registration.open().map(|()| registration)
    }

    #[test]
    fn places_are_limited_in_all_and_per_device_and_a_leaver_makes_room() {
        let peers = peers(3, 2);
        let first = open(&peers, "a").unwrap();
        let _second = open(&peers, "a").unwrap();
        assert_eq!(open(&peers, "a").err(), Some(Full::Device { open: 2 }));
        let _third = open(&peers, "b").unwrap();
        assert_eq!(open(&peers, "c").err(), Some(Full::Server { open: 3 }));
        drop(first);
        assert!(open(&peers, "c").is_ok());
        assert!(open(&peers, "a").is_ok());
    }

    #[test]
    fn other_limits_hold_for_connections_that_come_from_then_on() {
        let peers = peers(2, 1);
        let first = open(&peers, "a").unwrap();
        assert_eq!((open(&peers, "a").err(), peers.open()), (Some(Full::Device { open: 1 }), 1));
        peers.set_limits(Limits { connections: 3, per_device: 2 });
        let others = ["a", "b"].map(|name| open(&peers, name).unwrap());
        assert_eq!((open(&peers, "c").err(), peers.open()), (Some(Full::Server { open: 3 }), 3));
        drop((first, others));
        let _waiting = peers.register(device("a"), Link::default()).unwrap();
        assert_eq!(peers.open(), 0);
    }

    #[test]
    fn connections_without_a_hello_take_no_place() {
        let peers = peers(4, 4);
        let waiting: Vec<_> = (0..4).map(|_| peers.register(device("mute"), Link::default())).collect();
        let places: Vec<_> = (0..4).map(|_| open(&peers, "honest").unwrap()).collect();
        assert_eq!((waiting.len(), places.len()), (4, 4));
    }

    #[test]
    fn of_too_many_without_a_hello_the_oldest_of_the_device_is_closed() {
        let peers = peers(64, 2);
        let links = [(); 3].map(|()| Link::default());
        let registrations = links.clone().map(|link| peers.register(device("mute"), link).unwrap());
        assert_eq!(links.map(|link| link.closed()), [Some(Close::HelloTimeout), None, None]);
        assert_eq!(registrations[0].open(), Err(Full::Gone));
        assert_eq!(registrations[2].open(), Ok(()));
    }

    #[test]
    fn of_too_many_without_a_hello_the_device_with_the_most_loses_its_oldest() {
        let peers = peers(3, 2);
        let links = [(); 4].map(|()| Link::default());
        let names = ["single", "many", "many", "late"];
        let _registered: Vec<_> = std::iter::zip(names, links.clone())
            .map(|(name, link)| peers.register(device(name), link).unwrap())
            .collect();
        assert_eq!(links.map(|link| link.closed().is_some()), [false, true, false, false]);
    }

    #[test]
    fn a_certificate_that_is_no_longer_accepted_is_closed_and_does_not_come_back() {
        let peers = peers(8, 8);
        let (bad, good) = (Link::default(), Link::default());
        let _bad = peers.register(device("bad"), bad.clone()).unwrap();
        let _good = peers.register(device("good"), good.clone()).unwrap();
        let refusal =
            |chain: &[CertificateDer<'_>]| (chain[0].as_ref() == b"bad").then(|| "it ended".to_owned());
        let refused = NotAccepted("it ended".to_owned());
        assert_eq!(peers.recheck(refusal), [(device("bad"), refused.clone())]);
        assert_eq!((bad.closed(), good.closed()), (Some(Close::Revoked), None));
        let again = Link::default();
        assert_eq!(peers.register(device("bad"), again.clone()).err(), Some(refused));
        assert_eq!(again.closed(), Some(Close::Revoked));
        assert!(peers.register(device("good"), Link::default()).is_ok());
    }

    #[test]
    fn a_displaced_connection_frees_its_place_at_once() {
        let peers = peers(8, 1);
        let old = peers.register(device("a"), Link::default()).unwrap();
        old.open().unwrap();
        let new = peers.register(device("a"), Link::default()).unwrap();
        assert_eq!(new.open(), Err(Full::Device { open: 1 }));
        let (number, link) = new.siblings().remove(0);
        assert_eq!(new.open_in_place_of([number]), Ok(1));
        assert_eq!(link.closed(), Some(Close::Replaced));
        drop(old);
        assert_eq!(new.siblings().len(), 1);
    }

    #[test]
    fn connections_of_a_crashed_device_that_come_back_at_once_each_take_the_place_of_another_silent_one() {
        let peers = peers(8, 3);
        let old: Vec<_> = (0..3).map(|_| open(&peers, "a").unwrap()).collect();
        let new: Vec<_> = (0..3).map(|_| peers.register(device("a"), Link::default()).unwrap()).collect();
        // All of them have found the same ones silent before the first takes a place.
        let silent: Vec<u64> = old.iter().map(|registration| registration.number).collect();
        for registration in &new {
            assert_eq!(registration.open_in_place_of(silent.clone()), Ok(1));
        }
        let late = peers.register(device("a"), Link::default()).unwrap();
        assert_eq!(late.open_in_place_of(silent), Err(Full::Device { open: 3 }));
    }

    #[test]
    fn siblings_are_the_open_connections_of_the_same_device() {
        let peers = peers(8, 8);
        let _other = open(&peers, "b").unwrap();
        let _waiting = peers.register(device("a"), Link::default()).unwrap();
        let (first, second) = (open(&peers, "a").unwrap(), open(&peers, "a").unwrap());
        let new = peers.register(device("a"), Link::default()).unwrap();
        let numbers: Vec<u64> = new.siblings().into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [first.number, second.number]);
    }

    #[test]
    fn certificates_without_a_name_are_told_apart() {
        let peers = peers(8, 1);
        let nameless = |byte: u8| Device { name: None, chain: vec![CertificateDer::from(vec![byte])] };
        let first = peers.register(nameless(1), Link::default()).unwrap();
        let second = peers.register(nameless(2), Link::default()).unwrap();
        assert_eq!((first.open(), second.open()), (Ok(()), Ok(())));
    }
}
