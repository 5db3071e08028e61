//! One JSON line for each finished frame.

use std::{
    io::{self, Write},
    sync::{Arc, mpsc::Receiver},
};

use indicatif::ProgressBar;
use narrows_models::Bundle;

use super::{
    hub::Hub,
    line::{FinishedLine, failed_line, joules_of, line_of},
    pictures::PictureFolder,
};
use crate::{
    Error,
    error::{Chain, caught},
    frame::{Finished, Frame, SpoolEnd},
    policy::Spending,
    report::Totals,
};

/// Writes a line for each frame, and its pictures.
pub(crate) struct JsonlSink<W> {
    pub(crate) bundle: Bundle,
    /// Name of this device.
    pub(crate) device: String,
    /// What frames cost, where energy is to be saved.
    pub(crate) spending: Option<Arc<Spending>>,
    /// Where pictures go, if any are wanted.
    pub(crate) pictures: Option<PictureFolder>,
    pub(crate) progress: ProgressBar,
    /// Where lines are written, if they are.
    pub(crate) out: Option<W>,
    /// Every other sink.
    pub(crate) hub: Hub,
    pub(crate) totals: Arc<Totals>,
}

impl<W: Write> JsonlSink<W> {
    /// Writes frames until no more can come. `on_write_error` is called once when a line cannot be written; frames after
    /// that are counted and not written. Returns itself, for frames under other settings.
    pub(crate) fn run(mut self, frames: &Receiver<Frame<Finished>>, on_write_error: impl FnOnce()) -> Self {
        let mut on_write_error = Some(on_write_error);
        for mut frame in frames {
            let (line, json) = self.line(&frame);
            if let Some(out) = self.out.as_mut().filter(|_| on_write_error.is_some()) {
                let progress = &self.progress;
                let written = progress.suspend(|| out.write_all(&json).and_then(|()| out.flush()));
                if let Err(source) = written {
                    match source.kind() {
                        io::ErrorKind::BrokenPipe => self.totals.note_unread(),
                        _ => {
                            let place = "standard output".to_owned();
                            self.totals.note_error(Error::Output { place, source });
                        }
                    }
                    if let Some(on_write_error) = on_write_error.take() {
                        on_write_error();
                    }
                }
            }
            // Only now may it leave the disk.
            if let Some(spooled) = &mut frame.spooled {
                spooled.end(SpoolEnd::Settled);
            }
            self.totals.count(|summary| summary.add(&line.line));
            self.hub.offer(&mut frame, line, json, &self.bundle);
            self.progress.inc(1);
        }
        self
    }

    /// The line of a frame, after its pictures are written, and its JSON. What goes wrong is told in the line.
    fn line(&self, frame: &Frame<Finished>) -> (FinishedLine, Vec<u8>) {
        let made = caught("the line of a frame cannot be made", || {
            let mut finished = line_of(frame, &self.bundle, &self.device);
            finished.line.joules = self.spending.as_ref().map(|spending| joules_of(frame, spending));
            if let Some(pictures) = &self.pictures {
                let drawn = caught("the picture of a frame cannot be drawn", || {
                    pictures.write(frame, &mut finished, &self.bundle)
                });
                if let Err(error) = drawn.flatten() {
                    finished.line.error = Some(Chain(&error).to_string());
                    self.totals.note_error(error);
                }
            }
            let json = finished.line.to_json().map_err(Error::Json)?;
            Ok((finished, json))
        });
        made.flatten().unwrap_or_else(|error| {
            let mut line = failed_line(frame, &self.bundle, &self.device);
            line.error = Some(Chain(&error).to_string());
            // Without an answer there is nothing in a line that JSON does not have.
            let json = line.to_json().unwrap_or_default();
            (FinishedLine { line, map: None }, json)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Standard output on a full disk, or with a reader that has gone.
    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_cannot_be_written_is_told_once_and_frames_are_still_counted() {
        use crate::{frame::Outcome, signals::Stop};
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull] {
            let (frames_in, frames) = std::sync::mpsc::channel();
            for _ in 0..3 {
                frames_in
                    .send(crate::frame::tests::frame().finish(Outcome::Failed("x".into()), None))
                    .unwrap();
            }
            drop(frames_in);
            let totals = Arc::new(Totals::default());
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/lite2");
            let sink = JsonlSink {
                bundle: Bundle::open(folder, narrows_models::Parts::Head).unwrap(),
                device: "pi".to_owned(),
                spending: None,
                pictures: None,
                progress: ProgressBar::hidden(),
                out: Some(Broken(kind)),
                hub: Hub::none(),
                totals: Arc::clone(&totals),
            };
            let mut told = 0;
            sink.run(&frames, || told += 1);
            let (summary, stop, error) = totals.take();
            assert_eq!((told, summary.failed), (1, 3));
            let unread = kind == io::ErrorKind::BrokenPipe;
            assert_eq!((stop == Some(Stop::Unread), error.is_none()), (unread, unread));
        }
    }
}
