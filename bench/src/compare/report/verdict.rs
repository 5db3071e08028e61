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
    /// What there is none of, so that nothing can be held against what is asked.
    #[serde(default)]
    pub lacks: Vec<Lack>,
    /// Where no image is as accurate as the split: the nearest pair that tells something.
    #[serde(default)]
    pub nearest: Option<Pair>,
    /// One or two sentences in words.
    pub why: String,
}

/// What a claim has none of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lack {
    /// No level loses at most two points.
    Level,
    /// No image is as accurate as the split.
    Image,
}

/// A split and an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The split.
    pub split: Place,
    /// The image.
    pub offload: Place,
    /// The image's median over the split's.
    pub ratio: f64,
}

impl Claim {
    /// Whether what is asked for is reached, and in a few words; `None` where nothing is asked.
    pub fn verdict(&self) -> (Option<bool>, &'static str) {
        match (self.wanted, self.holds, &self.lacks[..]) {
            (None, ..) => (None, "nothing asked"),
            (_, true, _) => (Some(true), "holds"),
            (.., []) => (Some(false), "does not hold"),
            (.., [Lack::Level]) => (Some(false), "no level qualifies"),
            (.., [Lack::Image]) => (Some(false), "no image qualifies"),
            _ => (Some(false), "neither qualifies"),
        }
    }

    /// The pair to show: at equal accuracy, or the nearest.
    pub fn pair(&self) -> Option<Pair> {
        let equal = self.offload.clone().zip(self.ratio);
        let equal = equal.map(|(offload, ratio)| Pair { split: self.split.clone(), offload, ratio });
        equal.or_else(|| self.nearest.clone())
    }
}
