//! The choice of the next datagram: the action with the highest expected value.

use std::{collections::VecDeque, time::Duration};

use crate::{CutPoint, Forecast, Ladder, Link, Rung};

/// How much more another action must be worth before a packet that is being sent is given up for it. Without it, estimates
/// that waver would begin a frame again and again.
const GIVE_UP_FOR: f64 = 0.03;

/// The price of a byte over what another frame could earn with it when the link stays as it is. Bytes that the link carries
/// later than expected delay every frame after them, while bytes that were not sent are missed by one frame only.
const CAUTION: f64 = 1.5;

/// Which frames wait while another one is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The newest of each source: a frame that waits is replaced by the next one. For live sources.
    Newest,
    /// All until their deadlines, the oldest first. For sources of which every frame counts.
    All,
}

/// Settings of [`Planner`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannerConfig {
    /// Which frames wait.
    pub waiting: Waiting,
    /// The time between captures assumed before there have been two.
    pub interval: Duration,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        PlannerConfig { waiting: Waiting::Newest, interval: Duration::from_millis(100) }
    }
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Encode this frame at this level, whatever was sent of it before. What is then known of the packet is told by
    /// [`Planner::encoded`]; without that the ladder's sizes are taken for its.
    Encode {
        /// The frame.
        frame: u64,
        /// From 0 for each frame; a higher one replaces what was sent of the frame before.
        attempt: u32,
        /// Rate level of the packet.
        level: u8,
    },
    /// Send these bytes, and tell [`Link::on_sent`] of it.
    Send(Chunk),
    /// End the packet of this frame after what has been sent; the server answers from that.
    Cut {
        /// The frame.
        frame: u64,
        /// Bytes of its packet that have been sent.
        bytes: u32,
    },
    /// Give up a frame of which nothing has been sent.
    Drop {
        /// The frame.
        frame: u64,
        /// The reason.
        reason: DropReason,
    },
    /// Nothing until an observation, a capture, or this time if there is one.
    Idle {
        /// The end of the first frame that waits.
        until: Option<Duration>,
    },
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The frame.
    pub frame: u64,
    /// From 0 for each frame; a higher one replaces what was sent of the frame before.
    pub attempt: u32,
    /// Rate level of the packet.
    pub level: u8,
    /// Where the part begins in the packet.
    pub offset: u32,
    /// Its length, at most a datagram.
    pub bytes: u32,
    /// Whether the packet is whole with it.
    pub last: bool,
}

/// Why a frame was given up before it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// A newer frame was captured.
    Replaced,
    /// A newer frame is worth more.
    PassedOver,
    /// Nothing of it could arrive in time any more.
    Expired,
}

/// Chooses what is sent next, one datagram at a time.
#[derive(Clone, Debug)]
pub struct Planner {
    config: PlannerConfig,
    waiting: VecDeque<FrameInfo>,
    current: Option<Packet>,
    captured_at: Option<Duration>,
    /// Mean time between captures, in seconds.
    interval: f64,
}

/// A frame that may be sent.
#[derive(Clone, Debug)]
pub struct FrameInfo {
    /// Its number, which is that of no other frame.
    pub id: u64,
    /// The number of its source: a frame is replaced by newer ones of the same source alone.
    pub source: usize,
    /// When its bytes must be at the server: the deadline less the server's work and the reply's way back.
    pub due: Duration,
    /// Its sizes, as far as they are known, and what they are worth.
    pub ladder: Ladder,
}

/// A packet that is being sent.
#[derive(Clone, Debug)]
struct Packet {
    frame: FrameInfo,
    attempt: u32,
    /// The rung of the frame's ladder, by its index.
    rung: usize,
    /// The packet's own cut points.
    cuts: Rung,
    sent: u32,
}

/// What expected values depend on at one moment.
struct View {
    now: Duration,
    forecast: Forecast,
    /// Time from the sending of a byte over an empty link to its arrival.
    one_way: Duration,
    /// Bytes before the next one.
    ahead: u64,
    datagram: u32,
    interval: f64,
    rate: f64,
}

/// What the link will do for one frame.
struct Outlook {
    /// Value of a byte that another frame could have.
    price: f64,
    /// The chances that at least 0, 1, … datagrams are delivered in time.
    chances: Vec<f64>,
    datagram: u32,
}

impl Planner {
    /// A planner without frames.
    #[must_use]
    pub fn new(config: PlannerConfig) -> Self {
        let interval = config.interval.as_secs_f64();
        Planner { config, waiting: VecDeque::new(), current: None, captured_at: None, interval }
    }

    /// Adds a frame.
    pub fn capture(&mut self, now: Duration, frame: FrameInfo) {
        if let Some(before) = self.captured_at.replace(now) {
            self.interval += (now.saturating_sub(before).as_secs_f64() - self.interval) / 8.0;
        }
        self.waiting.push_back(frame);
    }

    /// Whether a packet is being sent or a frame waits.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.current.is_some() || !self.waiting.is_empty()
    }

    /// The next step; to be called until it is [`Step::Idle`].
    pub fn next(&mut self, now: Duration, link: &Link) -> Step {
        let view = View::new(now, link, self.interval);
        // Due times need not ascend: they follow the estimates of their moments.
        if let Some(expired) = self.waiting.iter().position(|frame| frame.due <= now)
            && let Some(frame) = self.waiting.remove(expired)
        {
            return Step::Drop { frame: frame.id, reason: DropReason::Expired };
        }
        if self.config.waiting == Waiting::Newest
            && let Some((older, newer)) = self.replaced()
        {
            // The newer one takes the place of the older, so that sources that capture often do not come first.
            self.waiting.swap(older, newer);
            let Some(frame) = self.waiting.remove(newer) else { return self.idle() };
            return Step::Drop { frame: frame.id, reason: DropReason::Replaced };
        }
        if let Some(packet) = self.current.take_if(|packet| packet.frame.due <= now) {
            return Step::Cut { frame: packet.frame.id, bytes: packet.sent };
        }
        if !link.may_send() {
            return self.idle();
        }
        if let Some(packet) = &mut self.current {
            // What was decided to be sent is begun before it is thought over.
            if packet.sent == 0 {
                return self.send(view.datagram);
            }
            let (again, rung) = view.best(&packet.frame);
            if rung != packet.rung && again > view.whole(packet) + GIVE_UP_FOR {
                packet.begin(packet.attempt + 1, rung);
                return packet.encode();
            } else if view.rest(packet, packet.sent) < 0.0 {
                let cut = Step::Cut { frame: packet.frame.id, bytes: packet.sent };
                self.current = None;
                return cut;
            }
        } else {
            let choices = self.waiting.iter().map(|frame| view.best(frame)).enumerate();
            let mut choice =
                choices.map(|(index, (value, rung))| (index, value, rung)).find(|(_, value, _)| *value > 0.0);
            // An idle link costs nothing, and only what is sent shows that it is up again.
            if choice.is_none()
                && view.ahead == 0
                && let Some(frame) = self.waiting.back()
            {
                choice = Some((self.waiting.len() - 1, 0.0, frame.ladder.smallest()));
            }
            let Some((index, _, rung)) = choice else { return self.idle() };
            if index > 0
                && let Some(frame) = self.waiting.pop_front()
            {
                return Step::Drop { frame: frame.id, reason: DropReason::PassedOver };
            }
            let Some(frame) = self.waiting.pop_front() else { return self.idle() };
            let cuts = frame.ladder.rungs()[rung].clone();
            return self.current.insert(Packet { frame, attempt: 0, rung, cuts, sent: 0 }).encode();
        }
        self.send(view.datagram)
    }

    /// The first frame behind which a newer one of its source waits, and that one.
    fn replaced(&self) -> Option<(usize, usize)> {
        let newer = |(index, frame): (usize, &FrameInfo)| {
            let mut behind = self.waiting.range(index + 1..);
            let distance = behind.position(|other| other.source == frame.source)?;
            Some((index, index + 1 + distance))
        };
        self.waiting.iter().enumerate().find_map(newer)
    }

    /// Takes note of where the packet that was asked for last may end, the whole packet last. Has no effect unless the bytes
    /// ascend from 1. A packet that cannot be cut has one place.
    pub fn encoded(&mut self, bytes: &[u32]) {
        let Some(packet) = &mut self.current else { return };
        let estimated = packet.rung().cut_points();
        // A packet that cannot be cut has the whole packet's value only.
        let values = &estimated[estimated.len().saturating_sub(bytes.len())..];
        let cuts = bytes.iter().zip(values).map(|(&bytes, estimated)| CutPoint { bytes, ..*estimated });
        if let Ok(cuts) = Rung::new(packet.cuts.level(), cuts.collect()) {
            packet.cuts = cuts;
        }
    }

    /// Forgets a frame, whatever became of it.
    pub fn remove(&mut self, id: u64) {
        self.waiting.retain(|frame| frame.id != id);
        self.current.take_if(|packet| packet.frame.id == id);
    }

    fn send(&mut self, datagram: u32) -> Step {
        let Some(packet) = &mut self.current else { return self.idle() };
        let bytes = datagram.min(packet.cuts.bytes() - packet.sent);
        let chunk = Chunk {
            frame: packet.frame.id,
            attempt: packet.attempt,
            level: packet.cuts.level(),
            offset: packet.sent,
            bytes,
            last: packet.sent + bytes == packet.cuts.bytes(),
        };
        packet.sent += bytes;
        if chunk.last {
            self.current = None;
        }
        Step::Send(chunk)
    }

    fn idle(&self) -> Step {
        let frames = self.waiting.iter().chain(self.current.iter().map(|packet| &packet.frame));
        Step::Idle { until: frames.map(|frame| frame.due).min() }
    }
}

impl View {
    fn new(now: Duration, link: &Link, interval: f64) -> Self {
        View {
            now,
            forecast: link.forecast(now),
            one_way: link.base_rtt() / 2,
            ahead: link.in_flight(),
            datagram: link.datagram(),
            interval,
            rate: link.rate(),
        }
    }

    /// The time in which the link must take the frame's bytes, or `None` if nothing that is sent now arrives in time.
    fn time_left(&self, frame: &FrameInfo) -> Option<Duration> {
        frame.due.checked_sub(self.now + self.one_way)
    }

    /// The level with the highest expected value for a frame of which nothing has been sent, and that value.
    fn best(&self, frame: &FrameInfo) -> (f64, usize) {
        let Some(outlook) = self.outlook(frame, None) else { return (-1.0, 0) };
        let values = frame.ladder.rungs().iter().map(|rung| outlook.gain(rung, 0, 0, self.ahead)).enumerate();
        let best = values.max_by(|a, b| a.1.total_cmp(&b.1));
        best.map_or((-1.0, 0), |(rung, value)| (value, rung))
    }

    /// The expected value of a packet that is sent on to its end.
    fn whole(&self, packet: &Packet) -> f64 {
        let arrived = self.arrived(packet);
        packet.cuts.value_at(arrived) + self.rest(packet, arrived)
    }

    /// The expected gain from the bytes of a packet after `from`.
    fn rest(&self, packet: &Packet, from: u32) -> f64 {
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
        let datagrams = (self.ahead + u64::from(largest)).div_ceil(u64::from(self.datagram)) as usize;
        Some(Outlook {
            price: CAUTION * frame.ladder.price(self.rate * self.interval),
            chances: self.forecast.chances(datagrams + 1, time),
            datagram: self.datagram,
        })
    }
}

impl Packet {
    fn rung(&self) -> &Rung {
        &self.frame.ladder.rungs()[self.rung]
    }

    fn begin(&mut self, attempt: u32, rung: usize) {
        (self.attempt, self.rung, self.sent) = (attempt, rung, 0);
        self.cuts = self.rung().clone();
    }

    fn encode(&self) -> Step {
        Step::Encode { frame: self.frame.id, attempt: self.attempt, level: self.cuts.level() }
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
        self.chances[whole] + (self.chances[whole + 1] - self.chances[whole]) * datagrams.fract()
    }
}
