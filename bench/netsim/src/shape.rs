//! One direction of a link (pure): what a datagram meets between the two ends.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// Bytes of IPv4 and UDP header that a datagram has on the wire beside its payload.
pub const HEADER: usize = 28;

/// Bytes that may be under way in one direction, whatever the link: the relay's memory is bounded.
const MAX_HELD: usize = 64 << 20;

/// What one direction does to datagrams.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Bits per second on the wire; `None` does not limit.
    pub rate: Option<u64>,
    /// Time from the last bit's departure to its arrival.
    pub delay: Duration,
    /// Largest extra delay, evenly spread from 0; order is kept.
    pub jitter: Duration,
    /// Which datagrams do not arrive.
    pub loss: Loss,
    /// Share of datagrams that others may pass, 0 to 1.
    pub reorder: f64,
    /// How much later those arrive.
    pub late: Duration,
    /// Bytes on the wire that may wait for the line, the datagram on it included; one may always.
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

/// Which datagrams do not arrive. They take their time on the line all the same, as on a radio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// All arrive.
    None,
    /// Each is lost with this probability (Bernoulli).
    Single(f64),
    /// Runs of losses (Gilbert–Elliott with nothing lost while good and all while bad): probabilities, per
    /// datagram, to become bad and to become good.
    Runs {
        /// From good to bad.
        enter: f64,
        /// From bad to good.
        leave: f64,
    },
}

/// What became of the datagrams of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Datagrams that came in.
    pub datagrams: u64,
    /// Their UDP payload in bytes.
    pub bytes: u64,
    /// Datagrams lost on the way.
    pub lost: u64,
    /// Datagrams that found the queue full.
    pub overflowed: u64,
    /// Datagrams that the socket on the far side did not take.
    pub unsent: u64,
}

/// One direction of a link. Time is counted from any fixed moment; `now` must not run backwards.
#[derive(Debug)]
pub struct Shaper<T> {
    shape: Shape,
    rng: Rng,
    /// When the line has sent all that it was given.
    free: Duration,
    /// When the last datagram in order arrives.
    last: Duration,
    bad: bool,
    pushed: u64,
    held: usize,
    flying: BinaryHeap<Reverse<Flight<T>>>,
    count: Count,
}

#[derive(Debug)]
struct Flight<T> {
    due: Duration,
    place: u64,
    bytes: usize,
    item: T,
}

impl<T> Shaper<T> {
    /// A direction that draws its chances from `seed`.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Shaper {
            shape,
            rng: Rng::with_seed(seed),
            free: Duration::ZERO,
            last: Duration::ZERO,
            bad: false,
            pushed: 0,
            held: 0,
            flying: BinaryHeap::new(),
            count: Count::default(),
        }
    }

    /// A datagram of `bytes` of UDP payload comes in.
    pub fn push(&mut self, now: Duration, bytes: usize, item: T) {
        self.count.datagrams += 1;
        self.count.bytes += bytes as u64;
        let start = self.free.max(now);
        let wire = bytes + HEADER;
        let waiting = self.waiting(start - now);
        if waiting > 0 && waiting.saturating_add(wire) > self.shape.queue || self.held + wire > MAX_HELD {
            self.count.overflowed += 1;
            return;
        }
        self.free = start + self.line_time(wire);
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
        self.flying.push(Reverse(Flight { due, place: self.pushed, bytes: wire, item }));
        self.pushed += 1;
    }

    /// When the next datagram arrives.
    pub fn due(&self) -> Option<Duration> {
        self.flying.peek().map(|Reverse(flight)| flight.due)
    }

    /// A datagram that has arrived by `now`, the earliest first.
    pub fn pop(&mut self, now: Duration) -> Option<T> {
        if self.due()? > now {
            return None;
        }
        let Reverse(flight) = self.flying.pop()?;
        self.held -= flight.bytes;
        Some(flight.item)
    }

    /// What became of the datagrams so far.
    pub fn count(&self) -> Count {
        self.count
    }

    /// Bytes whose bits need this long.
    fn waiting(&self, time: Duration) -> usize {
        let bits = time.as_nanos() * u128::from(self.shape.rate.unwrap_or(0)) / 1_000_000_000;
        usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX)
    }

    /// How long the line is busy with a datagram.
    fn line_time(&self, wire: usize) -> Duration {
        let Some(rate) = self.shape.rate else { return Duration::ZERO };
        let nanos = (wire as u64 * 8).saturating_mul(1_000_000_000).div_ceil(rate.max(1));
        Duration::from_nanos(nanos)
    }

    fn loses(&mut self) -> bool {
        match self.shape.loss {
            Loss::None => false,
            Loss::Single(share) => self.rng.f64() < share,
            Loss::Runs { enter, leave } => {
                let turn = if self.bad { leave } else { enter };
                self.bad ^= self.rng.f64() < turn;
                self.bad
            }
        }
    }
}

impl<T> Ord for Flight<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.place).cmp(&(other.due, other.place))
    }
}

impl<T> PartialOrd for Flight<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Flight<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Flight<T> {}
