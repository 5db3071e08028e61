//! A limit of the attempts to enrol.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::frontend::admission::network;

/// The time in which attempts are counted.
const SPAN: Duration = Duration::from_secs(60);
/// Networks that are counted apart.
const NETWORKS: usize = 4096;

/// Counts attempts of each network (an IPv4 address, or 64 bits of an IPv6 one), and all of them.
#[derive(Debug)]
pub(super) struct AttemptLimit {
    rate: u32,
    began: Option<Instant>,
    all: u32,
    networks: BTreeMap<IpAddr, u32>,
}

impl AttemptLimit {
    /// At most `rate` attempts a minute of one network, and ten times as many in all.
    pub(super) fn new(rate: u32) -> AttemptLimit {
        AttemptLimit { rate, began: None, all: 0, networks: BTreeMap::new() }
    }

    /// Whether an attempt from this address may begin now.
    pub(super) fn admit(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= SPAN) {
            (self.began, self.all) = (Some(now), 0);
            self.networks.clear();
        }
        let source = network(source);
        let count = self.networks.get(&source).copied().unwrap_or(0);
        let is_full = count == 0 && self.networks.len() >= NETWORKS;
        if count >= self.rate || is_full || self.all >= self.rate.saturating_mul(10) {
            return false;
        }
        self.networks.insert(source, count + 1);
        self.all += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
    fn a_network_that_floods_takes_nothing_from_another() {
        let (mut limit, start) = (AttemptLimit::new(3), Instant::now());
        let ip = |last: u8| IpAddr::from([192, 0, 2, last]);
        let admitted = (0..1000).filter(|_| limit.admit(ip(1), start)).count();
        assert_eq!(admitted, 3);
        assert!(limit.admit(ip(2), start) && !limit.admit(ip(1), start + SPAN / 2));
        assert!(limit.admit(ip(1), start + SPAN));
        // A site's addresses are one network.
        let site = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        assert_eq!((0..9).filter(|last| limit.admit(site(*last), start + SPAN)).count(), 3);
        let all = (3..200).filter(|last| limit.admit(ip(*last), start + SPAN)).count();
        assert_eq!(all, 30 - 4);
    }
}
