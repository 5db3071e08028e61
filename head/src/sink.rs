//! Results of a run: JSON lines on standard output, pictures in a folder.

mod jsonl;
mod line;
mod out;
mod overlay;
mod pictures;

pub(crate) use jsonl::JsonlSink;
pub(crate) use out::Out;
pub(crate) use pictures::PictureFolder;
