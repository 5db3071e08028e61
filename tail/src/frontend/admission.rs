//! Admission of handshakes, and permits that count what a front end has accepted.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::oneshot;

/// The places for handshakes in progress, whose peers are not authenticated yet.
///
/// Half of the places are for peers whose source address is not validated. Once these are taken, such peers are told to come
/// back with a token that only the owner of the address receives (QUIC Retry), which costs the server no memory and no
/// signature. Peers with a token take any place. Where all are taken, the oldest handshake of the source address that has
/// the most is given up: an honest handshake takes one or two round trips, so it is over long before it is the oldest.
#[derive(Clone, Debug)]
pub(crate) struct Handshakes {
    capacity: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The handshakes by their number, so in the order of their admission.
    places: BTreeMap<u64, Handshake>,
}

#[derive(Debug)]
struct Handshake {
    source: IpAddr,
    validated: bool,
    evict: oneshot::Sender<()>,
}

/// The decision on a new handshake.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Begin the handshake.
    Accept(HandshakePermit),
    /// Demand that the source address is validated first.
    Retry,
}

/// The place of one handshake; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct HandshakePermit {
    number: u64,
    handshakes: Handshakes,
    evicted: oneshot::Receiver<()>,
}

/// A count of requests, raised by [`PermitCount::acquire`] and lowered when the permit is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct PermitCount(Arc<AtomicUsize>);

/// One unit of a [`PermitCount`]; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Handshakes {
    /// Places for `capacity` handshakes.
    pub(crate) fn new(capacity: usize) -> Handshakes {
        Handshakes { capacity: capacity.max(2), state: Arc::default() }
    }

    /// Decides on a handshake from `source`, whose address is `validated` or not.
    pub(crate) fn admit(&self, source: IpAddr, validated: bool) -> Admission {
        let source = network(source);
        let mut state = self.lock();
        if !validated {
            let unvalidated = state.places.values().filter(|handshake| !handshake.validated).count();
            if unvalidated >= self.capacity / 2 || state.places.len() >= self.capacity {
                return Admission::Retry;
            }
        }
        if state.places.len() >= self.capacity
            && let Some(oldest) = state.oldest_of_the_largest_source()
            && let Some(handshake) = state.places.remove(&oldest)
        {
            // If the receiver is gone, the handshake has just ended.
            let _ = handshake.evict.send(());
        }
        let (evict, evicted) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.places.insert(number, Handshake { source, validated, evict });
        Admission::Accept(HandshakePermit { number, handshakes: self.clone(), evicted })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn oldest_of_the_largest_source(&self) -> Option<u64> {
        let mut sources: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (number, handshake) in &self.places {
            sources.entry(handshake.source).or_insert((0, *number)).0 += 1;
        }
        // Of equally large sources the one whose handshake is the oldest.
        let largest = sources.values().max_by_key(|(size, oldest)| (*size, u64::MAX - oldest));
        largest.map(|(_, oldest)| *oldest)
    }
}

impl HandshakePermit {
    /// Returns once the handshake has to be given up in favour of a newer one.
    pub(crate) async fn evicted(&mut self) {
        // The sender is dropped only with the place.
        let _ = (&mut self.evicted).await;
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.handshakes.lock().places.remove(&self.number);
    }
}

/// The network that stands for one source: an IPv4 address, or the 64 bits of an IPv6 address that a site is given.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

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

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn accept(handshakes: &Handshakes, source: IpAddr, validated: bool) -> HandshakePermit {
        match handshakes.admit(source, validated) {
            Admission::Accept(place) => place,
            Admission::Retry => panic!("retry"),
        }
    }

    fn evicted(place: &mut HandshakePermit) -> bool {
        place.evicted.try_recv().is_ok()
    }

    #[test]
    fn half_of_the_places_are_for_validated_addresses() {
        let handshakes = Handshakes::new(4);
        let first = accept(&handshakes, ip(1), false);
        let _second = accept(&handshakes, ip(2), false);
        assert!(matches!(handshakes.admit(ip(3), false), Admission::Retry));
        let _third = accept(&handshakes, ip(3), true);
        drop(first);
        let _fourth = accept(&handshakes, ip(4), false);
    }

    #[test]
    fn a_full_house_gives_up_the_oldest_of_the_source_with_the_most() {
        let handshakes = Handshakes::new(4);
        let mut honest = accept(&handshakes, ip(1), true);
        let mut flood = [2, 2, 2].map(|last| accept(&handshakes, ip(last), true));
        let mut next = accept(&handshakes, ip(3), true);
        assert!(evicted(&mut flood[0]) && !evicted(&mut flood[1]));
        assert!(!evicted(&mut honest) && !evicted(&mut next));
        // With one source only, the oldest goes.
        let handshakes = Handshakes::new(2);
        let mut places = [1, 1, 1].map(|last| accept(&handshakes, ip(last), true));
        assert_eq!(places.each_mut().map(evicted), [true, false, false]);
        drop(places);
        assert!(handshakes.lock().places.is_empty());
    }

    #[tokio::test]
    async fn a_handshake_is_given_up_when_its_place_is_taken_and_not_before() {
        let handshakes = Handshakes::new(2);
        let mut places = [1, 1].map(|last| accept(&handshakes, ip(last), true));
        let moment = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(moment, places[0].evicted()).await.is_err());
        let _newer = accept(&handshakes, ip(1), true);
        let long = std::time::Duration::from_secs(20);
        tokio::time::timeout(long, places[0].evicted()).await.unwrap();
        assert!(tokio::time::timeout(moment, places[1].evicted()).await.is_err());
    }

    #[test]
    fn unvalidated_addresses_never_take_the_place_of_another() {
        let handshakes = Handshakes::new(2);
        let mut validated = [1, 2].map(|last| accept(&handshakes, ip(last), true));
        assert!(matches!(handshakes.admit(ip(3), false), Admission::Retry));
        assert_eq!(validated.each_mut().map(evicted), [false, false]);
    }

    #[test]
    fn an_ipv6_site_is_one_source() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8:1:2:3:4:5:6"), address("2001:db8:1:2::9"));
        assert_ne!(address("2001:db8:1:2::9"), address("2001:db8:1:3::9"));
        assert_eq!(address("::ffff:192.0.2.1"), ip(1));
    }

    #[test]
    fn permits_are_counted_until_they_are_dropped() {
        let requests = PermitCount::default();
        let (first, second) = (requests.acquire(), requests.acquire());
        assert_eq!(requests.in_use(), 2);
        drop(first);
        assert_eq!(requests.in_use(), 1);
        drop(second);
        assert_eq!(requests.in_use(), 0);
    }
}
