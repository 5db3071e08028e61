//! What is expected of a link at one moment, and what packets are worth then.

use std::time::Duration;

use super::packet::{FrameInfo, Packet};
use crate::{EnergyModel, Forecast, Link, Rung};

/// The price of a byte over what another frame could earn with it when the link stays as it is. Bytes that the link carries
/// later than expected delay every frame after them, while bytes that were not sent are missed by one frame only.
const CAUTION: f64 = 1.5;

/// Most datagrams whose chances are worked out.
const MOST_DATAGRAMS: u64 = 1 << 16;

/// What expected values depend on at one moment.
pub(super) struct View {
    now: Duration,
    forecast: Forecast,
    /// Time from the sending of a byte over an empty link to its arrival.
    one_way: Duration,
    /// Bytes before the next one.
    pub(super) ahead: u64,
    pub(super) datagram: u32,
    interval: f64,
    rate: f64,
    energy: Option<EnergyModel>,
}

/// What the link will do for one frame.
struct Outlook {
    /// Value of a byte that another frame could have.
    price: f64,
    /// The chances that at least 0, 1, … datagrams are delivered in time.
    chances: Vec<f64>,
    datagram: u32,
}

impl View {
    /// What is expected at `now`.
    pub(super) fn new(now: Duration, link: &Link, interval: f64, energy: Option<EnergyModel>) -> Self {
        View {
            now,
            forecast: link.forecast(now),
            one_way: link.base_rtt() / 2,
            ahead: link.in_flight(),
            datagram: link.datagram(),
            interval,
            rate: link.rate(),
            energy,
        }
    }

    /// The time in which the link must take the frame's bytes, or `None` if nothing that is sent now arrives in time.
    fn time_left(&self, frame: &FrameInfo) -> Option<Duration> {
        frame.due.checked_sub(self.now + self.one_way)
    }

    /// The level with the highest expected value for a frame of which nothing has been sent, and that value.
    pub(super) fn best(&self, frame: &FrameInfo) -> (f64, usize) {
        let Some(outlook) = self.outlook(frame, None) else { return (-1.0, 0) };
        let values = frame.ladder.rungs().iter().map(|rung| outlook.gain(rung, 0, 0, self.ahead)).enumerate();
        let best = values.max_by(|a, b| a.1.total_cmp(&b.1));
        best.map_or((-1.0, 0), |(rung, value)| (value, rung))
    }

    /// The expected value of a packet that is sent on to its end.
    pub(super) fn whole(&self, packet: &Packet) -> f64 {
        let arrived = self.arrived(packet);
        packet.cuts.value_at(arrived) + self.rest(packet, arrived)
    }

    /// The expected gain from the bytes of a packet after `from`.
    pub(super) fn rest(&self, packet: &Packet, from: u32) -> f64 {
        let Some(outlook) = self.outlook(&packet.frame, Some(&packet.cuts)) else { return -1.0 };
        let others = self.ahead.saturating_sub(u64::from(packet.sent));
        let ahead = others + u64::from(from - self.arrived(packet));
        outlook.gain(&packet.cuts, from, packet.sent, ahead)
    }

    /// How much of a packet has arrived for certain. Bytes in flight are taken for its last ones.
    fn arrived(&self, packet: &Packet) -> u32 {
        u64::from(packet.sent).saturating_sub(self.ahead) as u32
    }

    /// What the link will do for a frame, or `None` if nothing that is sent now arrives in time.
    fn outlook(&self, frame: &FrameInfo, cuts: Option<&Rung>) -> Option<Outlook> {
        let time = self.time_left(frame)?;
        let packets = frame.ladder.rungs().iter().chain(cuts);
        let largest = packets.map(Rung::bytes).max().unwrap_or(0);
        let datagrams = (self.ahead + u64::from(largest)).div_ceil(u64::from(self.datagram));
        let of_the_link = CAUTION * frame.ladder.price(self.rate * self.interval);
        let of_energy =
            self.energy.map_or(0.0, |energy| energy.price(&frame.ladder, frame.computed, self.rate));
        Some(Outlook {
            price: of_the_link.max(of_energy),
            chances: self.forecast.chances(datagrams.min(MOST_DATAGRAMS) as usize + 1, time),
            datagram: self.datagram,
        })
    }
}

impl Outlook {
    /// The expected gain from the bytes of a packet after `from`, with `ahead` bytes before them, less the price of those
    /// after `sent`. The packet ends where that is highest, but not before one more datagram is sent.
    fn gain(&self, rung: &Rung, from: u32, sent: u32, ahead: u64) -> f64 {
        let (mut total, mut value, mut at) = (0.0, rung.value_at(from), from);
        let mut best = f64::NEG_INFINITY;
        while at < rung.bytes() {
            let next = rung.bytes().min(at + self.datagram);
            let cost = self.price * f64::from(next - at.max(sent).min(next));
            let reached = rung.value_at(next);
            total += self.chance(ahead + u64::from(next - from)) * (reached - value - cost);
            (value, at) = (reached, next);
            if at > sent {
                best = best.max(total);
            }
        }
        best
    }

    /// The chance that so many bytes are delivered in time.
    fn chance(&self, bytes: u64) -> f64 {
        let datagrams = bytes as f64 / f64::from(self.datagram);
        let whole = datagrams as usize;
        // Far beyond what a link could deliver none are worked out.
        let at = |count: usize| self.chances.get(count).copied().unwrap_or_default();
        at(whole) + (at(whole.saturating_add(1)) - at(whole)) * datagrams.fract()
    }
}
