//! The least time that a link takes for a request and its reply, to compare measured times with.

use std::time::Duration;

use crate::{link::Link, shape::HEADER};

/// UDP payload of a full datagram after QUIC's path MTU discovery: 1500 less IPv6 and UDP headers.
const DATAGRAM: usize = 1452;
/// Bytes that QUIC adds to a datagram of one stream: first byte, connection ID of 8, packet number of 2, authentication
/// tag of 16 (RFC 9000, section 17.3), and a stream frame's type, ID, offset and length (section 19.8).
const QUIC: usize = 27 + 6;

/// The least time that a link takes for one exchange: bits over rate in both directions, and one round trip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ideal {
    /// Serialisation of the request.
    pub up: Duration,
    /// Serialisation of the reply.
    pub down: Duration,
    /// Propagation in both directions, with the mean jitter.
    pub round_trip: Duration,
}

impl Ideal {
    /// For messages of these many bytes, each on a stream of an open connection.
    #[must_use]
    pub fn of(link: &Link, up_bytes: usize, down_bytes: usize) -> Self {
        let line = |kbit: Option<f64>, bytes| {
            let seconds = |kbit| wire_bytes(bytes) as f64 * 8.0 / (kbit * 1000.0);
            kbit.map_or(Duration::ZERO, |kbit| Duration::from_secs_f64(seconds(kbit)))
        };
        Ideal {
            up: line(link.up_kbit, up_bytes),
            down: line(link.down_kbit, down_bytes),
            round_trip: Duration::from_secs_f64((link.rtt_ms + link.jitter_ms) / 1000.0),
        }
    }

    /// Time of the whole exchange, with nothing between request and reply.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.up + self.down + self.round_trip
    }
}

/// Bytes on the wire of a message on a QUIC stream: the message, and the headers of QUIC, UDP and IPv4 once per datagram.
#[must_use]
pub fn wire_bytes(message: usize) -> usize {
    let datagrams = message.div_ceil(DATAGRAM - QUIC).max(1);
    message + datagrams * (QUIC + HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ladder;

    #[test]
    fn an_exchange_takes_its_bits_and_a_round_trip() {
        let ladder = Ladder::shipped();
        let narrowband = Ideal::of(ladder.find("narrowband").unwrap(), 6_000, 100);
        // 6000 bytes are 5 datagrams of 61 bytes of headers.
        assert_eq!(wire_bytes(6_000), 6_305);
        assert_eq!(narrowband.up, Duration::from_secs_f64(6_305.0 * 8.0 / 250_000.0));
        assert_eq!(narrowband.down, Duration::from_secs_f64(161.0 * 8.0 / 250_000.0));
        assert_eq!(narrowband.total(), narrowband.up + narrowband.down + Duration::from_millis(20));
        let loopback = Ideal::of(ladder.find("loopback").unwrap(), 6_000, 100);
        assert_eq!(loopback.total(), Duration::ZERO);
    }
}
