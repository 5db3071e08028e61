//! Live sources side by side, of which each gets its turn.
#![expect(clippy::disallowed_methods, reason = "frames are spaced and their decoding is timed")]

use std::{
    collections::HashSet,
    io::{self, PipeWriter},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use narrows_models::Geometry;

use super::{
    FrameSource, SourceError,
    camera::{Camera, Feed},
    files::{FileSource, name_pictures},
    inbox::{Content, Inbox, Keep, Taken},
    intake::{Intake, Member},
    outlet::Outlet,
    spec::{Input, Kind, Spec},
    watch,
};
use crate::{
    Error,
    frame::{Capture, Origin},
    picture::{Delivered, Taker},
    report::{CameraTally, Totals},
    shutdown::{Shutdown, StopSignal},
};

/// How long the threads of cameras are waited for at the end; each has a program to end.
const END: Duration = Duration::from_millis(800);

/// What applies to all sources of a run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How often inputs that have an end are read; `None` for no end.
    pub(crate) passes: Option<u64>,
    /// Time for reading a file.
    pub(crate) budget: Duration,
    /// Most frames a second that are taken from each source.
    pub(crate) rate: Option<f64>,
    /// How long a camera may deliver nothing.
    pub(crate) stall: Duration,
    /// Whether every frame of a live source is taken, and not the newest.
    pub(crate) every: bool,
    /// When the run began.
    pub(crate) began: SystemTime,
    /// The inputs of the networks that see the frames of cameras; none where frames are needed as images.
    pub(crate) views: Arc<[Geometry]>,
}

/// Sources in threads of their own, which take turns.
#[derive(Debug)]
pub(super) struct Live {
    intake: Arc<Intake>,
    /// What is started with the first frame that is wanted.
    jobs: Vec<Job>,
    threads: Vec<JoinHandle<()>>,
    /// Has the threads of files end, once they were started.
    end: Option<Shutdown>,
    closer: Closer,
    /// The source whose turn it is.
    turn: usize,
    total: Option<u64>,
    totals: Arc<Totals>,
    taker: Taker,
}

#[derive(Debug)]
enum Job {
    Camera(Box<Camera>),
    /// A source of files and its place.
    Files(Box<FileSource>, usize),
}

/// Ends the cameras of a run, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Closer {
    /// Dropping it is what cameras wait for.
    writer: Arc<Mutex<Option<PipeWriter>>>,
    inbox: Arc<Inbox>,
}

/// The present time, from which on files in a watched folder are new.
pub(crate) fn present() -> SystemTime {
    SystemTime::now()
}

impl Live {
    /// Opens the sources `specs`. Cameras are opened when the first frame is wanted.
    ///
    /// # Errors
    /// [`SourceError`] for files that do not exist and for names that stand twice; [`Error::Device`] if no pipe can be made.
    pub(super) fn open(specs: &[Spec], settings: &Settings, totals: &Arc<Totals>) -> Result<Self, Error> {
        let problem = "no pipe can be made; raise the limit of open files (ulimit -n)";
        let (stop, writer) = io::pipe().map_err(|source| Error::Device { problem, source })?;
        let stop = Arc::new(stop);
        let names = names(specs)?;
        let tallies: Vec<Arc<CameraTally>> =
            names.iter().map(|name| Arc::new(CameraTally::new(name.to_string()))).collect();
        let inbox = Arc::new(Inbox::new(&tallies));
        let (mut jobs, mut total) = (Vec::new(), Some(0u64));
        for (place, (spec, (name, tally))) in specs.iter().zip(names.iter().zip(&tallies)).enumerate() {
            let feed = match &spec.kind {
                Kind::Files(path) => {
                    let files = FileSource::open(path, settings.passes, settings.budget)?;
                    let files = files.named(spec.name.as_deref());
                    total = total.zip(files.total()).map(|(all, one)| all.saturating_add(one));
                    jobs.push(Job::Files(Box::new(files), place));
                    continue;
                }
                Kind::Watch(folder) => Feed::Watch(folder.clone(), watch::Files::default()),
                Kind::Stream(input, raw) => Feed::Stream(input.clone(), *raw),
            };
            total = None;
            let outlet = Outlet {
                name: Arc::clone(name),
                inbox: Arc::clone(&inbox),
                place,
                tally: Arc::clone(tally),
                keep: if settings.every { Keep::Every } else { Keep::Newest },
                lost: None,
            };
            jobs.push(Job::Camera(Box::new(Camera {
                feed,
                outlet,
                stop: Arc::clone(&stop),
                patience: settings.stall,
                passes: settings.passes,
                began: settings.began,
                attempt: 0,
            })));
        }
        let cameras = specs.iter().zip(&names).filter(|(spec, _)| spec.is_live()).map(|(_, name)| &**name);
        let files = jobs.iter_mut().filter_map(|job| match job {
            Job::Files(files, _) => Some(&mut **files),
            Job::Camera(_) => None,
        });
        name_pictures(cameras, files.collect());
        let member = |(spec, (name, tally)): (&Spec, (Arc<str>, Arc<CameraTally>))| Member {
            name,
            tally,
            is_newest: spec.is_live() && !settings.every,
        };
        let members = specs.iter().zip(names.into_iter().zip(tallies)).map(member).collect();
        let closer = Closer { writer: Arc::new(Mutex::new(Some(writer))), inbox: Arc::clone(&inbox) };
        let totals = Arc::clone(totals);
        let views = Arc::clone(&settings.views);
        let taker = Taker::new(Arc::clone(&views));
        let intake = Arc::new(Intake::new(inbox, members, settings.rate, views));
        Ok(Live { intake, jobs, threads: Vec::new(), end: None, closer, turn: 0, total, totals, taker })
    }

    /// What ends the cameras.
    pub(super) fn closer(&self) -> Closer {
        self.closer.clone()
    }

    /// What others reach of the sources.
    pub(super) fn intake(&self) -> Arc<Intake> {
        Arc::clone(&self.intake)
    }

    /// Where errors of the sources are noted.
    pub(super) fn totals(&self) -> Arc<Totals> {
        Arc::clone(&self.totals)
    }

    /// How many pictures there will be; `None` if that is unknown or there is no end.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// The names of the sources in the lines of the run, before the first frame is wanted.
    pub(super) fn names(&self) -> Vec<Option<Arc<str>>> {
        let name = |job: &Job| match job {
            Job::Camera(camera) => Some(Arc::clone(&camera.outlet.name)),
            Job::Files(files, _) => files.name(),
        };
        self.jobs.iter().map(name).collect()
    }

    /// Has `totals` tell what becomes of the frames of cameras, before the first one is wanted.
    pub(super) fn count_in(&self, totals: &Totals) {
        for job in &self.jobs {
            if let Job::Camera(camera) = job {
                totals.watch(Arc::clone(&camera.outlet.tally));
            }
        }
    }

    /// Starts the threads of all sources.
    fn start(&mut self, stop: &StopSignal) {
        // They go on where the settings change, and end with these sources.
        let (end, stop) = stop.of_run().part();
        self.end = Some(end);
        for job in std::mem::take(&mut self.jobs) {
            let (inbox, totals) = (Arc::clone(&self.intake.inbox), Arc::clone(&self.totals));
            let place = match &job {
                Job::Camera(camera) => camera.outlet.place,
                Job::Files(_, place) => *place,
            };
            let guard = EndOnDrop { inbox: Arc::clone(&inbox), totals: Arc::clone(&totals), place };
            let name = Arc::clone(&self.intake.member(place).name);
            let stop = stop.clone();
            let work = move || {
                let _guard = guard;
                match job {
                    Job::Camera(camera) => {
                        if let Some(source) = camera.run() {
                            let name = name.to_string();
                            totals.note_error(SourceError::Camera { name, source }.into());
                        }
                    }
                    Job::Files(mut files, place) => {
                        while inbox.wait_until_taken(place)
                            && let Some(capture) = files.next_frame(&stop)
                        {
                            inbox.put(place, capture.into(), Keep::Every);
                        }
                    }
                }
            };
            match thread::Builder::new().name("source".to_owned()).spawn(work) {
                Ok(thread) => self.threads.push(thread),
                Err(source) => {
                    let problem =
                        "no thread can be started for a source; raise the limit of processes (ulimit -u)";
                    self.totals.note_error(Error::Device { problem, source });
                    self.intake.inbox.end(place);
                }
            }
        }
    }

    /// Waits for the next frame, of whatever source has its turn, and decodes it; returns the place of the source as well.
    pub(super) fn next_frame(&mut self, stop: &StopSignal) -> Option<(usize, Capture)> {
        if !self.jobs.is_empty() {
            self.start(stop);
        }
        let intake = Arc::clone(&self.intake);
        let inbox = &intake.inbox;
        loop {
            let now = Instant::now();
            if let Some(taken) = inbox.take(self.turn, |source| intake.wait(source, now).is_none()) {
                let source = taken.source;
                self.turn = (source + 1) % intake.len();
                intake.count(source, now);
                return Some((source, self.capture(taken)));
            }
            if inbox.is_done() {
                return None;
            }
            // The next moment at which a frame that waits may be taken.
            let waiting = (0..intake.len()).filter(|&source| inbox.has(source));
            let next = waiting.filter_map(|source| intake.wait(source, now)).min();
            stop.block_on(async {
                match next {
                    Some(next) => {
                        // A frame of another source may come before that.
                        tokio::select! {
                            () = tokio::time::sleep_until(next.into()) => {}
                            () = inbox.bell.notified() => {}
                        }
                    }
                    None => inbox.bell.notified().await,
                }
            })?;
        }
    }

    /// Takes and decodes the frame that waits of a source, if there is one and its time has come.
    pub(super) fn newer_frame(&mut self, source: usize) -> Option<Capture> {
        let now = Instant::now();
        let is_due = |other| other == source && self.intake.wait(source, now).is_none();
        let taken = self.intake.inbox.take(source, is_due)?;
        self.intake.count(source, now);
        Some(self.capture(taken))
    }

    /// Decodes a frame that was taken.
    fn capture(&mut self, taken: Taken) -> Capture {
        let begin = Instant::now();
        let Taken { source, arrival, sequence, replaced } = taken;
        let name = Arc::clone(&self.intake.member(source).name);
        self.taker.set_views(self.intake.views());
        let picture = match arrival.content {
            Content::Capture(capture) => return at_its_turn(*capture, begin),
            Content::Failed(error) => Err(error),
            Content::File(bytes) => self.taker.picture(&name, Delivered::File(bytes)),
            Content::Raw(raw) => self.taker.picture(&name, Delivered::Raw(raw)),
        };
        // A file of a folder is named by its path.
        let picture = picture.map_err(|error| match (error, &arrival.file) {
            (Error::Camera { source, .. }, Some(file)) => Error::Image { file: file.clone(), source },
            (error, _) => error,
        });
        Capture {
            origin: Origin::Camera {
                name: Arc::clone(&name),
                sequence,
                replaced,
                file: arrival.file.clone(),
            },
            // The picture of the camera's last frame replaces that of the one before.
            picture_name: Some(name.to_string()),
            captured_at: arrival.at,
            captured_on: arrival.on,
            decode: begin.elapsed(),
            picture,
            can_reload: false,
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.closer.close();
        self.end.iter().for_each(Shutdown::drain);
        let begin = Instant::now();
        while self.threads.iter().any(|thread| !thread.is_finished()) && begin.elapsed() < END {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Closer {
    /// Has every camera end, and its program.
    pub(crate) fn close(&self) {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.inbox.close();
    }
}

/// Notes the end of a source, and an error where its thread panics.
struct EndOnDrop {
    inbox: Arc<Inbox>,
    totals: Arc<Totals>,
    place: usize,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if thread::panicking() {
            self.totals.note_error(Error::Thread { task: "reads a source" });
        }
        self.inbox.end(self.place);
    }
}

/// The names of sources: as given, or by their kinds, with a number where one would stand twice.
fn names(specs: &[Spec]) -> Result<Vec<Arc<str>>, SourceError> {
    let mut used = HashSet::new();
    for name in specs.iter().filter_map(|spec| spec.name.as_deref()) {
        if !used.insert(name.to_lowercase()) {
            return Err(SourceError::Twice(name.to_owned()));
        }
    }
    if specs.iter().filter(|spec| matches!(spec.kind, Kind::Stream(Input::Stdin, _))).count() > 1 {
        return Err(SourceError::Twice("-".to_owned()));
    }
    let name = |spec: &Spec| {
        if let Some(name) = &spec.name {
            return name.as_str().into();
        }
        let base = spec.default_name();
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let free = [base.to_owned()].into_iter().chain(numbered).find(|name| used.insert(name.clone()));
        free.unwrap_or_default().into()
    };
    Ok(specs.iter().map(name).collect())
}

/// A picture of a source of files whose turn comes `now`: the time for which a stored one has waited for that is none of its
/// budget. One that somebody has just written, into a FIFO, is as old as it is.
pub(super) fn at_its_turn(capture: Capture, now: Instant) -> Capture {
    if !capture.can_reload {
        return capture;
    }
    let waited = now.saturating_duration_since(capture.captured_at + capture.decode);
    let (captured_at, captured_on) = (capture.captured_at + waited, capture.captured_on + waited);
    Capture { captured_at, captured_on, ..capture }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(texts: &[&str]) -> Vec<Spec> {
        texts.iter().map(|text| Spec::parse(text.as_ref()).unwrap()).collect()
    }

    #[test]
    fn every_source_has_a_name_of_its_own() {
        let all = specs(&["command:a", "command-2=command:b", "command:c", "rpicam:", "-", "watch:x"]);
        let found: Vec<String> = names(&all).unwrap().iter().map(|name| name.to_string()).collect();
        assert_eq!(found, ["command", "command-2", "command-3", "rpicam", "stdin", "watch"]);
        for twice in [["a=command:x", "A=command:y"], ["-", "b=-"]] {
            assert!(names(&specs(&twice)).is_err(), "{twice:?}");
        }
    }
}
