//! The device: photos to features, answers to JSON lines.
//!
//! [`Head`] is the device's half of a bundle: decode, fit, network, entropy coder, without any link; [`Local`] is the
//! whole network on the device. [`Offload`] makes a small file of an image instead, for a server that runs the whole
//! network.
//! [`run()`] is what `narrows-head run` does: frames from a [`source`] through a head and over QUIC to the tail, one
//! [`report::Line`] per frame.

mod canvas;
pub mod config;
mod connect;
pub mod doctor;
pub mod encoding;
mod error;
mod frame;
mod jsonl;
mod local;
pub mod net;
mod offload;
mod overlay;
mod pipeline;
mod policy;
pub mod power;
pub mod report;
mod run;
pub mod source;
mod uplink;

pub use error::{Error, ErrorKind};
pub use local::{Local, LocalAnswer};
pub use narrows_models::image;
pub use offload::Offload;
pub use pipeline::{Encoded, Head, Timings, load};
pub use run::{RunReport, Stop, run};
