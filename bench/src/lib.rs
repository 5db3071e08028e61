//! Measuring: accuracy and bytes of a bundle, kernels and coders against their peers, a real pair on loopback or
//! over links with names, and many heads at once.
//!
//! The binary `narrows-bench` is a thin shell over the modules here; `tests` uses some of them too.

pub mod codec;
pub mod compare;
mod contest;
mod json;
mod latencies;
pub mod links;
pub mod load;
pub mod loopback;
pub mod machine;
pub mod micro;

pub use latencies::Percentiles;
