//! Who wins, and whether splitting beats sending the image.

use serde::{Deserialize, Serialize};

/// The fastest of those that lose little enough.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Winner {
    /// Name of the link.
    pub link: String,
    /// Name of the task.
    pub task: String,
    /// Points that it may lose to the unsplit network.
    pub most_lost: f64,
    /// The fastest one; `None` if all lose more.
    pub best: Option<Place>,
    /// The fastest one of every other path that loses little enough, fastest first.
    pub others: Vec<Place>,
}

/// A variant and its median.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Name of the variant.
    pub variant: String,
    /// Median of the total, in milliseconds.
    pub p50: f64,
    /// Points lost.
    pub drop: f64,
}

/// How splitting compares with sending the image, at the fastest level that loses at most two points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Name of the link.
    pub link: String,
    /// Name of the task.
    pub task: String,
    /// The split.
    pub split: Place,
    /// The fastest offload that is at least as accurate.
    pub offload: Option<Place>,
    /// The offload's median over the split's.
    pub ratio: Option<f64>,
    /// The ratio that is asked for on a link of this rate; `None` above LTE's.
    pub wanted: Option<f64>,
    /// Whether it is reached at the accuracy asked for.
    pub holds: bool,
    /// One or two sentences in words.
    pub why: String,
}
