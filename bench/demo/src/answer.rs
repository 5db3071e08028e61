//! What a line of `narrows-head run` says, as far as the demo shows it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One frame's line.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Answer {
    pub(crate) frame: u64,
    pub(crate) file: PathBuf,
    pub(crate) status: String,
    pub(crate) geometry: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The most probable classes, best first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) classify: Option<Vec<Class>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segment: Option<Mask>,
    /// The photo with its classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overlay: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ms: Option<Millis>,
    /// The fields that the demo passes on unread.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A class and its probability.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Class {
    pub(crate) index: u16,
    pub(crate) label: String,
    pub(crate) probability: f64,
}

/// A class for every pixel.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Mask {
    /// A PNG whose palette indices are the classes.
    pub(crate) mask: Option<PathBuf>,
    /// The photo under the mask.
    pub(crate) overlay: Option<PathBuf>,
    /// The classes in the mask, largest share first.
    pub(crate) classes: Vec<Share>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The share of pixels that a class covers.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Share {
    pub(crate) label: String,
    pub(crate) share: f64,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Sizes in bytes.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Bytes {
    /// The coded features.
    pub(crate) packet: usize,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Stages in milliseconds.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Millis {
    pub(crate) decode: f64,
    pub(crate) resize: f64,
    pub(crate) head: f64,
    pub(crate) encode: f64,
    pub(crate) network: f64,
    pub(crate) tail_infer: f64,
    pub(crate) total: f64,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Answer {
    /// Reads a line.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        serde_json::from_str(line).with_context(|| format!("narrows-head printed no frame: {line}"))
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.status == "answered"
    }

    /// The picture that was drawn of the answer.
    pub(crate) fn picture(&self) -> Option<&Path> {
        let mask = self.segment.as_ref().and_then(|mask| mask.overlay.as_deref());
        mask.or(self.overlay.as_deref())
    }
}
