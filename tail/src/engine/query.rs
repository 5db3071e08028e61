//! The queries of a job.

/// A query to one task of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskQuery {
    /// The index of the task in the bundle's manifest.
    pub task: usize,
    /// The query.
    pub query: Query,
}

/// What is to be computed from a task's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Query {
    /// The most probable classes, for tasks of kind `classify`.
    Classify {
        /// The number of classes; if the task has fewer, all of them are returned.
        top_k: usize,
    },
    /// A class per pixel, for tasks of kind `segment`.
    Segment {
        /// Width and height of the map, or `None` for the size of the network's output. The map takes a byte per pixel,
        /// so a front end limits what its clients may ask for.
        size: Option<(usize, usize)>,
    },
    /// The network's output as it is, for tasks of any kind.
    Scores,
}
