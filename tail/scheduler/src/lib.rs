//! The order in which a server runs the frames of many devices: admission, deadlines, fair shares, quotas and batches.
//!
//! Everything here is pure: arrivals, ends of runs and `now` in; refusals, batches and dropped frames out. Times count from any
//! fixed moment. docs/scheduling.md of the project states the rules and their formulas.
//!
//! * A frame is admitted by its own device's backlog and quotas ([`Scheduler::admit`]), never by what others have queued.
//! * The devices that have frames waiting for a network share its measured time equally (deficit round robin), within classes
//!   of priority.
//! * Of the frames within their devices' shares the one with the earliest deadline leads the next batch, unless another batch
//!   meets more deadlines. A batch never makes one of its frames miss a deadline that it would meet alone.
//! * The time of a run is estimated for each network, shape and batch size from the runs that were measured.
//!
//! ```
//! use std::time::Duration;
//! use narrows_scheduler::{Arrival, NetworkLimits, Next, Scheduler, Terms};
//!
//! let ms = Duration::from_millis;
//! let mut scheduler = Scheduler::new();
//! let network = scheduler.add_network(NetworkLimits { batch: 8, wait: Duration::ZERO, queue: 64, workers: 1 });
//! let (device, terms) = ("cam-1", Terms::default());
//! scheduler.admit(ms(0), &device, &terms, &[network], Some(ms(200)))?;
//! let arrival = Arrival { device: &device, terms: &terms, network, shape: 0, deadline: Some(ms(200)) };
//! let queued = scheduler.push(ms(3), arrival)?;
//! let decision = scheduler.decide(ms(3), network, |_| true);
//! let Next::Run { run, frames, .. } = decision.next else { panic!("a worker is free") };
//! assert_eq!(frames, [queued.frame]);
//! scheduler.complete(ms(15), run, 1, ms(12));
//! assert_eq!(scheduler.estimate(network, 0, 1), ms(12));
//! # Ok::<(), narrows_scheduler::Refused>(())
//! ```

mod accounts;
mod bucket;
mod cost;
mod network;
mod plan;
mod record;
mod refused;
mod scheduler;
mod shares;
mod simulate;
mod terms;

pub use network::{FrameId, PATIENCE};
pub use record::{Event, Part, Record, RecordError, micros};
pub use refused::{Dropped, Refused};
pub use scheduler::{Arrival, Decision, NetworkId, Next, Queued, RunId, Scheduler};
pub use simulate::{Outcome, SimulatedFrame, Simulation};
pub use terms::{NetworkLimits, Priority, Terms};
