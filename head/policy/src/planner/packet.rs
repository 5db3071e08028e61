//! A frame that may be sent, and its packet while it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Ladder, Rung, nanos};

/// A frame that may be sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameInfo {
    /// Its number, which is that of no other frame.
    pub id: u64,
    /// The number of its source: a frame is replaced by newer ones of the same source alone.
    pub source: usize,
    /// When its bytes must be at the server: the deadline less the server's work and the reply's way back.
    #[serde(with = "nanos")]
    pub due: Duration,
    /// For how long this device has computed on it.
    #[serde(with = "nanos")]
    pub computed: Duration,
    /// Its sizes, as far as they are known, and what they are worth.
    pub ladder: Ladder,
}

/// A packet that is being sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PacketRecord", into = "PacketRecord")]
pub(super) struct Packet {
    pub(super) frame: FrameInfo,
    pub(super) attempt: u32,
    /// The rung of the frame's ladder, by its index.
    pub(super) rung: usize,
    /// The packet's own cut points.
    pub(super) cuts: Rung,
    pub(super) sent: u32,
}

/// A [`Packet`] in a recorded state, before its numbers are checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PacketRecord {
    frame: FrameInfo,
    attempt: u32,
    rung: usize,
    cuts: Rung,
    sent: u32,
}

impl TryFrom<PacketRecord> for Packet {
    type Error = &'static str;

    fn try_from(record: PacketRecord) -> Result<Self, Self::Error> {
        let PacketRecord { frame, attempt, rung, cuts, sent } = record;
        match rung < frame.ladder.rungs().len() && sent < cuts.bytes() {
            true => Ok(Packet { frame, attempt, rung, cuts, sent }),
            false => Err("a packet that is being sent has a level of its frame, and bytes left"),
        }
    }
}

impl From<Packet> for PacketRecord {
    fn from(packet: Packet) -> Self {
        let Packet { frame, attempt, rung, cuts, sent } = packet;
        PacketRecord { frame, attempt, rung, cuts, sent }
    }
}

impl Packet {
    /// The rung of the frame's ladder.
    pub(super) fn rung(&self) -> &Rung {
        &self.frame.ladder.rungs()[self.rung]
    }

    /// Begins another packet of the frame.
    pub(super) fn begin(&mut self, attempt: u32, rung: usize) {
        (self.attempt, self.rung, self.sent) = (attempt, rung, 0);
        self.cuts = self.rung().clone();
    }
}
