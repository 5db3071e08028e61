//! The frames and the network of a simulation.

use std::time::Duration;

use narrows_policy::EnergyModel;

/// Frames of one source and the network that they cross.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene {
    /// Frames in all.
    pub(super) frames: u64,
    /// When the first is captured.
    pub(super) begin: Duration,
    /// Time between captures.
    pub(super) interval: Duration,
    /// Time from a capture to its answer.
    pub(super) budget: Duration,
    /// Delay of the empty link in each direction.
    pub(super) one_way: Duration,
    /// Time from the last byte at the server to the reply.
    pub(super) server: Duration,
    /// Stream bytes in a packet of the link.
    pub(super) packet_bytes: u32,
    /// Time that the device computes on a frame before it is sent.
    pub(super) computing: Duration,
    /// What computing and sending cost.
    pub(super) energy: EnergyModel,
}

impl Scene {
    /// When a frame is captured.
    pub(super) fn captured(&self, frame: u64) -> Duration {
        self.begin + self.interval.saturating_mul(u32::try_from(frame).unwrap_or(u32::MAX))
    }

    /// When the last byte of a frame must leave the link's queue; before its capture if the budget is too short for any.
    pub(super) fn last_departure(&self, frame: u64) -> Duration {
        (self.captured(frame) + self.budget).saturating_sub(2 * self.one_way + self.server)
    }
}

#[cfg(test)]
impl Scene {
    /// Frames each 100 ms with a budget of 300 ms over 20 ms each way.
    pub(super) fn example() -> Self {
        let ms = Duration::from_millis;
        let (interval, budget, one_way, server) = (ms(100), ms(300), ms(20), ms(5));
        let (begin, packet_bytes, computing) = (Duration::ZERO, 1300, ms(30));
        let energy = EnergyModel { computing: 4.0, per_byte: 2.265e-6, sending: 0.133 };
        Scene { frames: 100, begin, interval, budget, one_way, server, packet_bytes, computing, energy }
    }
}
