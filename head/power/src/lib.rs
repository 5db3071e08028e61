//! Measures the energy of a run in joules, with the power sensors that the device has.
//!
//! Supported are the INA3221 of NVIDIA Jetson modules, the PMIC of the Raspberry Pi 5, INA2xx meters on hwmon, batteries,
//! RAPL on x86 processors and the energy counters of NVIDIA cards. Readings are integrated over their real timestamps on
//! a monotonic clock; a gap is reported and not filled.
//!
//! * [`discover`] finds the sensors of this machine; for those that cannot be read it says why and what would help.
//! * A [`Sampler`] reads the sensors on a thread of its own; [`Sampler::mark`] returns the edges of windows.
//! * [`Recording::over`] returns gross and net joules per rail for a [`Plan`] of windows, [`total`] the sum over the rails
//!   that cover the largest part of the device.
//! * [`thermal`] tells temperature and throttling.
//! * [`meter`] aligns the recording of a USB meter with the run, [`radio`] models the radio of a board without a meter.
//!
//! ```
//! use std::{thread::sleep, time::Duration};
//! use narrows_power::{Places, Plan, Sampler, Window, discover, total};
//!
//! let sensors = discover(&Places::default());
//! let sampler = Sampler::start(sensors.sources)?;
//! let idle = sampler.mark()?;
//! sleep(Duration::from_millis(50));
//! let start = sampler.mark()?;
//! // The work to be measured.
//! sleep(Duration::from_millis(50));
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
//! `sampler.rs`, `marker.rs`, `thermal.rs` and `firmware.rs` alone read a clock or start threads; the rest takes times and
//! returns values.

mod absent;
mod error;
pub mod firmware;
pub mod marker;
mod measure;
pub mod meter;
pub mod radio;
mod rail;
mod recorder;
mod sampler;
mod seconds;
mod sensors;
mod sources;
mod sysfs;
pub mod thermal;
mod trace;

pub use absent::Absent;
pub use error::{Error, ErrorKind};
pub use measure::{Idle, Measured, Plan, Total, total};
pub use rail::{Method, Quality, Rail, Scope, Source};
pub use recorder::{Cost, Recorder, Recording};
pub use sampler::Sampler;
pub use sensors::{Places, Sensors, discover};
pub use trace::{Energy, Gap, Trace, Window};
