//! A run: source, head, link and reporter as three threads with a bounded number of frames between them.
#![expect(clippy::disallowed_methods, reason = "a frame's budget begins to run when it is taken")]

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use narrows_models::{Bundle, Parts, TaskKind};
use narrows_wire::{BundleId, Class, Payload, Query, TaskRequest, identity::Identity};
use tokio::{
    runtime::{self, Handle},
    signal::unix::{SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc as channel, watch},
};

use crate::{
    Error, Head, Local, Offload,
    config::{self, Config, Flags},
    dial::Dialer,
    frame::{Ended, Ending, Shot},
    link::{Link, reach},
    load,
    local::Fallback,
    pipeline::Timings,
    report::Summary,
    reporter::{Gallery, Reported, Reporter},
    source,
};

/// Classes asked of a classifier.
const TOP_K: u16 = 5;
/// How long an interrupted run waits for the answers that are out.
const GRACE: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ran {
    /// What became of the frames.
    pub summary: Summary,
    /// What asked the run to end early.
    pub stop: Option<Stop>,
    /// What made the run end early.
    pub error: Option<Error>,
}

/// What asked a run to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// SIGINT, the terminal's Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// Nobody reads standard output any more.
    Unread,
}

/// Does what the flags say: frames in, lines on standard output.
///
/// # Errors
/// What kept the run from beginning. What ends it later is in [`Ran::error`], along with what was done until then.
pub fn run(flags: &Flags) -> Result<Ran, Error> {
    let bundle = Bundle::open(&flags.bundle, Parts::Head)?;
    let config = Config::new(flags, &bundle)?;
    let identity = config.server.as_ref().map(|(_, folder)| Identity::load(folder)).transpose()?;
    let files = source::list(&flags.source)?;
    let gallery = config.out.as_deref().map(|dir| Gallery::open(dir, &files)).transpose()?;
    let dialer = config.server.as_ref().zip(identity).map(|((server, _), identity)| {
        let tasks = config.tasks.iter().map(|&task| bundle.tasks()[task].name.clone()).collect();
        Dialer::new(server.clone(), &identity, BundleId(*bundle.digest().bytes()), tasks)
    });
    let dialer = dialer.transpose()?;
    let coder = match config.path {
        config::Path::Split => Coder::Split(Box::new(Head::open(bundle.clone())?.coding(config.coding))),
        config::Path::Image => Coder::Image(Offload::new(&bundle, config.encoding, config.framing)),
        config::Path::Local => Coder::Local(Box::new(Local::open(&bundle)?)),
    };
    let fallback = (dialer.is_some() && config.fallback).then(|| Local::open(&bundle)).transpose()?;
    // One thread for everything that waits: an answer is passed on without waking another core.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Device(format!("no runtime: {error}")))?;
    let bar = bar(files.len() * config.repeat);
    let reporter = Reporter { bundle, config: config.clone(), gallery, bar, out: std::io::stdout() };
    runtime.block_on(drive(dialer, coder, fallback, reporter, files, config))
}

async fn drive(
    dialer: Option<Dialer>,
    coder: Coder,
    fallback: Option<Local>,
    reporter: Reporter<std::io::Stdout>,
    files: Vec<PathBuf>,
    config: Config,
) -> Result<Ran, Error> {
    let places = Arc::new(Semaphore::new(config.in_flight));
    let (stop, stopped) = watch::channel(false);
    let signals = signals()?;
    let mut watcher = tokio::spawn(watch_signals(signals, Arc::clone(&places), stop.clone()));
    let task_requests = task_requests(&reporter.bundle, &config.tasks);
    let all = files.len() * config.repeat;

    let mut first = None;
    if let Some(dialer) = &dialer {
        tokio::select! {
            session = reach(dialer, config.retry_for) => match session {
                Err(error) if fallback.is_none() || !matches!(error, Error::Unreachable { .. }) => return Err(error),
                session => first = Some(session),
            },
            stop = &mut watcher => return Ok(Ran { summary: Summary::unbegun(all), stop: stop.ok(), error: None }),
        }
    }

    let (shots_in, shots) = channel::channel(config.in_flight);
    let (endings_in, endings) = mpsc::channel();
    let (alone_in, alone) = mpsc::channel();
    let has_fallback = fallback.is_some();
    let fallback = fallback.map(|local| Fallback { local, shots: alone, endings: endings_in.clone() });
    let link = dialer.map(|dialer| Link {
        dialer,
        task_requests,
        retry_for: config.retry_for,
        shots,
        endings: endings_in.clone(),
        fallback: has_fallback.then_some(alone_in),
        stop: stopped,
        again: Default::default(),
    });
    let camera = Camera {
        coder,
        files,
        config,
        places: Arc::clone(&places),
        shots: shots_in,
        endings: endings_in,
        runtime: Handle::current(),
    };
    let hurt = {
        let (places, stop) = (Arc::clone(&places), stop.clone());
        move || {
            places.close();
            stop.send_replace(true);
        }
    };
    let camera = spawn("camera", move || camera.run())?;
    let reporter = spawn("reporter", move || reporter.run(&endings, hurt))?;
    let fallback = fallback.map(|fallback| spawn("fallback", move || fallback.run())).transpose()?;

    let linked = match link.zip(first) {
        Some((link, first)) => {
            let linked = link.run(first).await;
            // Whatever the reason, no new frame is worth taking now.
            places.close();
            linked
        }
        None => Ok(()),
    };
    if let Some(fallback) = fallback {
        let ended = tokio::task::spawn_blocking(|| fallback.join()).await;
        let failed = || Error::Device("the thread that answers on this device failed".to_owned());
        ended.map_err(|_| failed())?.map_err(|_| failed())?;
    }
    let (taken, reported) = tokio::task::spawn_blocking(|| (camera.join(), reporter.join()))
        .await
        .map_err(|error| Error::Device(error.to_string()))?;
    let taken = taken.map_err(|_| Error::Device("the thread that runs the head failed".to_owned()))?;
    let Reported { mut summary, unread, error } =
        reported.map_err(|_| Error::Device("the thread that writes the results failed".to_owned()))?;
    summary.left = all - taken;
    let stop = match unread {
        true => Some(Stop::Unread),
        false if *stop.borrow() || watcher.is_finished() => watcher.await.ok(),
        false => None,
    };
    Ok(Ran { summary, stop, error: linked.err().or(error) })
}

/// What becomes of a photo on this device.
enum Coder {
    /// A packet for the server.
    Split(Box<Head>),
    /// An image for the server.
    Image(Offload),
    /// An answer.
    Local(Box<Local>),
}

/// Takes frames from the source and codes them.
struct Camera {
    coder: Coder,
    files: Vec<PathBuf>,
    config: Config,
    places: Arc<Semaphore>,
    shots: channel::Sender<Shot>,
    endings: mpsc::Sender<Ended>,
    runtime: Handle,
}

impl Camera {
    /// Works through the source while there are places; returns how many frames were taken.
    fn run(mut self) -> usize {
        let rounds = self.files.len() * self.config.repeat;
        for number in 0..rounds {
            let place = self.runtime.block_on(Arc::clone(&self.places).acquire_owned());
            let Ok(place) = place else { return number };
            let file = self.files[number % self.files.len()].clone();
            // Pictures of the first round would be drawn again.
            let keep = self.config.out.is_some() && number < self.files.len();
            let (shot, coded) = self.take(number as u64, &file, place, keep);
            let ended = match coded {
                Err(error) => Ended { shot, ending: Ending::Failed(error.to_string()) },
                Ok(Some(classes)) => {
                    let (timings, at) = (shot.timings, shot.ready);
                    Ended { shot, ending: Ending::Local { classes, timings, at, instead: None } }
                }
                Ok(None) => match self.shots.blocking_send(shot) {
                    Ok(()) => continue,
                    Err(back) => Ended {
                        shot: back.0,
                        ending: Ending::Failed("not sent: the run was ending".to_owned()),
                    },
                },
            };
            if self.endings.send(ended).is_err() {
                return number + 1;
            }
        }
        rounds
    }

    fn take(
        &mut self,
        number: u64,
        file: &Path,
        place: OwnedSemaphorePermit,
        keep: bool,
    ) -> (Shot, Result<Option<Vec<Class>>, Error>) {
        let started = Instant::now();
        let mut shot = Shot {
            number,
            file: file.to_owned(),
            started,
            ready: started,
            deadline: started + self.config.budget,
            timings: Timings::default(),
            payload: Payload::Packet(Vec::new()),
            coding: None,
            photo: None,
            _place: place,
        };
        let coded = self.code(&mut shot, keep);
        shot.ready = Instant::now();
        (shot, coded)
    }

    /// Makes the frame's payload, or its answer where nothing travels.
    fn code(&mut self, shot: &mut Shot, keep: bool) -> Result<Option<Vec<Class>>, Error> {
        let photo = load(&shot.file)?;
        let decode = shot.started.elapsed();
        let geometry = self.config.geometry;
        let (timings, classes) = match &mut self.coder {
            Coder::Split(head) => {
                let encoded = head.frame_of(&photo, geometry, self.config.level)?;
                shot.payload = Payload::Packet(encoded.packet);
                shot.coding = Some(encoded.mode);
                (encoded.timings, None)
            }
            Coder::Image(offload) => {
                let (image, timings) = offload.frame_of(&photo, geometry)?;
                shot.payload = Payload::Image(image);
                (timings, None)
            }
            Coder::Local(local) => {
                let answer = local.answer(&photo)?;
                (answer.timings, Some(answer.classes()))
            }
        };
        shot.timings = Timings { decode, ..timings };
        shot.photo = keep.then_some(photo);
        Ok(classes)
    }
}

fn task_requests(bundle: &Bundle, tasks: &[usize]) -> Vec<TaskRequest> {
    let task_request = |&task: &usize| TaskRequest {
        // A bundle has at most 16 tasks.
        task: task as u8,
        query: match bundle.tasks()[task].kind {
            TaskKind::Classify => Query::Classify { top_k: TOP_K },
            TaskKind::Segment => Query::Segment { size: None },
        },
    };
    tasks.iter().map(task_request).collect()
}

pub(crate) type Signals = [(tokio::signal::unix::Signal, Stop); 2];

pub(crate) fn signals() -> Result<Signals, Error> {
    let watch =
        |kind| signal(kind).map_err(|error| Error::Device(format!("signals cannot be watched: {error}")));
    Ok([
        (watch(SignalKind::interrupt())?, Stop::Interrupt),
        (watch(SignalKind::terminate())?, Stop::Terminate),
    ])
}

/// On the first signal no new frame is taken; the answers that are out have a while, or until the next signal.
async fn watch_signals(mut signals: Signals, places: Arc<Semaphore>, stop: watch::Sender<bool>) -> Stop {
    let first = next(&mut signals).await;
    places.close();
    tokio::spawn(async move {
        let _ = tokio::time::timeout(GRACE, next(&mut signals)).await;
        stop.send_replace(true);
    });
    first
}

pub(crate) async fn next([(one, first), (other, second)]: &mut Signals) -> Stop {
    tokio::select! {
        _ = one.recv() => *first,
        _ = other.recv() => *second,
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, Error> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| Error::Device(format!("no thread: {error}")))
}

fn bar(frames: usize) -> ProgressBar {
    if frames < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:32.cyan/238} {pos}/{len} frames  {per_sec}  {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(frames as u64).with_style(style)
}
