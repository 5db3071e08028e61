//! The networks that run on the device: the head, planned once per geometry, and the local network.
//!
//! Only these files use tract, which reads the ONNX file. Every quantised node is one operator over the kernels of
//! `narrows-int8`; a plan keeps their order and the memory between them. The last layer of the head returns its
//! accumulators, and the rate level decides how they become symbols, so that one plan serves all levels.

mod constant;
mod error;
mod head;
mod head_graph;
mod layer;
mod local;
mod local_graph;
mod node;
mod plan;

pub use error::Error;
pub use head::{Interface, Latent, Net};
pub use head_graph::HeadGraph;
pub use layer::Layer;
pub use local::LocalNet;
