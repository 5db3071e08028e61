//! Sources of frames: today image files; cameras, pipes and commands implement the same trait.

mod files;
mod listing;
mod reader;

pub use files::load;
pub(crate) use files::{FileSource, Reloader};
pub use listing::{EXTENSIONS, SourceError, list};

use crate::{frame::Capture, shutdown::StopSignal};

/// Delivers one picture after the other.
pub(crate) trait FrameSource: Send {
    /// How many pictures there will be; `None` if that is unknown or there is no end.
    fn total(&self) -> Option<u64>;

    /// Waits for the next picture and delivers it; `None` at the end, or soon after `stop` is raised.
    ///
    /// A picture that cannot be used is delivered with its error, and the next one may be fine. The source holds no more
    /// than the picture that it delivers.
    fn next_frame(&mut self, stop: &StopSignal) -> Option<Capture>;
}
