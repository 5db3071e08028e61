//! Rate control for frames that have a deadline: which frame is sent next, at which rate level, and where its packet ends.
//!
//! Everything here is pure: observations and `now` in, decisions out. Times are counted from any fixed moment.
//!
//! * [`Link`] models the uplink from what was delivered and when: its rate, its delay without a queue, and how much may be
//!   in flight without building a queue.
//! * [`Ladder`] says what a frame is worth at each level, and at each cut point inside a packet.
//! * [`Planner`] chooses, datagram by datagram, the action with the highest expected value: go on with the packet that is
//!   being sent, end it at what has been sent, send the same frame again at a coarser level, or begin another frame.
//!
//! * [`ServerTime`] is the server's share of a frame's time, [`EnergyModel`] what answers cost in energy, and
//!   [`ExitCosts`] says whether an early exit is worth its own.
//! * [`Entry`] is what a run records of all that, and [`Replay`] decides on a recording again.
//!
//! A packet is decided on again before every datagram, so a wrong estimate of the rate costs a few datagrams and not a frame.
//!
//! ```
//! use std::time::Duration;
//! use narrows_policy::{CutPoint, FrameInfo, Ladder, Link, LinkConfig, Planner, PlannerConfig, Rung, Step};
//!
//! let whole = |level, bytes, value| Rung::new(level, vec![CutPoint { bytes, value }]);
//! let ladder = Ladder::new(vec![whole(0, 12_000, 0.70)?, whole(1, 4_000, 0.64)?, whole(2, 1_000, 0.55)?])?;
//! let mut planner = Planner::new(PlannerConfig::default());
//! let mut link = Link::new(LinkConfig::default());
//! let ms = Duration::from_millis;
//! planner.capture(ms(0), FrameInfo { id: 7, source: 0, due: ms(300), computed: ms(20), ladder });
//! let Step::Encode { frame: 7, level, .. } = planner.next(ms(0), &link) else { panic!("the link is idle") };
//! let Step::Send(chunk) = planner.next(ms(0), &link) else { panic!("a frame has begun") };
//! assert_eq!((chunk.frame, chunk.level, chunk.offset), (7, level, 0));
//! link.on_sent(ms(0), chunk.bytes);
//! // 40 ms later the acknowledgement arrives.
//! link.on_delivered(ms(40), ms(0), chunk.bytes);
//! # Ok::<(), narrows_policy::LadderError>(())
//! ```

mod energy;
mod exit;
mod ladder;
mod link;
mod nanos;
mod planner;
mod record;
mod server;

pub use energy::EnergyModel;
pub use exit::ExitCosts;
pub use ladder::{CutPoint, Ladder, LadderError, Rung};
pub use link::{Forecast, Link, LinkConfig, LinkState};
pub use planner::{Chunk, DropReason, FrameInfo, Planner, PlannerConfig, Step, Waiting};
pub use record::{Decision, Difference, Entry, Replay, ReplayError, Stay};
pub use server::ServerTime;
