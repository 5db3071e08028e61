//! Measures what a link really does to datagrams: through the relay, and with the kernel's shaping for comparison.
#![expect(clippy::disallowed_methods, reason = "the relay's processor time is compared with the time it ran")]

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    fidelity::{DirectionFidelity, Fidelity},
    link::{Direction, Link},
    namespaces::Namespaces,
    probe::{Effort, Path, connect_back},
    relay::Relay,
    shape::HEADER,
};

/// Measures links one after the other. Each is driven by real datagrams on loopback sockets.
pub struct Prober<'a> {
    effort: Effort<'a>,
    seed: u64,
    namespaces: Option<Namespaces>,
    skipped: Option<String>,
}

impl<'a> Prober<'a> {
    /// A prober that keeps each direction of a link full for `seconds`, draws losses from `seed` and ends early once
    /// `stop` returns true. Rates are not compared with the kernel's shaping.
    #[must_use]
    pub fn new(seconds: f64, seed: u64, stop: &'a dyn Fn() -> bool) -> Self {
        let effort = Effort { seconds, stop };
        Prober { effort, seed, namespaces: None, skipped: Some("not asked for".to_owned()) }
    }

    /// Compares rates with those of the kernel's token bucket filter (tbf) between two network namespaces, where the
    /// process may create them.
    #[must_use]
    pub fn with_cross_check(mut self) -> Self {
        (self.namespaces, self.skipped) = match Namespaces::build() {
            Ok(namespaces) => (Some(namespaces), None),
            Err(reason) => (None, Some(reason)),
        };
        self
    }

    /// The reason why rates were not compared with the kernel's shaping; `None` where they were.
    #[must_use]
    pub fn cross_check_skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    /// Measures both directions of `link`. What was measured after `stop` became true is not reliable.
    ///
    /// # Errors
    /// When a socket fails or no datagram gets through.
    pub fn measure(&mut self, link: &Link) -> Result<Fidelity> {
        let mut fidelity = self.through_relay(link)?;
        if let Some(namespaces) = &self.namespaces
            && !(self.effort.stop)()
        {
            match namespaces.rates(link, &self.effort) {
                Ok((up, down)) => (fidelity.up.tbf_kbit, fidelity.down.tbf_kbit) = (up, down),
                Err(error) => self.skipped = Some(format!("{error:#}")),
            }
        }
        Ok(fidelity)
    }

    fn through_relay(&self, link: &Link) -> Result<Fidelity> {
        let (head, tail) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        let relay = Relay::start(link, tail.local_addr()?, self.seed)?;
        let start = Instant::now();
        head.connect(relay.address())?;
        connect_back(&head, &tail)?;
        let probe = |from: &UdpSocket, to: &UdpSocket, direction| -> Result<DirectionFidelity> {
            let path = Path::new(from, to, link.shape(direction), HEADER);
            Ok(DirectionFidelity::new(link, direction, &path.probe(&self.effort)?))
        };
        let up = probe(&head, &tail, Direction::Up)?;
        let down = probe(&tail, &head, Direction::Down)?;
        // The relay publishes its counts at least every 20 ms.
        let elapsed = start.elapsed().max(Duration::from_millis(1));
        let relay_cpu = relay.counts().cpu.as_secs_f64() / elapsed.as_secs_f64();
        Ok(Fidelity { link: link.clone(), up, down, relay_cpu })
    }
}
