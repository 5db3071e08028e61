//! Sends datagrams through one direction of a link and measures when they arrive.
#![expect(clippy::disallowed_methods, reason = "measuring reads the clock")]

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::shape::{Loss, Shape};

/// Sizes on the wire: of datagrams for delay and loss, and the largest one for rates.
const SMALL: usize = 100;
const LARGE: usize = 1500;
/// Rate in bits per second above which jumbo datagrams are sent: one core does not send 83,000 datagrams a second.
const FAST: f64 = 200e6;
const JUMBO: usize = 9000;
/// Number of datagrams for delay, and for loss where there is any.
const DELAYS: usize = 60;
const LOSSES: usize = 5000;
/// Datagrams per second where the line has no limit.
const UNLIMITED: f64 = 20_000.0;
/// Seconds by which the sender stays ahead of the line, so that the line is never idle while the sender sleeps.
const AHEAD: f64 = 0.02;
/// Silence, beyond the line's own delay, after which missing datagrams count as lost.
const SILENCE: Duration = Duration::from_millis(700);

/// How thoroughly to measure, and when to stop.
pub(crate) struct Effort<'a> {
    /// Seconds that the line is kept full.
    pub(crate) seconds: f64,
    /// The measurement ends early once this returns true.
    pub(crate) stop: &'a dyn Fn() -> bool,
}

/// One direction to measure: a connected socket, the socket where its datagrams arrive, and the configured shape.
pub(crate) struct Path<'a> {
    from: &'a UdpSocket,
    to: &'a UdpSocket,
    shape: Shape,
    /// Bytes of headers on the wire in addition to the payload.
    header: usize,
}

/// A measurement.
#[derive(Debug, Clone)]
pub(crate) struct Probed {
    /// Rate of the full line in 1000 bit/s; `None` where it has no limit.
    pub(crate) kbit: Option<f64>,
    /// Bytes on the wire of the datagrams whose delay was measured.
    pub(crate) small: usize,
    /// One-way times on an idle line.
    pub(crate) delays_ms: Vec<f64>,
    /// Datagrams sent.
    pub(crate) sent: usize,
    /// Datagrams that did not arrive.
    pub(crate) missing: usize,
    /// Datagrams that arrived after one that was sent later.
    pub(crate) overtaken: usize,
}

/// Number and arrival time of each datagram that arrived.
type Arrivals = Vec<(usize, Instant)>;

/// Size of the receive buffers, for datagrams that arrive while the receiver does not run; the kernel limits it without
/// an error.
const BUFFER: usize = 4 << 20;

/// Connects `to` to the address from which it receives the datagrams of `from`.
///
/// # Errors
/// When none of 20 datagrams arrives.
pub(crate) fn connect_back(from: &UdpSocket, to: &UdpSocket) -> Result<()> {
    for socket in [from, to] {
        let _ = socket2::SockRef::from(socket).set_recv_buffer_size(BUFFER);
    }
    to.set_read_timeout(Some(Duration::from_secs(2)))?;
    // More than one: links lose datagrams, and namespaces resolve addresses first.
    for _ in 0..20 {
        from.send(&[0])?;
        if let Ok((_, address)) = to.recv_from(&mut [0; 8]) {
            to.connect(address)?;
            // Drop the datagrams that are still in flight.
            to.set_read_timeout(Some(Duration::from_millis(100)))?;
            while to.recv(&mut [0; 8]).is_ok() {}
            return Ok(());
        }
    }
    anyhow::bail!("no datagram gets through")
}

impl<'a> Path<'a> {
    pub(crate) fn new(from: &'a UdpSocket, to: &'a UdpSocket, shape: Shape, header: usize) -> Self {
        Path { from, to, shape, header }
    }

    /// Measures delay, rate and loss, in this order.
    pub(crate) fn probe(&self, effort: &Effort<'_>) -> Result<Probed> {
        let line = self.line(SMALL);
        let gap = (2.0 * line).max(0.005);
        let mut passes = Vec::new();
        let (sent, arrived) = self.pass(SMALL, DELAYS, 0.0, gap, effort)?;
        ensure!(!arrived.is_empty(), "no datagram got through");
        let delays = arrived.iter().map(|(number, at)| (*at - sent[*number]).as_secs_f64() * 1e3);
        let delays_ms = delays.collect();
        passes.push((sent.len(), arrived));
        let kbit = match self.shape.rate {
            Some(_) => {
                let (kbit, sent, arrived) = self.full(effort)?;
                passes.push((sent, arrived));
                Some(kbit)
            }
            None => None,
        };
        if self.shape.loss != Loss::None {
            let each = if line > 0.0 { line } else { 1.0 / UNLIMITED };
            let number = LOSSES.min((effort.seconds / each) as usize).max(DELAYS);
            let (sent, arrived) = self.pass(SMALL, number, 0.0, each * 1.02, effort)?;
            passes.push((sent.len(), arrived));
        }
        let sent = passes.iter().map(|(sent, _)| sent).sum();
        let arrived: usize = passes.iter().map(|(_, arrived)| arrived.len()).sum();
        let overtaken = passes.iter().map(|(_, arrived)| overtaken(arrived)).sum();
        Ok(Probed { kbit, small: SMALL, delays_ms, sent, missing: sent - arrived, overtaken })
    }

    /// Measures the rate of a line that is never idle, in 1000 bit/s; returns it with the number of datagrams sent and those
    /// that arrived.
    pub(crate) fn full(&self, effort: &Effort<'_>) -> Result<(f64, usize, Arrivals)> {
        let rate = self.shape.rate.context("a line without a limit has no rate to find")? as f64;
        // Datagrams that take 10 ms where that is a possible size: a slow line needs enough of them.
        let wire = match rate > FAST {
            true => JUMBO,
            false => ((rate * 0.01 / 8.0) as usize).clamp(SMALL, LARGE),
        };
        let line = self.line(wire);
        let number = ((effort.seconds / line) as usize).max(20);
        let most = self.shape.queue as f64 / 2.0 / wire as f64 * line;
        let (sent, arrived) = self.pass(wire, number, AHEAD.max(4.0 * line).min(most), line, effort)?;
        Ok((rate_of(&arrived, wire)?, sent.len(), arrived))
    }

    /// Seconds that the line needs for `wire` bytes.
    fn line(&self, wire: usize) -> f64 {
        self.shape.rate.map_or(0.0, |rate| wire as f64 * 8.0 / rate as f64)
    }

    /// Sends `number` datagrams: those of the first `ahead` seconds at once, then one each `gap` seconds. Returns when each
    /// was sent, and those that arrived.
    fn pass(
        &self,
        wire: usize,
        number: usize,
        ahead: f64,
        gap: f64,
        effort: &Effort<'_>,
    ) -> Result<(Vec<Instant>, Arrivals)> {
        let delay = self.shape.delay + self.shape.jitter + self.shape.late;
        let patience = SILENCE + delay + Duration::from_secs_f64(2.0 * gap);
        self.to.set_read_timeout(Some(patience))?;
        let start = Instant::now();
        thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive(number));
            let mut datagram = vec![0; wire.saturating_sub(self.header).max(4)];
            let mut sent = Vec::with_capacity(number);
            for place in 0..number {
                let due = start + Duration::from_secs_f64((place as f64 * gap - ahead).max(0.0));
                let now = Instant::now();
                if due > now {
                    thread::sleep(due - now);
                    if (effort.stop)() {
                        break;
                    }
                }
                datagram[..4].copy_from_slice(&(place as u32).to_le_bytes());
                sent.push(Instant::now());
                self.from.send(&datagram)?;
            }
            let arrived = receiver.join().map_err(|_| anyhow::anyhow!("the receiver failed"))??;
            Ok((sent, arrived))
        })
    }

    /// Receives datagrams until `number` have arrived or none arrives any more.
    fn receive(&self, number: usize) -> Result<Arrivals> {
        // As in the relay: best effort, for this thread alone.
        let _ = rustix::process::setpriority_process(None, -20);
        let mut arrived = Arrivals::with_capacity(number);
        let mut buffer = [0; JUMBO];
        while arrived.len() < number {
            match self.to.recv(&mut buffer) {
                Ok(4..) => {
                    let place = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
                    arrived.push((place, Instant::now()));
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("the receiving socket"),
            }
        }
        Ok(arrived)
    }
}

/// The rate in 1000 bit/s of datagrams of `wire` bytes, by least squares over their arrival times, which is robust against a
/// receiver that sleeps now and then. Lost datagrams count: they took their time on the line.
fn rate_of(arrived: &Arrivals, wire: usize) -> Result<f64> {
    // The first datagrams may have passed with a full token bucket, faster than the line's rate.
    let steady = &arrived[arrived.len() / 5..];
    ensure!(steady.len() >= 10, "{} datagrams got through: too few for a rate", arrived.len());
    let n = steady.len() as f64;
    let seconds = |at: &Instant| (*at - steady[0].1).as_secs_f64();
    let mean_x = steady.iter().map(|(place, _)| *place as f64).sum::<f64>() / n;
    let mean_y = steady.iter().map(|(_, at)| seconds(at)).sum::<f64>() / n;
    let (mut xy, mut xx) = (0.0, 0.0);
    for (place, at) in steady {
        let x = *place as f64 - mean_x;
        xy += x * (seconds(at) - mean_y);
        xx += x * x;
    }
    Ok(wire as f64 * 8.0 / (xy / xx) / 1e3)
}

/// The number of datagrams that arrived after one that was sent later.
fn overtaken(arrived: &Arrivals) -> usize {
    let mut latest = 0;
    let late = arrived.iter().filter(|(place, _)| {
        let late = *place < latest;
        latest = latest.max(*place);
        late
    });
    late.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_does_not_depend_on_losses() {
        let start = Instant::now();
        let all = (0..1000).map(|place| (place, start + Duration::from_micros(2000 * place as u64)));
        let some: Arrivals = all.filter(|(place, _)| place % 7 != 3).collect();
        // 1500 bytes each 2 ms are 6 Mbit/s.
        assert!((rate_of(&some, 1500).unwrap() - 6_000.0).abs() < 1e-6);
        assert!(rate_of(&some[..10].to_vec(), 1500).is_err());
    }

    #[test]
    fn overtaken_datagrams_are_counted() {
        let now = Instant::now();
        let arrived: Arrivals = [0, 2, 1, 3, 6, 4, 5].map(|place| (place, now)).to_vec();
        assert_eq!(overtaken(&arrived), 3);
    }
}
