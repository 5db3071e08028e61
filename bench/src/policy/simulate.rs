//! A sender, a recorded link and a server in virtual time.

use std::{collections::VecDeque, time::Duration};

use narrows_netsim::Trace;
use narrows_policy::{
    Chunk, DropReason, FrameInfo, Ladder, Link, LinkConfig, Planner, PlannerConfig, Step, Waiting,
};

use super::scene::Scene;

/// What decides about the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// The planner, with these frames waiting.
    Auto(Waiting),
    /// The planner, with the newest frame waiting, where answers are to cost little energy.
    Saving,
    /// Every frame at the level of this index, the newest first; a frame whose deadline passes is given up.
    Fixed(usize),
}

/// Sums over a simulated run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// Sum of the frames' values.
    pub(super) value: f64,
    /// Frames with an answer.
    pub(super) answered: u64,
    /// Those of them whose packet was not whole.
    pub(super) cut: u64,
    /// Round trips of all datagrams in milliseconds, ascending.
    pub(super) rtts: Vec<f64>,
    /// Joules of all frames, by the model of the scene: of computing on each, and of what was sent while the link served it.
    pub(super) joules: f64,
}

/// A datagram on its way.
#[derive(Clone, Copy, Debug)]
struct Datagram {
    sent: Duration,
    chunk: Chunk,
}

/// What the server has of a frame.
#[derive(Clone, Copy, Debug, Default)]
struct Received {
    attempt: u32,
    level: u8,
    bytes: u32,
}

struct Simulation<'a> {
    trace: &'a Trace,
    ladder: &'a Ladder,
    scene: &'a Scene,
    planner: Planner,
    /// Whether answers are to cost little energy.
    saves: bool,
    fixed: Option<(usize, Vec<Chunk>)>,
    link: Link,
    /// The number of the trace's next packet.
    next_packet: u64,
    queue: VecDeque<Datagram>,
    /// Datagrams that have left the queue, with the times of their acknowledgements.
    delivered: VecDeque<(Duration, Datagram)>,
    received: Vec<Received>,
    /// Frames that are not computed on: where energy is saved, none is taken while another one waits.
    untaken: u64,
    /// When the last datagram left the queue.
    departed_at: Duration,
    outcome: Outcome,
}

/// Runs `sender` over all frames of `scene`.
pub(super) fn simulate(trace: &Trace, ladder: &Ladder, scene: &Scene, sender: Sender) -> Outcome {
    let waiting = match sender {
        Sender::Auto(waiting) => waiting,
        Sender::Saving | Sender::Fixed(_) => Waiting::Newest,
    };
    let energy = (sender == Sender::Saving).then_some(scene.energy);
    let config = LinkConfig { datagram: scene.packet_bytes, ..LinkConfig::default() };
    let simulation = Simulation {
        trace,
        ladder,
        scene,
        planner: Planner::new(PlannerConfig { waiting, interval: scene.interval, energy }),
        saves: energy.is_some(),
        fixed: match sender {
            Sender::Auto(_) | Sender::Saving => None,
            Sender::Fixed(rung) => Some((rung, Vec::new())),
        },
        link: Link::new(config),
        next_packet: 0,
        queue: VecDeque::new(),
        delivered: VecDeque::new(),
        received: vec![Received::default(); scene.frames as usize],
        untaken: 0,
        departed_at: Duration::ZERO,
        outcome: Outcome::default(),
    };
    simulation.run()
}

impl Simulation<'_> {
    fn run(mut self) -> Outcome {
        let end = self.scene.captured(self.scene.frames) + self.scene.budget;
        let mut captured = 0;
        loop {
            let departure = (!self.queue.is_empty()).then(|| self.trace.time(self.next_packet));
            let delivery = self.delivered.front().map(|(at, _)| *at);
            let capture = (captured < self.scene.frames).then(|| self.scene.captured(captured));
            let Some(now) = [departure, delivery, capture].into_iter().flatten().min() else { break };
            if now > end {
                break;
            }
            if departure == Some(now) {
                self.depart(now);
                continue;
            }
            if delivery == Some(now) {
                self.acknowledge(now);
            } else {
                self.capture(now, captured);
                captured += 1;
            }
            self.send(now);
        }
        self.outcome.rtts.sort_by(f64::total_cmp);
        let computing = self.scene.energy.computing * self.scene.computing.as_secs_f64();
        self.outcome.joules += computing * (self.scene.frames - self.untaken) as f64;
        for received in &self.received {
            let rung = self.ladder.rungs().iter().find(|rung| rung.level() == received.level);
            let value = rung.map_or(0.0, |rung| rung.value_at(received.bytes));
            self.outcome.value += value;
            if value > 0.0 {
                self.outcome.answered += 1;
                self.outcome.cut += u64::from(rung.is_some_and(|rung| received.bytes < rung.bytes()));
            }
        }
        self.outcome
    }

    fn depart(&mut self, now: Duration) {
        self.next_packet += 1;
        let Some(datagram) = self.queue.pop_front() else { return };
        let chunk = datagram.chunk;
        let energy = self.scene.energy;
        let served = now.saturating_sub(self.departed_at.max(datagram.sent)).as_secs_f64();
        self.outcome.joules += energy.per_byte * f64::from(chunk.bytes) + energy.sending * served;
        self.departed_at = now;
        let received = &mut self.received[chunk.frame as usize];
        if now <= self.scene.last_departure(chunk.frame) {
            if chunk.attempt > received.attempt {
                *received = Received { attempt: chunk.attempt, ..Received::default() };
            }
            if chunk.attempt == received.attempt {
                received.level = chunk.level;
                received.bytes += chunk.bytes;
            }
        }
        self.delivered.push_back((now + 2 * self.scene.one_way, datagram));
    }

    fn acknowledge(&mut self, now: Duration) {
        let Some((_, datagram)) = self.delivered.pop_front() else { return };
        self.link.on_delivered(now, datagram.sent, datagram.chunk.bytes);
        self.outcome.rtts.push(1e3 * (now - datagram.sent).as_secs_f64());
    }

    fn capture(&mut self, now: Duration, frame: u64) {
        let due = self.scene.last_departure(frame) + self.scene.one_way;
        match &mut self.fixed {
            None => {
                let ladder = self.ladder.clone();
                self.planner.capture(
                    now,
                    FrameInfo { id: frame, source: 0, due, computed: self.scene.computing, ladder },
                );
            }
            Some((rung, waiting)) => {
                let rung = &self.ladder.rungs()[*rung];
                waiting.push(Chunk {
                    frame,
                    attempt: 0,
                    level: rung.level(),
                    offset: 0,
                    bytes: rung.bytes(),
                    last: true,
                });
            }
        }
    }

    fn send(&mut self, now: Duration) {
        loop {
            let chunk = match &mut self.fixed {
                None => match self.planner.next(now, &self.link) {
                    Step::Send(chunk) => chunk,
                    Step::Drop { reason: DropReason::Replaced, .. } if self.saves => {
                        self.untaken += 1;
                        continue;
                    }
                    Step::Encode { .. } | Step::Cut { .. } | Step::Drop { .. } => continue,
                    Step::Idle { .. } => return,
                },
                Some((_, waiting)) => {
                    waiting.retain(|rest| self.scene.last_departure(rest.frame) >= now);
                    let Some(rest) = waiting.last_mut().filter(|_| self.link.may_send()) else { return };
                    let bytes = rest.bytes.min(self.scene.packet_bytes);
                    let chunk = Chunk { bytes, last: bytes == rest.bytes, ..*rest };
                    (rest.offset, rest.bytes) = (rest.offset + bytes, rest.bytes - bytes);
                    if rest.bytes == 0 {
                        waiting.pop();
                    }
                    chunk
                }
            };
            if self.queue.is_empty() {
                self.next_packet = self.next_packet.max(self.trace.first_at(now));
            }
            self.link.on_sent(now, chunk.bytes);
            self.queue.push_back(Datagram { sent: now, chunk });
        }
    }
}
