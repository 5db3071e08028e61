//! The server: features or images in, classes and masks out, with ONNX Runtime in between.
//!
//! ```text
//! listen ── admit ── frame ── batch ── worker ── net (ONNX Runtime) ── frame ── answer
//!   QUIC    room?    decode   form     a thread per network            gather   softmax, class map
//! ```
//!
//! [`batcher`], [`admit`], [`answer`] and [`metrics`] are pure: `now` is an argument. [`net`] is the one place that uses
//! ONNX Runtime and is usable on its own: by the benches for the tails and for the unsplit networks.

pub mod admit;
pub mod answer;
pub mod batcher;
mod catalog;
pub mod certs;
pub mod config;
mod error;
mod frame;
mod images;
mod input;
mod listen;
pub mod metrics;
pub mod net;
mod selftest;
mod serve;
mod worker;

pub use error::{Error, ErrorKind};
pub use serve::serve;
