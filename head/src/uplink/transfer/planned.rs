//! Frames whose level is chosen when they are sent: what the planner says is done.
#![expect(clippy::disallowed_methods, reason = "what is sent next depends on the time that is left")]

use std::time::{Duration, Instant};

use narrows_codec::LevelId;
use narrows_policy::{Chunk, DropReason, Step};
use narrows_wire::{Payload, Truncatable};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{
    super::planned::{Planned, Writing},
    InFlight, Transfer, last_answer,
};
use crate::{
    error::Chain,
    frame::{Encoded, Frame, Outcome},
};

impl Transfer<'_> {
    /// Does what the planner says until it waits for something.
    pub(super) fn send_planned(&mut self) {
        let Some(mut planned) = self.planned.take() else { return };
        planned.wake = None;
        // While the server takes no further frame, none is begun.
        while planned.writing.is_some() || self.session.client.room() > 0 {
            match planned.next(Instant::now()) {
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
        if planned.writing.is_none() {
            self.write_behind(&mut planned);
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
                self.in_flight.remove(&before.request).map(|InFlight { mut frame, sent, .. }| {
                    planned.spend(Instant::now(), &mut frame, sent);
                    frame
                })
            }
        };
        let Some(mut frame) = frame else { return planned.remove(id) };
        let packet = match planned.planning.encode(&frame, level) {
            Ok(packet) => packet,
            Err(error) => {
                planned.remove(id);
                return self.queue.reject(frame, Chain(&error).to_string());
            }
        };
        planned.encoded(packet.ends);
        let now = Instant::now();
        let stats = &mut frame.stage.stats;
        (stats.packet_bytes, stats.level, stats.coding) =
            (packet.packet.len(), Some(level), Some(packet.mode));
        stats.timings.encode += packet.took;
        stats.encoded_at = now;
        // The first byte arrives when what is before it has.
        let queue = planned.link.with(now, |link| {
            let queue = Duration::try_from_secs_f64(link.in_flight() as f64 / link.rate());
            link.base_rtt() / 2 + queue.unwrap_or_default()
        });
        let due = planned.due(now, last_answer(self.fallback, &frame));
        let wait = due.saturating_duration_since(now + queue);
        let whole = packet.packet.len();
        let payload = Payload::Truncatable(Truncatable { wait, packet: packet.packet });
        if let Some((request, bytes, chunks)) = self.open(now, frame, payload) {
            let packet = bytes.len() - whole;
            planned.writing = Some(Writing { frame: id, request, bytes, packet, chunks });
        } else {
            planned.remove(id);
        }
    }

    /// Begins a request; without one, the frame has ended.
    pub(super) fn open(
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
                self.queue.reject(frame, reason);
                None
            }
        }
    }

    fn write(&mut self, planned: &mut Planned<'_>, chunk: Chunk) {
        let Some(writing) = planned.writing.as_mut().filter(|writing| writing.frame == chunk.frame) else {
            return planned.remove(chunk.frame);
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
            DropReason::Replaced => return self.queue.finish(frame, Outcome::Dropped),
            DropReason::PassedOver => "the link has time for a newer frame only",
            DropReason::Expired => "the link had no time for it within its budget",
        };
        match self.fallback {
            Some(fallback) => fallback.answer(frame, cause.into()),
            None => self.queue.finish(frame, Outcome::Failed(format!("not sent: {cause}"))),
        }
    }
}
