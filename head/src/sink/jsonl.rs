//! One JSON line for each finished frame.

use std::{
    io::{self, Write},
    sync::mpsc::Receiver,
};

use indicatif::ProgressBar;
use narrows_models::Bundle;

use super::{line::line_of, pictures::PictureFolder};
use crate::{
    Error,
    error::Chain,
    frame::{Finished, Frame},
    report::Summary,
};

/// Writes a line for each frame, and its pictures.
pub(crate) struct JsonlSink<W> {
    pub(crate) bundle: Bundle,
    /// Where pictures go, if any are wanted.
    pub(crate) pictures: Option<PictureFolder>,
    pub(crate) progress: ProgressBar,
    pub(crate) out: W,
}

/// What a sink has written.
#[derive(Debug, Default)]
pub(crate) struct SinkReport {
    pub(crate) summary: Summary,
    /// Whether the reader of the lines closed them.
    pub(crate) unread: bool,
    /// The first line or picture that could not be written.
    pub(crate) error: Option<Error>,
}

impl<W: Write> JsonlSink<W> {
    /// Writes frames until no more can come. `on_write_error` is called once when a line cannot be written; frames after
    /// that are counted and not written.
    pub(crate) fn run(
        mut self,
        frames: &Receiver<Frame<Finished>>,
        on_write_error: impl FnOnce(),
    ) -> SinkReport {
        let mut report = SinkReport::default();
        let mut on_write_error = Some(on_write_error);
        for frame in frames {
            let mut finished = line_of(&frame, &self.bundle);
            if let Some(pictures) = &self.pictures
                && let Err(error) = pictures.write(&frame, &mut finished, &self.bundle)
            {
                finished.line.error = Some(Chain(&error).to_string());
                report.error.get_or_insert(error);
            }
            let line = finished.line;
            report.summary.add(&line);
            self.progress.inc(1);
            if on_write_error.is_none() {
                continue;
            }
            let (progress, out) = (&self.progress, &mut self.out);
            if let Err(source) = progress.suspend(|| line.write(out)) {
                match source.kind() {
                    io::ErrorKind::BrokenPipe => report.unread = true,
                    _ => {
                        let place = "standard output".to_owned();
                        report.error.get_or_insert(Error::Output { place, source });
                    }
                }
                if let Some(on_write_error) = on_write_error.take() {
                    on_write_error();
                }
            }
        }
        self.progress.finish_and_clear();
        report
    }
}
