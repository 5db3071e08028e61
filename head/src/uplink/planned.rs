//! Frames whose packets are encoded when they are sent, at the level and up to the place that the planner chooses.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_codec::LevelId;
use narrows_policy::{FrameInfo, Link, Planner, PlannerConfig, Waiting};
use narrows_wire::Timings;
use tokio::sync::mpsc::UnboundedSender;

use super::congestion::LinkState;
use crate::{
    Error,
    config::Purpose,
    frame::{Encoded, Frame, Load},
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
    pub(super) planning: &'a mut Planning,
    pub(super) link: Arc<LinkState>,
    pub(super) planner: Planner,
    /// The names of the frames' sources.
    sources: Vec<String>,
    /// Frames of which nothing has been sent, by their numbers.
    pub(super) waiting: BTreeMap<u64, Frame<Encoded>>,
    pub(super) writing: Option<Writing>,
    /// The request of a frame from the spool, which is written where the link has nothing else to do.
    pub(super) behind: Option<Writing>,
    /// When to ask the planner again although nothing has happened.
    pub(super) wake: Option<Instant>,
}

/// The request that is being written.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) frame: u64,
    pub(super) request: u64,
    pub(super) bytes: Vec<u8>,
    /// Where the packet begins in the bytes.
    pub(super) packet: usize,
    /// Dropping it ends the stream.
    pub(super) chunks: UnboundedSender<Vec<u8>>,
}

impl Planning {
    pub(crate) fn new(encoder: LevelEncoder, levels: Levels, purpose: Purpose) -> Self {
        Planning { encoder, levels, purpose, server_time: SERVER_TIME.as_secs_f64() }
    }

    /// Encodes a frame at a level. The size of the packet is taken note of.
    pub(super) fn encode(
        &mut self,
        frame: &Frame<Encoded>,
        level: LevelId,
    ) -> Result<TruncatablePacket, Error> {
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
        let waits = match planning.purpose {
            Purpose::Latency => Waiting::Newest,
            Purpose::Accuracy => Waiting::All,
        };
        let planner = Planner::new(PlannerConfig { waiting: waits, ..PlannerConfig::default() });
        let (sources, waiting) = (Vec::new(), BTreeMap::new());
        Planned { planning, link, planner, sources, waiting, writing: None, behind: None, wake: None }
    }

    /// Adds a frame whose answer must be here by `last_answer`; gives it back if it cannot be planned.
    pub(super) fn add(
        &mut self,
        now: Instant,
        frame: Frame<Encoded>,
        last_answer: Instant,
    ) -> Option<Frame<Encoded>> {
        let Some(ladder) = self.planning.levels.ladder() else { return Some(frame) };
        let due = self.link.time(self.due(now, last_answer));
        let source = self.source(frame.origin.source().unwrap_or_default());
        self.planner.capture(self.link.time(now), FrameInfo { id: frame.id.0, source, due, ladder });
        self.waiting.insert(frame.id.0, frame);
        None
    }

    /// When the bytes of a frame must be at the server, so that the answer is here at `last_answer`.
    pub(super) fn due(&self, now: Instant, last_answer: Instant) -> Instant {
        let way_back = self.link.with(now, Link::base_rtt) / 2;
        let after = way_back + self.planning.server_time();
        last_answer.checked_sub(after).unwrap_or(last_answer)
    }

    /// The number of a source, by its name.
    fn source(&mut self, name: &str) -> usize {
        self.sources.iter().position(|known| known == name).unwrap_or_else(|| {
            self.sources.push(name.to_owned());
            self.sources.len() - 1
        })
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
        self.behind.take_if(|writing| writing.request == request);
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
