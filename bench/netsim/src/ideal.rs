//! What physics charges for a question and its answer, to hold a measured time against.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    link::{Direction, Link},
    shape::HEADER,
};

/// UDP payload of a full datagram once QUIC has found the path's size: 1500 less IPv6 and UDP headers.
const DATAGRAM: usize = 1452;
/// What QUIC adds to a datagram of one stream: first byte, connection ID of 8, packet number of 2, authentication
/// tag of 16 (RFC 9000, section 17.3), and a stream frame's type, ID, offset and length (section 19.8).
const QUIC: usize = 27 + 6;

/// The least time that a link takes for one exchange: bits over rate, both ways, and one round trip.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ideal {
    /// Serialisation of the question.
    pub up: Duration,
    /// Serialisation of the answer.
    pub down: Duration,
    /// Propagation both ways, with the mean of the jitter.
    pub round_trip: Duration,
}

impl Ideal {
    /// For messages of these many bytes, each on a stream of an open connection.
    pub fn of(link: &Link, up_bytes: usize, down_bytes: usize) -> Self {
        let line = |direction, bytes| match link.shape(direction).rate {
            Some(rate) => Duration::from_secs_f64(wire_bytes(bytes) as f64 * 8.0 / rate as f64),
            None => Duration::ZERO,
        };
        Ideal {
            up: line(Direction::Up, up_bytes),
            down: line(Direction::Down, down_bytes),
            round_trip: Duration::from_secs_f64((link.rtt_ms + link.jitter_ms) / 1000.0),
        }
    }

    /// The whole exchange, with nothing between question and answer.
    pub fn total(&self) -> Duration {
        self.up + self.down + self.round_trip
    }

    /// What a frame whose stages on both sides took `stages` may take: a tenth more than stages and link, and 2 ms.
    pub fn bound(&self, stages: Duration) -> Duration {
        (self.total() + stages).mul_f64(1.1) + Duration::from_millis(2)
    }
}

/// Bytes on the wire of a message on a QUIC stream: itself, and the headers of QUIC, UDP and IPv4 once per
/// datagram.
pub fn wire_bytes(message: usize) -> usize {
    let datagrams = message.div_ceil(DATAGRAM - QUIC).max(1);
    message + datagrams * (QUIC + HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ladder;

    #[test]
    fn a_frame_costs_its_bits_and_a_round_trip() {
        let ladder = Ladder::shipped();
        let narrowband = Ideal::of(ladder.find("narrowband").unwrap(), 6_000, 100);
        // 6000 bytes are 5 datagrams of 61 bytes of headers.
        assert_eq!(wire_bytes(6_000), 6_305);
        assert_eq!(narrowband.up, Duration::from_secs_f64(6_305.0 * 8.0 / 250_000.0));
        assert_eq!(narrowband.down, Duration::from_secs_f64(161.0 * 8.0 / 250_000.0));
        assert_eq!(narrowband.total(), narrowband.up + narrowband.down + Duration::from_millis(20));
        let loopback = Ideal::of(ladder.find("loopback").unwrap(), 6_000, 100);
        assert_eq!(loopback.total(), Duration::ZERO);
        assert_eq!(loopback.bound(Duration::from_millis(10)), Duration::from_millis(13));
    }
}
