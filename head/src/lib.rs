//! The device: photos to features, answers to JSON lines.
//!
//! [`Head`] is the device's half of a bundle: decode, fit, network, entropy coder, without any link; [`Local`] is the
//! whole network on the device.
//! [`run()`] is what `narrows-head run` does: frames from a [`source`] through a head and over QUIC to the tail, one
//! [`report::Line`] per frame.

mod canvas;
pub mod config;
mod dial;
mod error;
mod frame;
pub mod image;
mod link;
mod local;
pub mod net;
mod overlay;
mod pipeline;
mod policy;
pub mod report;
mod reporter;
mod run;
pub mod source;

pub use error::{Error, Kind};
pub use local::{Local, LocalAnswer};
pub use pipeline::{Encoded, Head, Timings, load};
pub use run::{Ran, Stop, run};
