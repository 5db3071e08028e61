//! Frames from the spool, which are sent behind those that are captured now.
#![expect(clippy::disallowed_methods, reason = "bytes are written when the link is nearly empty")]

use std::time::{Duration, Instant};

use super::{
    super::{
        planned::{Planned, Writing},
        spool::SPOOLED_IN_FLIGHT,
    },
    Transfer,
};
use crate::frame::{Encoded, Frame, Load};

/// How much of the link's time frames from the spool may take before a frame that is captured meanwhile.
const BEHIND: Duration = Duration::from_millis(20);

impl Transfer<'_> {
    /// Whether a frame from the spool may be sent beside what is in flight.
    pub(super) fn may_take_spooled(&self) -> bool {
        let spooled = self.in_flight.values().filter(|request| request.frame.is_from_spool()).count();
        let is_writing = self.planned.as_ref().is_some_and(|planned| planned.behind.is_some());
        // One place stays free for a frame that is captured meanwhile; a server that has only one gives it where nothing is in
        // flight.
        let kept = usize::from(!self.in_flight.is_empty());
        spooled < SPOOLED_IN_FLIGHT
            && !is_writing
            && self.queue.is_empty()
            && self.session.client.room() > kept
    }

    /// Begins the request of a frame from the spool. Where frames that were captured since it was asked for have taken all
    /// places, it stays on disk.
    pub(super) fn send_spooled(&mut self, frame: Frame<Encoded>) {
        if self.session.client.room() == 0 {
            return;
        }
        let Load::Payload(payload) = &frame.stage.load else { return };
        let payload = payload.clone();
        let Some((request, bytes, chunks)) = self.open(Instant::now(), frame, payload) else { return };
        match &mut self.planned {
            // Its bytes are written one datagram at a time, so that they never hold up a frame that is captured meanwhile.
            Some(planned) => {
                planned.behind = Some(Writing { frame: u64::MAX, request, bytes, packet: 0, chunks });
            }
            None => {
                if let Some(sent) = self.in_flight.get_mut(&request) {
                    sent.sent = bytes.len();
                }
                // The request's task ends when the frame does.
                chunks.send(bytes).ok();
            }
        }
    }

    /// Writes bytes of a frame from the spool while the link is nearly empty.
    pub(super) fn write_behind(&mut self, planned: &mut Planned<'_>) {
        while let Some(mut writing) = planned.behind.take() {
            let now = Instant::now();
            let (free, datagram) = planned.link.with(now, |link| {
                (link.in_flight() as f64 <= link.rate() * BEHIND.as_secs_f64(), link.datagram() as usize)
            });
            if !free {
                planned.behind = Some(writing);
                return;
            }
            let end = writing.bytes.len().min(writing.packet + datagram);
            let bytes = writing.bytes[writing.packet..end].to_vec();
            planned.link.written(now, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            if let Some(request) = self.in_flight.get_mut(&writing.request) {
                request.sent = end;
            }
            // The request's task ends when the frame does, and then the bytes are of no use.
            writing.chunks.send(bytes).ok();
            writing.packet = end;
            if end < writing.bytes.len() {
                planned.behind = Some(writing);
            }
        }
    }
}
