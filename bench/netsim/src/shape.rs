//! One direction of a link (pure): rate, delay, loss and reordering of datagrams.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use fastrand::Rng;

use crate::trace::{PACKET, Trace};

/// Bytes of IPv4 and UDP header of a datagram on the wire.
pub const HEADER: usize = 28;

/// Most bytes in flight in one direction, which bounds the relay's memory.
const MAX_HELD: usize = 64 << 20;

/// The effect of one direction on datagrams.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// What the line carries; `None` for no limit.
    pub rate: Option<Rate>,
    /// Time from the departure of a datagram's last bit to its arrival.
    pub delay: Duration,
    /// Largest additional delay, uniformly distributed from 0; datagrams keep their order.
    pub jitter: Duration,
    /// The loss model.
    pub loss: Loss,
    /// Share of datagrams that later ones may overtake, 0 to 1.
    pub reorder: f64,
    /// Additional delay of those.
    pub late: Duration,
    /// Bytes on the wire that may wait for the line, including the datagram that is being sent. One datagram may always.
    pub queue: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            rate: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Loss::None,
            reorder: 0.0,
            late: Duration::ZERO,
            queue: usize::MAX,
        }
    }
}

/// What a line carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Rate {
    /// Bits per second on the wire.
    Fixed(u64),
    /// What a recorded link carried, from time 0 on. At each of its times up to 1,500 bytes leave, of one datagram or of
    /// several that wait.
    Recorded(Arc<Trace>),
}

/// A loss model. Lost datagrams take their time on the line, as on a radio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// No losses.
    None,
    /// Independent losses with this probability (Bernoulli).
    Single(f64),
    /// Losses in runs (Gilbert–Elliott; nothing is lost in the good state and everything in the bad one).
    Runs {
        /// Probability per datagram to change from good to bad.
        enter: f64,
        /// Probability per datagram to change from bad to good.
        leave: f64,
    },
}

/// Counts of the datagrams of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Datagrams that came in.
    pub datagrams: u64,
    /// Their UDP payload in bytes.
    pub bytes: u64,
    /// Datagrams lost.
    pub lost: u64,
    /// Datagrams that found the queue full.
    pub overflowed: u64,
    /// Datagrams that the outgoing socket refused.
    pub unsent: u64,
}

/// One direction of a link. Time is counted from any fixed moment; `now` must not decrease.
#[derive(Debug)]
pub struct Shaper<T> {
    shape: Shape,
    rng: Rng,
    /// When the line will have sent all datagrams so far.
    free: Duration,
    /// The number of a recorded link's next packet, and the bytes that may still leave with the one before, at `free`.
    next: (u64, usize),
    /// When the last of the datagrams that keep their order arrives.
    last: Duration,
    bad: bool,
    pushed: u64,
    held: usize,
    in_flight: BinaryHeap<Reverse<InFlight<T>>>,
    count: Count,
}

#[derive(Debug)]
struct InFlight<T> {
    due: Duration,
    number: u64,
    bytes: usize,
    item: T,
}

impl<T> Shaper<T> {
    /// A direction that draws jitter, losses and reordering from `seed`.
    #[must_use]
    pub fn new(shape: Shape, seed: u64) -> Self {
        Shaper {
            shape,
            rng: Rng::with_seed(seed),
            free: Duration::ZERO,
            next: (0, 0),
            last: Duration::ZERO,
            bad: false,
            pushed: 0,
            held: 0,
            in_flight: BinaryHeap::new(),
            count: Count::default(),
        }
    }

    /// Takes in a datagram of `bytes` of UDP payload.
    pub fn push(&mut self, now: Duration, bytes: usize, item: T) {
        self.count.datagrams += 1;
        self.count.bytes += bytes as u64;
        let start = self.free.max(now);
        let wire = bytes + HEADER;
        let waiting = self.bytes_in(start - now);
        if waiting > 0 && waiting.saturating_add(wire) > self.shape.queue || self.held + wire > MAX_HELD {
            self.count.overflowed += 1;
            return;
        }
        self.free = self.departure(now, wire);
        if self.loses() {
            self.count.lost += 1;
            return;
        }
        let mut due = self.free + self.shape.delay;
        if !self.shape.jitter.is_zero() {
            due += self.shape.jitter.mul_f64(self.rng.f64());
        }
        if self.shape.reorder > 0.0 && self.rng.f64() < self.shape.reorder {
            due += self.shape.late;
        } else {
            due = due.max(self.last);
            self.last = due;
        }
        self.held += wire;
        self.in_flight.push(Reverse(InFlight { due, number: self.pushed, bytes: wire, item }));
        self.pushed += 1;
    }

    /// When the next datagram arrives.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.in_flight.peek().map(|Reverse(datagram)| datagram.due)
    }

    /// Returns a datagram that has arrived by `now`, the earliest first.
    pub fn pop(&mut self, now: Duration) -> Option<T> {
        if self.due()? > now {
            return None;
        }
        let Reverse(datagram) = self.in_flight.pop()?;
        self.held -= datagram.bytes;
        Some(datagram.item)
    }

    /// Counts so far.
    #[must_use]
    pub fn count(&self) -> Count {
        self.count
    }

    /// The bytes that the line sends in `time`.
    fn bytes_in(&self, time: Duration) -> usize {
        let rate = match &self.shape.rate {
            None => 0,
            Some(Rate::Fixed(rate)) => *rate,
            Some(Rate::Recorded(trace)) => trace.mean_rate() as u64,
        };
        let bits = time.as_nanos() * u128::from(rate) / 1_000_000_000;
        usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX)
    }

    /// When the last of `wire` bytes leaves the line that come in at `now`.
    fn departure(&mut self, now: Duration, wire: usize) -> Duration {
        match &self.shape.rate {
            None => self.free.max(now),
            Some(Rate::Fixed(rate)) => {
                let nanos = (wire as u64 * 8).saturating_mul(1_000_000_000).div_ceil((*rate).max(1));
                self.free.max(now) + Duration::from_nanos(nanos)
            }
            Some(Rate::Recorded(trace)) => {
                let (mut next, mut left) = self.next;
                let mut departure = self.free;
                if departure < now {
                    // What nothing waited for has passed.
                    (next, left) = (next.max(trace.first_at(now)), 0);
                }
                let mut rest = wire;
                while rest > left {
                    rest -= left;
                    (departure, left) = (trace.time(next), PACKET);
                    next += 1;
                }
                self.next = (next, left - rest);
                departure
            }
        }
    }

    fn loses(&mut self) -> bool {
        match self.shape.loss {
            Loss::None => false,
            Loss::Single(share) => self.rng.f64() < share,
            Loss::Runs { enter, leave } => {
                let change = if self.bad { leave } else { enter };
                self.bad ^= self.rng.f64() < change;
                self.bad
            }
        }
    }
}

impl<T> Ord for InFlight<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl<T> PartialOrd for InFlight<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for InFlight<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for InFlight<T> {}
