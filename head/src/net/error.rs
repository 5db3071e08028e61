//! Why a network could not be loaded or run.

/// What is wrong, and with which node, geometry or buffer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bundle's part could not be read.
    #[error(transparent)]
    Bundle(#[from] narrows_models::Error),
    /// The file is no ONNX model.
    #[error("it is not an ONNX model: {0}")]
    Parse(String),
    /// The model as a whole is no network of BUNDLE.md.
    #[error("its graph: {0}")]
    Graph(String),
    /// A node that cannot be run exactly.
    #[error("its node `{node}` ({op}): {problem}")]
    Node {
        /// Its name, or its output's where it has none.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A layer that the kernels refuse.
    #[error("its node `{node}`: {source}")]
    Layer {
        /// Its name.
        node: String,
        /// What the kernels say.
        source: narrows_int8::Error,
    },
    /// A geometry that the head does not fit.
    #[error("at geometry {geometry}: {problem}")]
    Geometry {
        /// Index of the geometry.
        geometry: usize,
        /// What does not fit.
        problem: String,
    },
    /// An index that the bundle does not have.
    #[error("there is no {what} {index}, the bundle has {count}")]
    Index {
        /// Geometry or level.
        what: &'static str,
        /// The index.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// Pixels of another size than the geometry's.
    #[error("{found} bytes of pixels, the geometry asks for {expected}")]
    Pixels {
        /// Bytes given.
        found: usize,
        /// Height times width times three.
        expected: usize,
    },
    /// The plan failed while it ran.
    #[error("running it: {0}")]
    Run(String),
}
