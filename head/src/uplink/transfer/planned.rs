//! Frames whose packets are encoded when they are sent, at the level and up to the place that the planner chooses.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_codec::LevelId;
use narrows_policy::{Chunk, DropReason, Link, Planner, PlannerConfig, Step, Waiting};
use narrows_wire::{Payload, Timings, Truncatable};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{super::congestion::LinkState, Transfer};
use crate::{
    Error,
    config::Purpose,
    error::Chain,
    frame::{Encoded, Frame, Load, Outcome},
    policy::Levels,
    stage::{LevelEncoder, TruncatablePacket},
};

/// How far one reply moves the estimate of the server's time.
const WEIGHT: f64 = 0.2;

/// The server's time that is assumed before the first reply.
const SERVER_TIME: Duration = Duration::from_millis(30);

/// What planned frames need over a whole run, whatever becomes of connections.
#[derive(Debug)]
pub(crate) struct Planning {
    encoder: LevelEncoder,
    levels: Levels,
    purpose: Purpose,
    /// Mean time from the arrival of a packet to the departure of the reply, in seconds.
    server_time: f64,
}

/// The planned frames of one connection that are not sent to their ends.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    planning: &'a mut Planning,
    pub(super) link: Arc<LinkState>,
    planner: Planner,
    /// Frames of which nothing has been sent, by their numbers.
    waiting: BTreeMap<u64, Frame<Encoded>>,
    writing: Option<Writing>,
    /// When to ask the planner again although nothing has happened.
    pub(super) wake: Option<Instant>,
}

/// The request that is being written.
#[derive(Debug)]
struct Writing {
    frame: u64,
    request: u64,
    bytes: Vec<u8>,
    /// Where the packet begins in the bytes.
    packet: usize,
    /// Dropping it ends the stream.
    chunks: UnboundedSender<Vec<u8>>,
}

impl Planning {
    pub(crate) fn new(encoder: LevelEncoder, levels: Levels, purpose: Purpose) -> Self {
        Planning { encoder, levels, purpose, server_time: SERVER_TIME.as_secs_f64() }
    }

    /// Encodes a frame at a level. The size of the packet is taken note of.
    fn encode(&mut self, frame: &Frame<Encoded>, level: LevelId) -> Result<TruncatablePacket, Error> {
        let Load::Latent(latent) = &frame.stage.load else {
            return Err(Error::usage("--level", "the frame was encoded before"));
        };
        let packet = self.encoder.encode(latent, level)?;
        self.levels.observe(level, packet.ends.last().copied().unwrap_or_default());
        Ok(packet)
    }

    fn server_time(&self) -> Duration {
        Duration::from_secs_f64(self.server_time)
    }
}

impl<'a> Planned<'a> {
    pub(super) fn new(planning: &'a mut Planning, link: Arc<LinkState>) -> Self {
        let waiting = match planning.purpose {
            Purpose::Latency => Waiting::Newest,
            Purpose::Accuracy => Waiting::All,
        };
        let planner = Planner::new(PlannerConfig { waiting, ..PlannerConfig::default() });
        Planned { planning, link, planner, waiting: BTreeMap::new(), writing: None, wake: None }
    }

    /// Adds a frame; gives it back if it cannot be planned.
    pub(super) fn add(&mut self, now: Instant, frame: Frame<Encoded>) -> Option<Frame<Encoded>> {
        let Some(ladder) = self.planning.levels.ladder() else { return Some(frame) };
        let due = self.link.time(self.due(&frame));
        self.planner.capture(self.link.time(now), frame.id.0, due, ladder);
        self.waiting.insert(frame.id.0, frame);
        None
    }

    /// When the bytes of a frame must be at the server, so that the answer is here by the frame's deadline.
    fn due(&self, frame: &Frame<Encoded>) -> Instant {
        let way_back = self.link.with(Link::base_rtt) / 2;
        let after = way_back + self.planning.server_time();
        frame.plan.deadline.checked_sub(after).unwrap_or(frame.captured_at)
    }

    /// Whether a frame waits to be sent.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes out the frames of which nothing has been sent: all of them, or those for which this is true.
    pub(super) fn take_waiting(
        &mut self,
        mut wanted: impl FnMut(&Frame<Encoded>) -> bool,
    ) -> Vec<Frame<Encoded>> {
        let taken: Vec<_> =
            self.waiting.extract_if(.., |_, frame| wanted(frame)).map(|(_, frame)| frame).collect();
        taken.iter().for_each(|frame| self.planner.remove(frame.id.0));
        taken
    }

    /// Takes note that a request has ended, in whatever way.
    pub(super) fn ended(&mut self, request: u64) {
        if let Some(writing) = self.writing.take_if(|writing| writing.request == request) {
            self.planner.remove(writing.frame);
        }
    }

    /// Takes note of the server's time for a frame.
    pub(super) fn answered(&mut self, timings: &Timings) {
        let took = timings.decode + timings.queue + timings.infer + timings.answer;
        self.planning.server_time += WEIGHT * (took.as_secs_f64() - self.planning.server_time);
    }
}

impl Transfer<'_> {
    /// Does what the planner says until it waits for something.
    pub(super) fn send_planned(&mut self) {
        let Some(mut planned) = self.planned.take() else { return };
        // While the server takes no further frame, none is begun.
        while planned.writing.is_some() || self.session.client.room() > 0 {
            let now = Instant::now();
            let time = planned.link.time(now);
            let planner = &mut planned.planner;
            match planned.link.with(|link| planner.next(time, link)) {
                Step::Encode { frame, level, .. } => self.begin(&mut planned, frame, LevelId(level)),
                Step::Send(chunk) => self.write(&mut planned, chunk),
                Step::Cut { .. } => planned.writing = None,
                Step::Drop { frame, reason } => {
                    if let Some(frame) = planned.waiting.remove(&frame) {
                        self.drop_planned(frame, reason);
                    }
                }
                Step::Idle { until } => {
                    planned.wake = until.map(|until| planned.link.instant(until));
                    break;
                }
            }
        }
        self.planned = Some(planned);
    }

    /// Begins the request of a frame, in the place of the one that has been begun for it before.
    fn begin(&mut self, planned: &mut Planned<'_>, id: u64, level: LevelId) {
        let before = planned.writing.take_if(|writing| writing.frame == id);
        let frame = match before {
            None => planned.waiting.remove(&id),
            Some(before) => {
                self.session.client.abandon(before.request);
                self.in_flight.remove(&before.request).map(|request| request.frame)
            }
        };
        let Some(mut frame) = frame else { return planned.planner.remove(id) };
        let packet = match planned.planning.encode(&frame, level) {
            Ok(packet) => packet,
            Err(error) => {
                planned.planner.remove(id);
                return self.queue.finish(frame, Outcome::Failed(Chain(&error).to_string()));
            }
        };
        planned.planner.encoded(&packet.ends);
        let now = Instant::now();
        let stats = &mut frame.stage.stats;
        (stats.packet_bytes, stats.level, stats.coding) =
            (packet.packet.len(), Some(level), Some(packet.mode));
        stats.timings.encode += packet.took;
        stats.encoded_at = now;
        // The first byte arrives when what is before it has.
        let queue = planned.link.with(|link| {
            let queue = Duration::try_from_secs_f64(link.in_flight() as f64 / link.rate());
            link.base_rtt() / 2 + queue.unwrap_or_default()
        });
        let wait = planned.due(&frame).saturating_duration_since(now + queue);
        let whole = packet.packet.len();
        let payload = Payload::Truncatable(Truncatable { wait, packet: packet.packet });
        if let Some((request, bytes, chunks)) = self.open(now, frame, payload) {
            let packet = bytes.len() - whole;
            planned.writing = Some(Writing { frame: id, request, bytes, packet, chunks });
        } else {
            planned.planner.remove(id);
        }
    }

    /// Begins a request; without one, the frame has ended.
    fn open(
        &mut self,
        now: Instant,
        frame: Frame<Encoded>,
        payload: Payload,
    ) -> Option<(u64, Vec<u8>, UnboundedSender<Vec<u8>>)> {
        match self.request(now, &frame, payload) {
            Ok((request, bytes)) => {
                let (chunks, receiver) = unbounded_channel();
                self.start(now, request, frame, 0, receiver);
                Some((request, bytes, chunks))
            }
            Err(reason) => {
                self.queue.finish(frame, Outcome::Failed(reason));
                None
            }
        }
    }

    fn write(&mut self, planned: &mut Planned<'_>, chunk: Chunk) {
        let Some(writing) = planned.writing.as_mut().filter(|writing| writing.frame == chunk.frame) else {
            return planned.planner.remove(chunk.frame);
        };
        let begin = if chunk.offset == 0 { 0 } else { writing.packet + chunk.offset as usize };
        let end = writing.packet + (chunk.offset + chunk.bytes) as usize;
        let bytes = writing.bytes[begin..end].to_vec();
        planned.link.written(Instant::now(), u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        if let Some(request) = self.in_flight.get_mut(&writing.request) {
            request.sent = end;
        }
        // The request's task ends when the frame does, and then the bytes are of no use.
        writing.chunks.send(bytes).ok();
        if chunk.last {
            planned.writing = None;
        }
    }

    /// Ends a frame of which nothing was sent.
    fn drop_planned(&mut self, frame: Frame<Encoded>, reason: DropReason) {
        let cause = match reason {
            DropReason::Replaced => "a newer frame was captured before it could be sent",
            DropReason::PassedOver => "the link has time for a newer frame only",
            DropReason::Expired => "the link had no time for it within its budget",
        };
        match self.fallback.filter(|_| reason != DropReason::Replaced) {
            Some(fallback) => fallback.answer(frame, cause.into()),
            None => self.queue.finish(frame, Outcome::Failed(format!("not sent: {cause}"))),
        }
    }
}
