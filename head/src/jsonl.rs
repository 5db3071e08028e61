//! From how a frame ended to its line and its pictures.

use std::{
    collections::HashSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use narrows_models::{Bundle, Geometry, Task};
use narrows_wire::{Class, ClassMap, Outcome as TaskOutcome, Refusal, Reply, TaskAnswer};

use crate::{
    Error,
    canvas::Colour,
    config::{self, Config},
    frame::{FinishedFrame, Frame, Outcome},
    overlay::{self, Map},
    pipeline::Timings,
    report::{Bytes, ClassScore, ImageSettings, Line, Millis, Segment, Share, Status, Summary, Unanswered},
};

/// Writes a line per frame, and pictures.
pub(crate) struct JsonlSink<W> {
    pub(crate) bundle: Bundle,
    pub(crate) config: Config,
    pub(crate) pictures: Option<PictureFolder>,
    pub(crate) bar: ProgressBar,
    pub(crate) out: W,
}

/// Names for pictures in one folder, unique per file of the source.
pub(crate) struct PictureFolder {
    dir: PathBuf,
    names: Vec<String>,
}

/// How reporting ended.
#[derive(Debug, Default)]
pub(crate) struct SinkReport {
    pub(crate) summary: Summary,
    /// Nobody reads the lines any more.
    pub(crate) unread: bool,
    /// The first line or picture that could not be written.
    pub(crate) error: Option<Error>,
}

impl<W: Write> JsonlSink<W> {
    /// Reports frames until no more can come. `on_write_error` is called once when lines cannot be written any more; the
    /// frames that are still out are taken in silence then.
    pub(crate) fn run(
        mut self,
        outcomes: &Receiver<FinishedFrame>,
        on_write_error: impl FnOnce(),
    ) -> SinkReport {
        let mut report = SinkReport::default();
        let mut on_write_error = Some(on_write_error);
        for finished in outcomes {
            let line = self.line(&finished, &mut report.error);
            report.summary.add(&line);
            self.bar.inc(1);
            if on_write_error.is_none() {
                continue;
            }
            let (bar, out) = (&self.bar, &mut self.out);
            if let Err(source) = bar.suspend(|| line.write(out)) {
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
        self.bar.finish_and_clear();
        report
    }

    fn line(&self, finished: &FinishedFrame, problem: &mut Option<Error>) -> Line {
        let FinishedFrame { frame, outcome } = finished;
        let mut line = Line {
            frame: frame.number,
            file: frame.file.clone(),
            status: Status::Failed,
            path: None,
            fallback: None,
            level: None,
            coding: None,
            image: None,
            geometry: self.geometry().name.clone(),
            classify: None,
            segment: None,
            overlay: None,
            unanswered: Vec::new(),
            code: None,
            error: None,
            bytes: None,
            ms: None,
        };
        match self.config.path {
            config::Path::Split => {
                line.level = Some(self.config.level);
                line.coding = frame.coding.map(|mode| mode.to_string());
            }
            config::Path::Image => line.image = Some(ImageSettings::of(&self.config)),
            config::Path::Local => {}
        }
        match outcome {
            Outcome::Failed(reason) => line.error = Some(reason.clone()),
            Outcome::Refused { refusal, sent, received, at } => {
                line.status = Status::Refused;
                line.code = Some(refusal.code.into());
                line.error = Some(refusal.to_string());
                line.bytes = Some(sizes(frame, *sent, *received));
                line.ms = Some(stage_times(frame, *at, None));
            }
            Outcome::Answered { reply, sent, received, at } => {
                line.bytes = Some(sizes(frame, *sent, *received));
                line.ms = Some(stage_times(frame, *at, Some(reply)));
                line.path = Some(reply.path.to_string());
                line.status = Status::Answered;
                self.fill_answer(frame, reply, &mut line, problem);
            }
            Outcome::Local { classes, timings, at, instead } => {
                line.status = Status::Answered;
                line.path = Some("local".to_owned());
                line.fallback = instead.clone();
                (line.level, line.coding, line.image) = (None, None, None);
                line.ms = Some(local_stage_times(frame, timings, *at, instead.is_some()));
                self.fill_local_answer(frame, classes, &mut line, problem);
            }
        }
        line
    }

    /// Fills in what the tasks said, and draws it.
    fn fill_answer(&self, frame: &Frame, reply: &Reply, line: &mut Line, problem: &mut Option<Error>) {
        let mut drawn = None;
        for TaskAnswer { task, outcome, .. } in &reply.answers {
            let Some(task) = self.bundle.tasks().get(usize::from(*task)) else { continue };
            match outcome {
                TaskOutcome::Classes(classes) => line.classify = Some(scores(task, classes)),
                TaskOutcome::Map(map) => match map.unpack() {
                    Ok(pixels) => {
                        line.segment = Some(segment(task, map, &pixels));
                        drawn = Some((task, pixels));
                    }
                    Err(error) => {
                        line.unanswered.push(Unanswered {
                            task: task.name.clone(),
                            code: None,
                            error: error.to_string(),
                        });
                    }
                },
                TaskOutcome::Refused(refusal) => line.unanswered.push(unanswered(task, refusal)),
                // The session lets no other outcome through.
                _ => {}
            }
        }
        if line.classify.is_none() && line.segment.is_none() {
            line.status = Status::Failed;
            line.error = Some("no task was answered".to_owned());
            return;
        }
        self.draw(frame, self.geometry(), drawn, line, problem);
    }

    /// Fills in what this device said, and draws it.
    fn fill_local_answer(
        &self,
        frame: &Frame,
        classes: &[Class],
        line: &mut Line,
        problem: &mut Option<Error>,
    ) {
        let Some(local) = self.bundle.local() else { return };
        line.geometry = local.geometry.name.clone();
        for &task in &self.config.tasks {
            match (task == local.task, &self.bundle.tasks()[task]) {
                (true, task) => line.classify = Some(scores(task, classes)),
                (false, task) => line.unanswered.push(Unanswered {
                    task: task.name.clone(),
                    code: None,
                    error: "the local network does not answer it".to_owned(),
                }),
            }
        }
        self.draw(frame, &local.geometry, None, line, problem);
    }

    /// The geometry of a frame unless it turns out otherwise.
    fn geometry(&self) -> &Geometry {
        match (self.config.path, self.bundle.local()) {
            (config::Path::Local, Some(local)) => &local.geometry,
            _ => &self.bundle.geometries()[self.config.geometry],
        }
    }

    /// Draws classes and class map, if pictures are wanted.
    fn draw(
        &self,
        frame: &Frame,
        geometry: &Geometry,
        drawn: Option<(&Task, Vec<u8>)>,
        line: &mut Line,
        problem: &mut Option<Error>,
    ) {
        let (Some(pictures), Some(photo)) = (&self.pictures, &frame.photo) else { return };
        let name =
            frame.file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let scores = line.classify.as_deref().unwrap_or_default();
        let palette =
            drawn.as_ref().map(|(task, _)| overlay::palette(task.labels.iter().map(|label| label.colour)));
        let map = line.segment.as_ref().zip(drawn.as_ref()).zip(palette.as_ref());
        let map = map.map(|((segment, (_, pixels)), colours)| picture(segment, pixels, colours));
        let overlay = overlay::draw(photo, geometry, &name, scores, map);
        let written = pictures.write(frame.number, "overlay", &encode(&overlay)).and_then(|overlay| {
            let mask =
                map.map(|map| pictures.write(frame.number, "mask", &overlay::mask(map))).transpose()?;
            Ok((overlay, mask))
        });
        match written {
            Ok((overlay, mask)) => match &mut line.segment {
                Some(segment) => (segment.overlay, segment.mask) = (Some(overlay), mask),
                None => line.overlay = Some(overlay),
            },
            Err(error) => {
                line.error = Some(error.to_string());
                problem.get_or_insert(error);
            }
        }
    }
}

impl PictureFolder {
    /// Makes the folder, and a name for each file.
    pub(crate) fn open(dir: &Path, files: &[PathBuf]) -> Result<Self, Error> {
        let place = format!("into --out {}", dir.display());
        fs::create_dir_all(dir).map_err(|source| Error::Output { place, source })?;
        Ok(PictureFolder { dir: dir.to_owned(), names: unique(files) })
    }

    fn write(&self, number: u64, what: &str, bytes: &Result<Vec<u8>, String>) -> Result<PathBuf, Error> {
        let name = usize::try_from(number).ok().and_then(|number| self.names.get(number));
        let path = self.dir.join(format!("{}.{what}.png", name.map_or("frame", String::as_str)));
        let written = match bytes {
            Ok(bytes) => fs::write(&path, bytes),
            Err(error) => Err(io::Error::other(error.clone())),
        };
        match written {
            Ok(()) => Ok(path),
            Err(source) => Err(Error::Output { place: path.display().to_string(), source }),
        }
    }
}

/// The stems of `files`, numbered where two are the same on a file system that ignores case.
fn unique(files: &[PathBuf]) -> Vec<String> {
    let stem =
        |file: &PathBuf| file.file_stem().map_or("frame".into(), |stem| stem.to_string_lossy().into_owned());
    let stems: Vec<String> = files.iter().map(stem).collect();
    let natural: HashSet<String> = stems.iter().map(|stem| stem.to_lowercase()).collect();
    let mut used = HashSet::new();
    let names = stems.into_iter().map(|stem| {
        if used.insert(stem.to_lowercase()) {
            return stem;
        }
        // A made-up name must not be another file's own either.
        let numbered = (2u32..).map(|number| format!("{stem}-{number}"));
        let mut free = numbered.filter(|name| !natural.contains(&name.to_lowercase()));
        free.find(|name| used.insert(name.to_lowercase())).unwrap_or(stem)
    });
    names.collect()
}

fn sizes(frame: &Frame, sent: usize, received: usize) -> Bytes {
    Bytes { packet: frame.payload.size(), sent, received }
}

fn stage_times(frame: &Frame, at: Instant, reply: Option<&Reply>) -> Millis {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let tail = reply.map(|reply| reply.timings).unwrap_or_default();
    let away = at.saturating_duration_since(frame.ready);
    Millis {
        decode: ms(frame.timings.decode),
        resize: ms(frame.timings.resize),
        head: ms(frame.timings.head),
        encode: ms(frame.timings.encode),
        network: ms(away.saturating_sub(tail.decode + tail.queue + tail.infer + tail.answer)),
        tail_queue: ms(tail.queue),
        tail_decode: ms(tail.decode),
        tail_infer: ms(tail.infer),
        tail_answer: ms(tail.answer),
        total: ms(at.saturating_duration_since(frame.started)),
    }
}

/// Stages of a frame that this device answered; `instead` of a server it waited for, if so.
fn local_stage_times(frame: &Frame, timings: &Timings, at: Instant, instead: bool) -> Millis {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let total = at.saturating_duration_since(frame.started);
    let work = timings.decode + timings.resize + timings.head;
    Millis {
        decode: ms(timings.decode),
        resize: ms(timings.resize),
        head: ms(timings.head),
        network: if instead { ms(total.saturating_sub(work)) } else { 0.0 },
        total: ms(total),
        ..Millis::default()
    }
}

fn scores(task: &Task, classes: &[Class]) -> Vec<ClassScore> {
    let score = |class: &Class| ClassScore {
        index: class.index,
        label: label(task, class.index),
        probability: class.probability.into(),
    };
    classes.iter().map(score).collect()
}

fn segment(task: &Task, map: &ClassMap, pixels: &[u8]) -> Segment {
    let mut counts = [0usize; 256];
    for &class in pixels {
        counts[usize::from(class)] += 1;
    }
    let seen = (0u16..).zip(counts).filter(|(_, count)| *count > 0);
    let mut classes: Vec<Share> = seen
        .map(|(index, count)| Share {
            index,
            label: label(task, index),
            share: count as f64 / pixels.len() as f64,
        })
        .collect();
    classes.sort_by(|a, b| b.share.total_cmp(&a.share));
    Segment { mask: None, overlay: None, width: map.width(), height: map.height(), classes }
}

fn label(task: &Task, index: u16) -> String {
    let label = task.labels.get(usize::from(index));
    label.map_or_else(|| format!("class {index}"), |label| label.name.clone())
}

fn unanswered(task: &Task, refusal: &Refusal) -> Unanswered {
    Unanswered { task: task.name.clone(), code: Some(refusal.code.into()), error: refusal.to_string() }
}

fn picture<'a>(segment: &'a Segment, pixels: &'a [u8], colours: &'a [Colour; 256]) -> Map<'a> {
    Map {
        width: segment.width.into(),
        height: segment.height.into(),
        pixels,
        colours,
        shares: &segment.classes,
    }
}

fn encode(picture: &image::RgbImage) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    picture.write_with_encoder(encoder).map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_files_with_one_stem_do_not_meet() {
        let files = ["a/cat.jpg", "b/cat.png", "c/Cat.jpg", "cat-2.jpg", "dog.jpg"].map(PathBuf::from);
        assert_eq!(unique(&files), ["cat", "cat-3", "Cat-4", "cat-2", "dog"]);
    }
}
