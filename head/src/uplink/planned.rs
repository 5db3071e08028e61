//! Frames whose packets are encoded when they are sent, at the level and up to the place that the planner chooses.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use narrows_codec::LevelId;
use narrows_policy::{Entry, FrameInfo, Link, Planner, PlannerConfig, ServerTime, Step};
use narrows_wire::Timings;
use tokio::sync::mpsc::UnboundedSender;

use super::{congestion::LinkState, decisions::DecisionLog};
use crate::{
    Error,
    frame::{Encoded, Frame, Load},
    policy::{Levels, Spending},
    stage::{LevelEncoder, TruncatablePacket},
};

/// What planned frames need over a whole run, whatever becomes of connections.
#[derive(Debug)]
pub(crate) struct Planning {
    encoder: LevelEncoder,
    levels: Levels,
    config: PlannerConfig,
    server: ServerTime,
    /// What frames cost, where energy is to be saved.
    spending: Option<Arc<Spending>>,
    /// Where observations and decisions are recorded, if they are.
    log: Option<DecisionLog>,
}

/// The planned frames of one connection that are not sent to their ends.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub(super) planning: &'a mut Planning,
    pub(super) link: Arc<LinkState>,
    planner: Planner,
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
    pub(crate) fn new(
        encoder: LevelEncoder,
        levels: Levels,
        config: PlannerConfig,
        spending: Option<Arc<Spending>>,
        log: Option<DecisionLog>,
    ) -> Self {
        Planning { encoder, levels, config, server: ServerTime::default(), spending, log }
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
}

impl<'a> Planned<'a> {
    pub(super) fn new(planning: &'a mut Planning, link: Arc<LinkState>) -> Self {
        let planner = Planner::new(planning.config);
        if let Some(log) = &planning.log {
            log.begin();
            link.record(Some(log.clone()));
        }
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
        let (at, last) = (self.link.time(now), self.link.time(last_answer));
        let due = self.link.with(now, |link| self.planning.server.due(last, link));
        let source = self.source(frame.origin.source().unwrap_or_default());
        let computed = frame.stage.stats.timings.sum();
        let info = FrameInfo { id: frame.id.0, source, due, computed, ladder };
        self.note(|| Entry::Captured { at, last_answer: last, frame: info.clone() });
        self.planner.capture(at, info);
        self.waiting.insert(frame.id.0, frame);
        None
    }

    /// What is to be done next.
    pub(super) fn next(&mut self, now: Instant) -> Step {
        let (at, log, server) = (self.link.time(now), self.planning.log.as_ref(), self.planning.server);
        let planner = &mut self.planner;
        self.link.with(now, |link| {
            // Without frames there is nothing to decide.
            let Some(log) = log.filter(|_| planner.is_busy()) else { return planner.next(at, link) };
            log.note_state(|| Entry::State {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                link: link.state(),
                planner: Box::new(planner.clone()),
                server,
            });
            let step = planner.next(at, link);
            log.note(|| Entry::Decided { at, step });
            step
        })
    }

    /// Takes note of where the packet that was asked for last may end.
    pub(super) fn encoded(&mut self, ends: Vec<u32>) {
        self.planner.encoded(&ends);
        self.note(|| Entry::Encoded { ends });
    }

    /// Forgets a frame, whatever became of it.
    pub(super) fn remove(&mut self, frame: u64) {
        self.planner.remove(frame);
        self.note(|| Entry::Removed { frame });
    }

    fn note(&self, entry: impl FnOnce() -> Entry) {
        if let Some(log) = &self.planning.log {
            log.note(entry);
        }
    }

    /// When the bytes of a frame must be at the server, so that the answer is here at `last_answer`.
    pub(super) fn due(&self, now: Instant, last_answer: Instant) -> Instant {
        let last = self.link.time(last_answer);
        self.link.instant(self.link.with(now, |link| self.planning.server.due(last, link)))
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
        taken.iter().for_each(|frame| self.remove(frame.id.0));
        taken
    }

    /// Takes note of what it cost to send so many bytes of a frame.
    pub(super) fn spend(&self, now: Instant, frame: &mut Frame<Encoded>, bytes: usize) {
        if let Some(spending) = &self.planning.spending {
            frame.decisions.sending += spending.send(bytes, self.link.with(now, Link::rate));
        }
    }

    /// Takes note that a request has ended, in whatever way.
    pub(super) fn ended(&mut self, request: u64) {
        self.behind.take_if(|writing| writing.request == request);
        if let Some(writing) = self.writing.take_if(|writing| writing.request == request) {
            self.remove(writing.frame);
        }
    }

    /// Takes note of the server's time for a frame.
    pub(super) fn answered(&mut self, timings: &Timings) {
        let took = timings.decode + timings.queue + timings.infer + timings.answer;
        self.planning.server.observe(took);
        self.note(|| Entry::Answered { took });
    }
}

impl Drop for Planned<'_> {
    fn drop(&mut self) {
        // What is still observed of this connection says nothing about the next one.
        self.link.record(None);
    }
}
