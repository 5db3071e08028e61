//! Measures narrows: a real head and a real server over emulated links, many heads at once, and its
//! kernels and coders next to other implementations.
//!
//! The binary `narrows-bench` is a thin shell over the modules here. Reports state measurements with their spread; what the
//! number of samples does not support is left out (a 99th percentile of fewer than 1,000 samples, for example).
//!
//! * [`compare`]: local network, image offload and split network on the same frames over a ladder of links.
//! * [`codec`]: bytes and speed of the codec, constriction, zstd and brotli; [`micro`]: speed of the int8 networks, ONNX
//!   Runtime and JPEG encoders; [`frame`]: a camera's frame from its bytes to the packet. Each interleaved in one run on one
//!   thread.
//! * [`arm`]: instructions of the networks and of a camera's frame on emulated ARM; [`machines`]: a table of what [`micro`] and it
//!   found on several machines.
//! * [`rate`]: frames a second that a real head sustains of one camera.
//! * [`load`]: a server under many heads.
//! * [`schedule`]: recorded arrivals at a server, replayed in virtual time.
//! * [`policy`]: rate control over recorded links, in virtual time, compared with the best that any sender could do.
//!
//! Accuracy on labelled data is measured by the crate `narrows-eval`, links are emulated by `narrows-netsim`,
//! and head and server are started by `narrows-pair`.
//!
//! ```
//! use narrows_bench::compare::report::Report;
//!
//! // A recorded comparison.
//! let report = Report::parse(include_str!("../../docs/compare.json"))?;
//! assert_eq!(report.links[0].name, "lte");
//! # Ok::<(), anyhow::Error>(())
//! ```

pub mod arm;
pub mod codec;
pub mod compare;
pub mod frame;
mod instructions;
mod interleaved;
mod json;
mod latencies;
pub mod load;
pub mod machine;
pub mod machines;
pub mod micro;
pub mod policy;
pub mod rate;
pub mod schedule;
