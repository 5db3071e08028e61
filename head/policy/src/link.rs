//! A model of the uplink from delivered bytes and their delays.
//!
//! Congestion window over round trip is not a rate: it holds the standing queue and grows stale while little is sent. This
//! model measures how long the link served each datagram: from the delivery before it, or from the earliest time at which
//! it could have arrived, to its own delivery. Pauses of the sender are not in it. The first datagram after a pause counts
//! without its own service, which the shortest round trip contains; so the rate errs on the high side, and grows, until a
//! queue shows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::nanos;

/// Round trips that must have been observed before the shortest of them may replace a shorter one.
const LEAST_RTTS: u32 = 16;

/// Settings of [`Link`].
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConfig {
    /// Stream bytes of a full datagram.
    pub datagram: u32,
    /// Round trip assumed before the first delivery.
    pub initial_rtt: Duration,
    /// Rate assumed before the first delivery, in bytes per second.
    pub initial_rate: f64,
    /// Time constant of the rate that forecasts follow.
    pub fast: Duration,
    /// Time constant of the rate that the price of a byte follows.
    pub slow: Duration,
    /// Time constant of the rate that the window follows.
    pub window: Duration,
    /// The queue that may stand at the bottleneck. It lets the window grow when the link becomes faster: by this over the
    /// round trip, each round trip.
    pub queue: Duration,
    /// Datagrams that may always be in flight.
    pub least_window: u32,
    /// The time for which the shortest round trip is remembered; a change of route is noticed after it.
    pub remember_rtt: Duration,
    /// Shape of the forecast's distribution: a Poisson process whose rate is gamma distributed with this shape. Lower is less
    /// certain.
    pub certainty: f64,
}

impl Default for LinkConfig {
    fn default() -> Self {
        LinkConfig {
            datagram: 1300,
            initial_rtt: Duration::from_millis(100),
            initial_rate: 65_000.0,
            fast: Duration::from_millis(200),
            slow: Duration::from_millis(250),
            window: Duration::from_millis(45),
            queue: Duration::from_millis(35),
            least_window: 3,
            remember_rtt: Duration::from_secs(10),
            certainty: 4.5,
        }
    }
}

/// Most bytes in flight and most bytes of a datagram that a recorded state may have.
const MOST_IN_FLIGHT: u64 = 1 << 30;
const MOST_DATAGRAM: u32 = 1 << 16;

/// The state of the uplink as observed so far.
#[derive(Clone, Debug)]
pub struct Link {
    config: LinkConfig,
    datagram: u32,
    fast: Rate,
    slow: Rate,
    window: Rate,
    base: ShortestRtt,
    in_flight: u64,
    /// When the datagrams in flight began to be more than none.
    busy_since: Duration,
    delivered_at: Duration,
}

/// What a [`Link`] has learnt, without its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkState {
    datagram: u32,
    /// Bytes per second.
    fast: f64,
    slow: f64,
    window: f64,
    base: ShortestRtt,
    in_flight: u64,
    #[serde(with = "nanos")]
    busy_since: Duration,
    #[serde(with = "nanos")]
    delivered_at: Duration,
}

/// How much the link will deliver in the near future, as a distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    rate: f64,
    datagram: f64,
    certainty: f64,
}

impl Link {
    /// A link of which nothing is known yet.
    #[must_use]
    pub fn new(config: LinkConfig) -> Self {
        let rate = |span: Duration| Rate { value: config.initial_rate, span: span.as_secs_f64() };
        Link {
            datagram: config.datagram,
            fast: rate(config.fast),
            slow: rate(config.slow),
            window: rate(config.window),
            base: ShortestRtt::new(config.initial_rtt),
            in_flight: 0,
            busy_since: Duration::ZERO,
            delivered_at: Duration::ZERO,
            config,
        }
    }

    /// What has been learnt so far.
    #[must_use]
    pub fn state(&self) -> LinkState {
        LinkState {
            datagram: self.datagram,
            fast: self.fast.value,
            slow: self.slow.value,
            window: self.window.value,
            base: self.base.clone(),
            in_flight: self.in_flight,
            busy_since: self.busy_since,
            delivered_at: self.delivered_at,
        }
    }

    /// A link that has learnt `state`; `None` for a state that no link can be in.
    #[must_use]
    pub fn resume(config: LinkConfig, state: LinkState) -> Option<Self> {
        let rates = [state.fast, state.slow, state.window];
        let usable = rates.iter().all(|rate| rate.is_finite() && *rate >= 0.0)
            && (1..=MOST_DATAGRAM).contains(&state.datagram)
            && state.in_flight <= MOST_IN_FLIGHT;
        let rate = |value, span: Duration| Rate { value, span: span.as_secs_f64() };
        usable.then(|| Link {
            datagram: state.datagram,
            fast: rate(state.fast, config.fast),
            slow: rate(state.slow, config.slow),
            window: rate(state.window, config.window),
            base: state.base,
            in_flight: state.in_flight,
            busy_since: state.busy_since,
            delivered_at: state.delivered_at,
            config,
        })
    }

    /// Takes note of a datagram of `bytes` that leaves.
    pub fn on_sent(&mut self, now: Duration, bytes: u32) {
        if self.in_flight == 0 {
            self.busy_since = now;
        }
        self.in_flight = self.in_flight.saturating_add(bytes.into());
    }

    /// Takes note of the acknowledgement of a datagram of `bytes` that left at `sent`.
    pub fn on_delivered(&mut self, now: Duration, sent: Duration, bytes: u32) {
        self.base.observe(now, now.saturating_sub(sent), self.config.remember_rtt);
        let earliest = sent + self.base.value;
        let served = now.saturating_sub(self.delivered_at.max(earliest)).as_secs_f64();
        for rate in [&mut self.fast, &mut self.slow, &mut self.window] {
            rate.add(f64::from(bytes), served);
        }
        self.delivered_at = now;
        self.in_flight = self.in_flight.saturating_sub(u64::from(bytes));
    }

    /// Takes note of a datagram of `bytes` that was lost.
    pub fn on_lost(&mut self, bytes: u32) {
        self.in_flight = self.in_flight.saturating_sub(u64::from(bytes));
    }

    /// Corrects the number of bytes that were sent and neither acknowledged nor lost, where it is known better.
    pub fn set_in_flight(&mut self, bytes: u64) {
        self.in_flight = bytes;
    }

    /// Changes the stream bytes of a full datagram.
    pub fn set_datagram(&mut self, bytes: u32) {
        self.datagram = bytes.clamp(1, MOST_DATAGRAM);
    }

    /// Bytes that were sent and neither acknowledged nor lost.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether another full datagram may leave: one round trip's worth of bytes and the queue that is allowed.
    #[must_use]
    pub fn may_send(&self) -> bool {
        let least = f64::from(self.config.least_window) * f64::from(self.datagram);
        let span = self.base.value + self.config.queue;
        (self.in_flight as f64) < (self.window.value * span.as_secs_f64()).max(least)
    }

    /// The shortest round trip of late: that of an empty queue.
    #[must_use]
    pub fn base_rtt(&self) -> Duration {
        self.base.value
    }

    /// The slow rate, in bytes per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.slow.value
    }

    /// Stream bytes of a full datagram.
    #[must_use]
    pub fn datagram(&self) -> u32 {
        self.datagram
    }

    /// What the link will deliver from now on. While datagrams are in flight and none arrives, the rate sinks.
    #[must_use]
    pub fn forecast(&self, now: Duration) -> Forecast {
        let silence = match self.in_flight {
            0 => Duration::ZERO,
            _ => now.saturating_sub(self.delivered_at.max(self.busy_since + self.base.value)),
        };
        Forecast {
            rate: self.fast.value * (-silence.as_secs_f64() / self.fast.span).exp(),
            datagram: f64::from(self.datagram),
            certainty: self.config.certainty,
        }
    }
}

impl Forecast {
    /// The chances that the link delivers at least 0, 1, … `datagrams` full datagrams within `time`.
    #[must_use]
    pub fn chances(&self, datagrams: usize, time: Duration) -> Vec<f64> {
        // A Poisson process whose rate is gamma distributed counts as a negative binomial distribution.
        let mean = self.rate / self.datagram * time.as_secs_f64();
        let failure = mean / (self.certainty + mean);
        let mut exactly = (1.0 - failure).powf(self.certainty);
        let mut at_least = Vec::with_capacity(datagrams + 1);
        at_least.push(1.0);
        let mut below = 0.0;
        for count in 0..datagrams {
            below += exactly;
            at_least.push((1.0 - below).max(0.0));
            exactly *= (count as f64 + self.certainty) / (count as f64 + 1.0) * failure;
        }
        at_least
    }
}

/// Bytes per second of service, averaged with exponentially falling weights.
#[derive(Clone, Debug)]
struct Rate {
    value: f64,
    /// Time constant in seconds.
    span: f64,
}

impl Rate {
    fn add(&mut self, bytes: f64, served: f64) {
        self.value = self.value * (-served / self.span).exp() + bytes / self.span;
    }
}

/// The shortest round trip of the current period and the two before. A period that one outage covers does not change it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShortestRtt {
    #[serde(with = "nanos")]
    value: Duration,
    /// The shortest of the period before.
    #[serde(with = "nanos::optional")]
    before: Option<Duration>,
    /// The shortest of the current period; `None` at its beginning.
    #[serde(with = "nanos::optional")]
    current: Option<Duration>,
    /// Observations in the current period.
    count: u32,
    #[serde(with = "nanos::optional")]
    until: Option<Duration>,
}

impl ShortestRtt {
    fn new(assumed: Duration) -> Self {
        ShortestRtt { value: assumed, before: None, current: None, count: 0, until: None }
    }

    fn observe(&mut self, now: Duration, rtt: Duration, period: Duration) {
        let shortest = self.current.map_or(rtt, |current| current.min(rtt));
        self.current = Some(shortest);
        self.value = self.value.min(rtt);
        self.count = self.count.saturating_add(1);
        // A few observations may all come from one outage.
        if now >= *self.until.get_or_insert(now + period) && self.count >= LEAST_RTTS {
            self.value = self.before.map_or(shortest, |before| before.min(shortest));
            (self.before, self.current) = (self.current, None);
            (self.count, self.until) = (0, Some(now + period));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    /// Sends a datagram of 1,300 bytes every `gap` over a link of 40 ms whose line takes `service` for each.
    fn run(link: &mut Link, from: Duration, count: u64, gap: Duration, service: Duration) -> Duration {
        let mut free = from;
        for number in 0..count {
            let sent = from + gap * number as u32;
            link.on_sent(sent, 1300);
            free = free.max(sent) + service;
            link.on_delivered(free + ms(40), sent, 1300);
        }
        free + ms(40)
    }

    #[test]
    fn the_rate_is_that_of_the_line_and_not_of_the_sender() {
        // 10 ms of service are 130 kB/s. The sender keeps the line busy for a half, or always.
        for (between, datagrams) in [(100, 5), (1000, 1000)] {
            let mut link = Link::new(LinkConfig::default());
            for frame in 0..100 {
                run(&mut link, ms(frame * between), datagrams, ms(0), ms(10));
            }
            // The service of a burst's first datagram is part of the shortest round trip.
            let most = 130e3 * datagrams as f64 / (datagrams - 1) as f64;
            let rate = link.rate();
            assert!((0.98 * 130e3..=1.02 * most).contains(&rate), "{between}: {rate}");
        }
    }

    #[test]
    fn a_datagram_that_is_held_up_lowers_the_rate() {
        let mut link = Link::new(LinkConfig::default());
        run(&mut link, ms(0), 600, ms(10), ms(10));
        let before = link.rate();
        link.on_sent(ms(20_000), 1300);
        link.on_delivered(ms(22_000), ms(20_000), 1300);
        assert!(link.rate() < before / 4.0);
    }

    #[test]
    fn the_window_holds_a_round_trip_and_the_queue() {
        let mut link = Link::new(LinkConfig::default());
        let end = run(&mut link, ms(0), 600, ms(1), ms(2));
        let mut sent = 0;
        while link.may_send() {
            link.on_sent(end, 1300);
            sent += 1300;
        }
        // 650 kB/s times 42 + 40 ms.
        assert!((50_000..=58_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_silent_link_is_expected_to_deliver_less_and_less() {
        let mut link = Link::new(LinkConfig::default());
        let end = run(&mut link, ms(0), 600, ms(1), ms(2));
        let chance = |link: &Link, now| link.forecast(now).chances(20, ms(100))[20];
        let before = chance(&link, end);
        assert_eq!(chance(&link, end + ms(5000)), before, "nothing is in flight");
        link.on_sent(end, 1300);
        assert_eq!(chance(&link, end + ms(40)), before, "no reply can have come yet");
        assert!(chance(&link, end + ms(500)) < before / 2.0);
        link.on_lost(1300);
        assert_eq!(link.in_flight(), 0);
    }

    #[test]
    fn chances_fall_with_the_amount_and_rise_with_the_time() {
        let link = Link::new(LinkConfig::default());
        let forecast = link.forecast(ms(0));
        let short = forecast.chances(50, ms(50));
        let long = forecast.chances(50, ms(500));
        assert_eq!((short.len(), short[0], long[0]), (51, 1.0, 1.0));
        assert!(
            short.windows(2).all(|pair| pair[0] >= pair[1]) && short.iter().all(|p| (0.0..=1.0).contains(p))
        );
        assert!(short[1..].iter().zip(&long[1..]).all(|(short, long)| short < long));
        assert_eq!(forecast.chances(2, Duration::ZERO), [1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_longer_route_is_believed_after_the_memory_has_passed() {
        let mut link = Link::new(LinkConfig::default());
        run(&mut link, ms(0), 10, ms(100), ms(1));
        assert_eq!(link.base_rtt(), ms(41));
        for second in 2..60u64 {
            link.on_sent(ms(second * 1000), 1300);
            link.on_delivered(ms(second * 1000 + 90), ms(second * 1000), 1300);
        }
        assert_eq!(link.base_rtt(), ms(90));
    }

    #[test]
    fn what_one_outage_held_up_is_not_taken_for_a_longer_route() {
        let mut link = Link::new(LinkConfig::default());
        let end = run(&mut link, ms(0), 300, ms(100), ms(1));
        // Everything that was sent within 12 s arrives at its end, as where a mobile link stops.
        let back = end + ms(12_000);
        for number in 0..40 {
            let sent = end + ms(100 * number);
            link.on_sent(sent, 1300);
            link.on_delivered(back, sent, 1300);
        }
        assert_eq!(link.base_rtt(), ms(41));
        let end = run(&mut link, back, 300, ms(100), ms(1));
        assert!(link.base_rtt() == ms(41) && end > back);
    }
}
