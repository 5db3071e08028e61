//! Why a network cannot be loaded or run.

use std::error::Error as StdError;

/// Why a network cannot be loaded or run: what is wrong, and with which node, geometry or buffer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bundle's part cannot be read.
    #[error(transparent)]
    Bundle(#[from] narrows_models::Error),
    /// The file is not an ONNX model.
    #[error("it is not an ONNX model")]
    Parse(#[source] Box<dyn StdError + Send + Sync>),
    /// The graph as a whole does not follow BUNDLE.md.
    #[error("its graph: {0}")]
    Graph(String),
    /// A node cannot be run exactly.
    #[error("its node `{node}` ({op}): {problem}")]
    Node {
        /// Name of the node, or of its output where it has none.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The kernels refuse a layer.
    #[error("its node `{node}`")]
    Layer {
        /// Name of the node.
        node: String,
        /// Why the kernels refuse it.
        source: narrows_int8::Error,
    },
    /// The output of the head has another size than the manifest says.
    #[error("at geometry {geometry}: {problem}")]
    Geometry {
        /// Index of the geometry.
        geometry: usize,
        /// What does not agree.
        problem: String,
    },
    /// A layer of the head cannot run on a geometry.
    #[error("at geometry {geometry}")]
    Size {
        /// Index of the geometry.
        geometry: usize,
        /// Why the kernels refuse the size.
        source: narrows_int8::Error,
    },
    /// The output of the head is not a feature that the codec can encode.
    #[error("at geometry {geometry}")]
    Feature {
        /// Index of the geometry.
        geometry: usize,
        /// Why the codec refuses the shape.
        source: narrows_codec::Error,
    },
    /// The bundle has no geometry or level of this index.
    #[error("there is no {what} {index}, the bundle has {count}")]
    Index {
        /// Geometry or level.
        what: &'static str,
        /// The index.
        index: usize,
        /// Number of geometries or levels.
        count: usize,
    },
    /// The pixels are of another size than the geometry's.
    #[error("{found} bytes of pixels, the geometry asks for {expected}")]
    Pixels {
        /// Number of bytes.
        found: usize,
        /// Height times width times three.
        expected: usize,
    },
    /// The network failed while it was planned or run.
    #[error("running it")]
    Run(#[source] Box<dyn StdError + Send + Sync>),
}
