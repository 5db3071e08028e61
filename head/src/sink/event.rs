//! What a sink is told of a frame.

use crate::report::Line;

/// Stands for the camera of a source without a name.
pub(super) const CAMERA: &str = "camera";

/// The outcome of a frame, as every sink gets it.
#[derive(Debug)]
pub(super) struct Event {
    /// The camera that captured it.
    pub(super) camera: String,
    pub(super) line: Line,
    /// The line as JSON with a line feed.
    pub(super) json: Vec<u8>,
}
