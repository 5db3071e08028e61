//! Results of a run: JSON lines on standard output, pictures in a folder.

mod jsonl;
mod line;
mod overlay;
mod pictures;

pub(crate) use jsonl::{JsonlSink, SinkReport};
pub(crate) use pictures::PictureFolder;
