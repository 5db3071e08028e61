//! The choice of the next datagram: the action with the highest expected value.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::packet::FrameInfo;
use self::{packet::Packet, view::View};
use crate::{CutPoint, EnergyModel, Link, Rung, nanos};

mod packet;
mod view;

/// How much more another action must be worth before a packet that is being sent is given up for it. Without it, estimates
/// that waver would begin a frame again and again.
const GIVE_UP_FOR: f64 = 0.03;

/// Which frames wait while another one is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// The newest of each source: a frame that waits is replaced by the next one. For live sources.
    Newest,
    /// All until their deadlines, the oldest first. For sources of which every frame counts.
    All,
}

/// Settings of [`Planner`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannerConfig {
    /// Which frames wait.
    pub waiting: Waiting,
    /// The time between captures assumed before there have been two.
    #[serde(with = "nanos")]
    pub interval: Duration,
    /// What bytes and computing cost, where answers are to cost little energy; without it they are to be worth most.
    pub energy: Option<EnergyModel>,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        PlannerConfig { waiting: Waiting::Newest, interval: Duration::from_millis(100), energy: None }
    }
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
        #[serde(with = "nanos::optional")]
        until: Option<Duration>,
    },
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// A newer frame was captured.
    Replaced,
    /// A newer frame is worth more.
    PassedOver,
    /// Nothing of it could arrive in time any more.
    Expired,
}

/// Chooses what is sent next, one datagram at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planner {
    config: PlannerConfig,
    waiting: VecDeque<FrameInfo>,
    current: Option<Packet>,
    #[serde(with = "nanos::optional")]
    captured_at: Option<Duration>,
    /// Mean time between captures, in seconds.
    interval: f64,
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
        let view = View::new(now, link, self.interval, self.config.energy);
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
                packet.begin(packet.attempt.saturating_add(1), rung);
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

    /// Takes a step that was decided elsewhere, in place of [`Planner::next`]. One that does not fit has no effect.
    pub fn follow(&mut self, step: &Step) {
        match *step {
            Step::Encode { frame, attempt, level } => {
                let waits = self.waiting.iter().position(|waiting| waiting.id == frame);
                let (info, old) = match waits.and_then(|index| self.waiting.remove(index)) {
                    Some(info) => (info, None),
                    None => match self.current.take() {
                        Some(packet) if packet.frame.id == frame => (packet.frame.clone(), Some(packet)),
                        other => return self.current = other,
                    },
                };
                self.current = match info.ladder.rungs().iter().position(|rung| rung.level() == level) {
                    Some(rung) => {
                        let cuts = info.ladder.rungs()[rung].clone();
                        Some(Packet { frame: info, attempt, rung, cuts, sent: 0 })
                    }
                    None => old,
                };
            }
            Step::Send(chunk) => {
                let ours = self.current.as_mut().filter(|packet| packet.frame.id == chunk.frame);
                if let Some(packet) = ours {
                    packet.sent = chunk.offset.saturating_add(chunk.bytes);
                    if chunk.last || packet.sent >= packet.cuts.bytes() {
                        self.current = None;
                    }
                }
            }
            Step::Cut { frame, .. } | Step::Drop { frame, .. } => self.remove(frame),
            Step::Idle { .. } => {}
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

impl Packet {
    fn encode(&self) -> Step {
        Step::Encode { frame: self.frame.id, attempt: self.attempt, level: self.cuts.level() }
    }
}
