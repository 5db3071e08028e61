//! Joules of a run: sensors with their provenance, read on a monotonic clock and integrated over real timestamps.
//!
//! * [`discover`] finds what this machine can measure, and says of the rest why not and what would help.
//! * A [`Sampler`] reads the sources on a thread of its own; [`Sampler::mark`] sets the edges of windows.
//! * [`Recording::over`] gives gross and net joules per rail for a [`Plan`] of windows, [`total`] the one figure for the
//!   largest thing that was measured.
//! * [`meter`] brings in what a USB meter recorded, [`radio`] models the radio of a board without a meter.
//!
//! ```no_run
//! use std::{thread::sleep, time::Duration};
//! use narrows_power::{Places, Plan, Sampler, Window, discover, total};
//!
//! let sensors = discover(&Places::default());
//! let sampler = Sampler::start(sensors.sources)?;
//! let idle = sampler.mark()?;
//! sleep(Duration::from_secs(5));
//! let start = sampler.mark()?;
//! // … the work …
//! let end = sampler.mark()?;
//! let recording = sampler.stop()?;
//! let plan = Plan { idle_before: Some(Window::new(idle, start)), ..Plan::of(Window::new(start, end)) };
//! match total(&recording.over(&plan)) {
//!     Ok(total) => println!("{:.1} J on {}", total.gross_joules, total.rails.join(" + ")),
//!     Err(why) => println!("unknown: {why}"),
//! }
//! # Ok::<(), narrows_power::Error>(())
//! ```
//!
//! Only `sampler.rs` and `marker.rs` read a clock or start threads; the rest takes times and returns values.

mod error;
pub mod marker;
mod measure;
pub mod meter;
pub mod radio;
mod rail;
mod recorder;
mod sampler;
mod sensors;
mod sources;
mod sysfs;
mod trace;

pub use error::{Error, ErrorKind};
pub use measure::{Idle, Measured, Plan, Total, total};
pub use rail::{Method, Quality, Rail, Scope, Source};
pub use recorder::{Cost, Recorder, Recording};
pub use sampler::Sampler;
pub use sensors::{Absent, Places, Sensors, discover};
pub use trace::{Energy, Gap, Trace, Window};

/// Durations as seconds, in reports.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
