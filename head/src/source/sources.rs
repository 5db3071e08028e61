//! All sources of a run as one: a single source of files as it is, and any others side by side.
#![expect(clippy::disallowed_methods, reason = "frames are spaced")]

use std::{sync::Arc, thread, time::Instant};

use narrows_models::Geometry;

use super::{
    FrameSource,
    ahead::Ahead,
    files::FileSource,
    live::{Closer, Live, Settings},
    rate::Rate,
    spec::{Kind, Spec},
};
use crate::{Error, frame::Capture, report::Totals, shutdown::StopSignal};

/// The sources of a run.
#[derive(Debug)]
pub(crate) struct Sources(Kinds);

#[derive(Debug)]
enum Kinds {
    /// A single source of files.
    Files(Box<FileSource>, Rate),
    /// Cameras, or several sources, on a device of one core.
    Live(Box<Live>),
    /// The same where frames are decoded beside the work on the one before.
    Ahead(Ahead),
}

impl Sources {
    /// Opens the sources `specs`. Cameras are opened when the first frame is wanted.
    ///
    /// # Errors
    /// [`SourceError`](super::SourceError) for files that do not exist and for names that stand twice; [`Error::Device`] if no
    /// pipe can be made.
    pub(crate) fn open(specs: &[Spec], settings: &Settings, totals: &Arc<Totals>) -> Result<Self, Error> {
        if let [Spec { name, kind: Kind::Files(path) }] = specs {
            let files = FileSource::open(path, settings.passes, settings.budget)?.named(name.as_deref());
            return Ok(Sources(Kinds::Files(Box::new(files), Rate::new(settings.rate))));
        }
        let live = Box::new(Live::open(specs, settings, totals)?);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Sources(if cores > 1 { Kinds::Ahead(Ahead::new(live)) } else { Kinds::Live(live) }))
    }

    /// Takes at most so many frames a second of each source from now on.
    pub(crate) fn set_rate(&mut self, rate: Option<f64>) {
        match &mut self.0 {
            Kinds::Files(_, own) => *own = Rate::new(rate),
            Kinds::Live(live) => live.intake().set_rate(rate),
            Kinds::Ahead(ahead) => ahead.intake().set_rate(rate),
        }
    }

    /// Takes of cameras' frames what these inputs of networks show, or all of it as images where there are none, from now on.
    pub(crate) fn set_views(&mut self, views: Arc<[Geometry]>) {
        match &self.0 {
            Kinds::Files(..) => {}
            Kinds::Live(live) => live.intake().set_views(views),
            Kinds::Ahead(ahead) => ahead.intake().set_views(views),
        }
    }

    /// Has `totals` tell what becomes of the frames of cameras.
    pub(crate) fn count_in(&self, totals: &Totals) {
        match &self.0 {
            Kinds::Files(..) => {}
            Kinds::Live(live) => live.count_in(totals),
            Kinds::Ahead(ahead) => ahead.count_in(totals),
        }
    }

    /// What ends the cameras, if there are any.
    pub(crate) fn closer(&self) -> Option<Closer> {
        match &self.0 {
            Kinds::Files(..) => None,
            Kinds::Live(live) => Some(live.closer()),
            Kinds::Ahead(ahead) => Some(ahead.closer()),
        }
    }

    /// The names in the lines of the run, before the first frame is wanted; `None` for files of a source without a name.
    pub(crate) fn cameras(&self) -> Vec<Option<Arc<str>>> {
        match &self.0 {
            Kinds::Files(files, _) => vec![files.name()],
            Kinds::Live(live) => live.names(),
            Kinds::Ahead(ahead) => ahead.names(),
        }
    }
}

impl FrameSource for Sources {
    fn total(&self) -> Option<u64> {
        match &self.0 {
            Kinds::Files(files, _) => files.total(),
            Kinds::Live(live) => live.total(),
            Kinds::Ahead(ahead) => ahead.total(),
        }
    }

    fn next_frame(&mut self, stop: &StopSignal) -> Option<Capture> {
        match &mut self.0 {
            Kinds::Files(files, rate) => {
                if let Some(due) = rate.wait(Instant::now()) {
                    // The timer is made within the runtime, of which this thread is none.
                    stop.block_on(async { tokio::time::sleep_until(due.into()).await })?;
                }
                rate.count(Instant::now());
                files.next_frame(stop)
            }
            Kinds::Live(live) => live.next_frame(stop).map(|(source, capture)| {
                live.intake().member(source).tally.count_taken();
                capture
            }),
            Kinds::Ahead(ahead) => ahead.next_frame(stop),
        }
    }

    fn rest(&mut self) {
        if let Kinds::Ahead(ahead) = &mut self.0 {
            ahead.rest();
        }
    }
}
