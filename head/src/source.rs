//! Sources of frames: image files, and cameras of every kind, which are read by threads of their own.

mod address;
mod ahead;
mod camera;
mod child;
mod command;
mod files;
mod inbox;
mod intake;
mod listing;
mod live;
mod loss;
mod outlet;
mod rate;
mod reader;
mod sources;
mod spec;
mod stream;
mod watch;

pub(crate) use files::Reloader;
pub use files::load;
pub use listing::{EXTENSIONS, SourceError, list};
pub(crate) use live::{Settings, present};
pub use loss::CameraFault;
pub(crate) use sources::Sources;
pub(crate) use spec::Spec;

use crate::{frame::Capture, shutdown::StopSignal};

/// Delivers one picture after the other.
pub(crate) trait FrameSource: Send {
    /// How many pictures there will be; `None` if that is unknown or there is no end.
    fn total(&self) -> Option<u64>;

    /// Waits for the next picture and delivers it; `None` at the end, or soon after `stop` is raised.
    ///
    /// A picture that cannot be used is delivered with its error, and the next one may be fine. Beside the picture that it
    /// delivers, a source holds no more than one that waits for each of its cameras and folders, and one that is decoded already.
    fn next_frame(&mut self, stop: &StopSignal) -> Option<Capture>;

    /// Tells that no picture is wanted until [`FrameSource::next_frame`] is called again: no work is done ahead.
    fn rest(&mut self) {}
}
