//! A record of observations and decisions, and deciding on it again.
//!
//! A record is complete: an [`Entry::State`] holds everything that decisions depend on, and the entries behind it hold everything
//! that changes it, in the order in which it happened. So the same policy decides the same, and another one shows where it differs.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{ExitCosts, FrameInfo, Link, LinkConfig, LinkState, Planner, ServerTime, Step, nanos};

/// One line of a record. Times are nanoseconds since the connection began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// Everything that later decisions depend on: at the beginning of a connection and of a file, and after a gap.
    State {
        /// Version of the program.
        version: String,
        /// What is known of the link.
        link: LinkState,
        /// The frames, and the settings of rate control.
        planner: Box<Planner>,
        /// What is known of the server, in seconds.
        server: ServerTime,
    },
    /// A datagram of stream bytes was given to the transport.
    Sent {
        /// When.
        #[serde(with = "nanos")]
        at: Duration,
        /// Its length.
        bytes: u32,
    },
    /// A datagram was acknowledged.
    Delivered {
        /// When.
        #[serde(with = "nanos")]
        at: Duration,
        /// When it left.
        #[serde(with = "nanos")]
        sent: Duration,
        /// Its length.
        bytes: u32,
    },
    /// A datagram was lost.
    Lost {
        /// Its length.
        bytes: u32,
    },
    /// The transport said how much is on its way.
    InFlight {
        /// Bytes that were sent and neither acknowledged nor lost.
        bytes: u64,
    },
    /// The transport said how much fits into a datagram.
    Datagram {
        /// Stream bytes of a full datagram.
        bytes: u32,
    },
    /// The server answered a frame.
    Answered {
        /// Time from the arrival of its packet to the departure of the reply.
        #[serde(with = "nanos")]
        took: Duration,
    },
    /// A frame is ready to be sent. When it is due was decided.
    Captured {
        /// When.
        #[serde(with = "nanos")]
        at: Duration,
        /// Until when the server's answer is waited for.
        #[serde(with = "nanos")]
        last_answer: Duration,
        /// The frame.
        frame: FrameInfo,
    },
    /// The packet that was decided on has been encoded.
    Encoded {
        /// Bytes up to the end of each of its groups.
        ends: Vec<u32>,
    },
    /// A frame has ended otherwise.
    Removed {
        /// The frame.
        frame: u64,
    },
    /// What is done next was decided.
    Decided {
        /// When.
        #[serde(with = "nanos")]
        at: Duration,
        /// What.
        step: Step,
    },
    /// Whether a frame is sent at all was decided, by its local answer or by the frames before it.
    Stayed {
        /// The frame.
        frame: u64,
        /// By what.
        by: Stay,
        /// Whether it is not sent.
        stays: bool,
    },
    /// Whether an early exit is worth trying was decided.
    ExitTried {
        /// The frame.
        frame: u64,
        /// What it costs and saves.
        costs: ExitCosts,
        /// Whether it is tried.
        tried: bool,
    },
    /// Entries are missing here: the disk could not keep up, or could not be written.
    Gap {
        /// How many.
        entries: u64,
    },
}

/// Figures by which a frame is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Stay {
    /// Early exit: the local network is sure enough.
    Exit {
        /// Probability of its first class; null, which is none, where the network overflowed.
        #[serde(deserialize_with = "or_nan")]
        confidence: f64,
        /// From where on its answer is used.
        threshold: f64,
    },
    /// Frame gate: the frame differs too little from one that was answered.
    Gate {
        /// Distance of their features.
        distance: f64,
        /// Below which distance the answer is kept.
        threshold: f64,
        /// Time between their captures.
        #[serde(with = "nanos")]
        age: Duration,
        /// Longest such time.
        #[serde(with = "nanos")]
        max_age: Duration,
    },
}

fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Stay {
    /// Whether the frame is not sent.
    #[must_use]
    pub fn stays(&self) -> bool {
        match self {
            // A comparison with NaN is false.
            Stay::Exit { confidence, threshold } => confidence >= threshold,
            Stay::Gate { distance, threshold, age, max_age } => distance < threshold && age <= max_age,
        }
    }
}

/// Something that was decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// What is done next.
    Step(Step),
    /// When the bytes of a frame must be at the server.
    Due(Duration),
    /// Whether a frame stays on this device.
    Stays(bool),
    /// Whether an early exit is tried.
    Tries(bool),
}

/// A decision that is not the recorded one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// When, if that is recorded.
    pub at: Option<Duration>,
    /// What the record says.
    pub recorded: Decision,
    /// What this policy decides.
    pub decided: Decision,
}

/// Why an entry cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A state with numbers that no link can have.
    #[error("its state of the link is none that a link can be in")]
    State,
}

/// Decides on a record again. After a difference it goes on from what the record says, so that each difference is one of its own.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    running: Option<Running>,
    decisions: u64,
}

#[derive(Clone, Debug)]
struct Running {
    link: Link,
    planner: Planner,
    server: ServerTime,
}

impl Replay {
    /// How many decisions were compared.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    /// Takes the next entry; returns a difference if it is a decision and this policy decides otherwise. Decisions before the first
    /// state and between a gap and the next state are not compared.
    ///
    /// # Errors
    /// [`ReplayError`] for an entry that no run wrote.
    pub fn take(&mut self, entry: &Entry) -> Result<Option<Difference>, ReplayError> {
        match entry {
            Entry::State { link, planner, server, .. } => {
                let link = Link::resume(LinkConfig::default(), link.clone()).ok_or(ReplayError::State)?;
                self.running = Some(Running { link, planner: Planner::clone(planner), server: *server });
                return Ok(None);
            }
            Entry::Gap { .. } => {
                self.running = None;
                return Ok(None);
            }
            Entry::Stayed { by, stays, .. } => {
                return Ok(self.compare(None, Decision::Stays(*stays), Decision::Stays(by.stays())));
            }
            Entry::ExitTried { costs, tried, .. } => {
                return Ok(self.compare(None, Decision::Tries(*tried), Decision::Tries(costs.try_next())));
            }
            _ => {}
        }
        let Some(Running { link, planner, server }) = &mut self.running else { return Ok(None) };
        match entry {
            Entry::Sent { at, bytes } => link.on_sent(*at, *bytes),
            Entry::Delivered { at, sent, bytes } => link.on_delivered(*at, *sent, *bytes),
            Entry::Lost { bytes } => link.on_lost(*bytes),
            Entry::InFlight { bytes } => link.set_in_flight(*bytes),
            Entry::Datagram { bytes } => link.set_datagram(*bytes),
            Entry::Answered { took } => server.observe(*took),
            Entry::Captured { at, last_answer, frame } => {
                let due = server.due(*last_answer, link);
                planner.capture(*at, frame.clone());
                return Ok(self.compare(Some(*at), Decision::Due(frame.due), Decision::Due(due)));
            }
            Entry::Encoded { ends } => planner.encoded(ends),
            Entry::Removed { frame } => planner.remove(*frame),
            Entry::Decided { at, step } => {
                let mut decided = planner.clone();
                let own = decided.next(*at, link);
                match own == *step {
                    true => *planner = decided,
                    false => planner.follow(step),
                }
                return Ok(self.compare(Some(*at), Decision::Step(*step), Decision::Step(own)));
            }
            Entry::State { .. } | Entry::Gap { .. } | Entry::Stayed { .. } | Entry::ExitTried { .. } => {}
        }
        Ok(None)
    }

    fn compare(&mut self, at: Option<Duration>, recorded: Decision, decided: Decision) -> Option<Difference> {
        self.decisions += 1;
        (recorded != decided).then_some(Difference { at, recorded, decided })
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Step(Step::Encode { frame, level, attempt: 0 }) => {
                write!(f, "begin frame {frame} at level {level}")
            }
            Decision::Step(Step::Encode { frame, level, .. }) => {
                write!(f, "send frame {frame} again at level {level}")
            }
            Decision::Step(Step::Send(chunk)) => {
                let (from, to) = (chunk.offset, u64::from(chunk.offset) + u64::from(chunk.bytes));
                write!(f, "send bytes {from} to {to} of frame {} at level {}", chunk.frame, chunk.level)
            }
            Decision::Step(Step::Cut { frame, bytes }) => write!(f, "end frame {frame} after {bytes} bytes"),
            Decision::Step(Step::Drop { frame, reason }) => {
                let reason = match reason {
                    crate::DropReason::Replaced => "replaced by a newer one",
                    crate::DropReason::PassedOver => "passed over for a newer one",
                    crate::DropReason::Expired => "too late",
                };
                write!(f, "drop frame {frame}: {reason}")
            }
            Decision::Step(Step::Idle { until: None }) => f.write_str("wait"),
            Decision::Step(Step::Idle { until: Some(until) }) => {
                write!(f, "wait until {:.6} s", until.as_secs_f64())
            }
            Decision::Due(due) => write!(f, "at the server after {:.6} s", due.as_secs_f64()),
            Decision::Stays(true) => f.write_str("not sent"),
            Decision::Stays(false) => f.write_str("sent"),
            Decision::Tries(true) => f.write_str("early exit tried"),
            Decision::Tries(false) => f.write_str("early exit not tried"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "{:.6} s: ", at.as_secs_f64())?;
        }
        write!(f, "{}; recorded: {}", self.decided, self.recorded)
    }
}
