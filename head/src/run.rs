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
use narrows_codec::{GeometryId, LevelId};
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
    connect::Connector,
    frame::{FinishedFrame, Frame, Outcome},
    jsonl::{JsonlSink, PictureFolder, SinkReport},
    load,
    local::Fallback,
    pipeline::Timings,
    report::Summary,
    source,
    uplink::{Uplink, connect_with_retry},
};

/// Classes asked of a classifier.
const TOP_K: u16 = 5;
/// How long an interrupted run waits for the answers that are out.
const GRACE: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunReport {
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
/// What kept the run from beginning. What ends it later is in [`RunReport::error`], along with what was done until then.
pub fn run(flags: &Flags) -> Result<RunReport, Error> {
    let bundle = Bundle::open(&flags.bundle, Parts::Head)?;
    let config = Config::new(flags, &bundle)?;
    let identity = config.server.as_ref().map(|(_, folder)| Identity::load(folder)).transpose()?;
    let files = source::list(&flags.source)?;
    let pictures = config.out.as_deref().map(|dir| PictureFolder::open(dir, &files)).transpose()?;
    let connector = config.server.as_ref().zip(identity).map(|((server, _), identity)| {
        let tasks = config.tasks.iter().map(|&task| bundle.tasks()[task].name.clone()).collect();
        Connector::new(server.clone(), &identity, BundleId(*bundle.digest().bytes()), tasks)
    });
    let connector = connector.transpose()?;
    let coder = match config.path {
        config::Path::Split => Coder::Split(Box::new(Head::open(bundle.clone())?.coding(config.coding))),
        config::Path::Image => Coder::Image(Offload::new(&bundle, config.encoding, config.framing)),
        config::Path::Local => Coder::Local(Box::new(Local::open(&bundle)?)),
    };
    let fallback = (connector.is_some() && config.fallback).then(|| Local::open(&bundle)).transpose()?;
    // One thread for everything that waits: an answer is passed on without waking another core.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Device(format!("no runtime: {error}")))?;
    let progress_bar = progress_bar(files.len() * config.repeat);
    let sink = JsonlSink { bundle, config: config.clone(), pictures, bar: progress_bar, out: std::io::stdout() };
    runtime.block_on(run_pipeline(connector, coder, fallback, sink, files, config))
}

async fn run_pipeline(
    connector: Option<Connector>,
    coder: Coder,
    fallback: Option<Local>,
    sink: JsonlSink<std::io::Stdout>,
    files: Vec<PathBuf>,
    config: Config,
) -> Result<RunReport, Error> {
    let permits = Arc::new(Semaphore::new(config.in_flight));
    let (stop, stopped) = watch::channel(false);
    let signals = signals()?;
    let mut watcher = tokio::spawn(watch_signals(signals, Arc::clone(&permits), stop.clone()));
    let task_requests = task_requests(&sink.bundle, &config.tasks);
    let all = files.len() * config.repeat;

    let mut first = None;
    if let Some(connector) = &connector {
        tokio::select! {
            session = connect_with_retry(connector, config.retry_for) => match session {
                Err(error) if fallback.is_none() || !matches!(error, Error::Unreachable { .. }) => return Err(error),
                session => first = Some(session),
            },
            stop = &mut watcher => return Ok(RunReport { summary: Summary::not_started(all), stop: stop.ok(), error: None }),
        }
    }

    let (frames_in, frames) = channel::channel(config.in_flight);
    let (outcomes_in, outcomes) = mpsc::channel();
    let (fallback_frames_in, fallback_frames) = mpsc::channel();
    let has_fallback = fallback.is_some();
    let fallback =
        fallback.map(|local| Fallback { local, frames: fallback_frames, outcomes: outcomes_in.clone() });
    let uplink = connector.map(|connector| Uplink {
        connector,
        task_requests,
        retry_for: config.retry_for,
        frames,
        outcomes: outcomes_in.clone(),
        fallback: has_fallback.then_some(fallback_frames_in),
        stop: stopped,
        resend: Default::default(),
    });
    let producer = Producer {
        coder,
        files,
        config,
        permits: Arc::clone(&permits),
        frames: frames_in,
        outcomes: outcomes_in,
        runtime: Handle::current(),
    };
    let on_write_error = {
        let (permits, stop) = (Arc::clone(&permits), stop.clone());
        move || {
            permits.close();
            stop.send_replace(true);
        }
    };
    let producer = spawn("camera", move || producer.run())?;
    let sink = spawn("reporter", move || sink.run(&outcomes, on_write_error))?;
    let fallback = fallback.map(|fallback| spawn("fallback", move || fallback.run())).transpose()?;

    let uplink_result = match uplink.zip(first) {
        Some((uplink, first)) => {
            let uplink_result = uplink.run(first).await;
            // Whatever the reason, no new frame is worth taking now.
            permits.close();
            uplink_result
        }
        None => Ok(()),
    };
    if let Some(fallback) = fallback {
        let finished = tokio::task::spawn_blocking(|| fallback.join()).await;
        let failed = || Error::Device("the thread that answers on this device failed".to_owned());
        finished.map_err(|_| failed())?.map_err(|_| failed())?;
    }
    let (captured, sink_report) = tokio::task::spawn_blocking(|| (producer.join(), sink.join()))
        .await
        .map_err(|error| Error::Device(error.to_string()))?;
    let captured = captured.map_err(|_| Error::Device("the thread that runs the head failed".to_owned()))?;
    let SinkReport { mut summary, unread, error } =
        sink_report.map_err(|_| Error::Device("the thread that writes the results failed".to_owned()))?;
    summary.left = all - captured;
    let stop = match unread {
        true => Some(Stop::Unread),
        false if *stop.borrow() || watcher.is_finished() => watcher.await.ok(),
        false => None,
    };
    Ok(RunReport { summary, stop, error: uplink_result.err().or(error) })
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
struct Producer {
    coder: Coder,
    files: Vec<PathBuf>,
    config: Config,
    permits: Arc<Semaphore>,
    frames: channel::Sender<Frame>,
    outcomes: mpsc::Sender<FinishedFrame>,
    runtime: Handle,
}

impl Producer {
    /// Works through the source while there are places; returns how many frames were taken.
    fn run(mut self) -> usize {
        let rounds = self.files.len() * self.config.repeat;
        for number in 0..rounds {
            let permit = self.runtime.block_on(Arc::clone(&self.permits).acquire_owned());
            let Ok(permit) = permit else { return number };
            let file = self.files[number % self.files.len()].clone();
            // Pictures of the first round would be drawn again.
            let keep = self.config.out.is_some() && number < self.files.len();
            let (frame, coded) = self.capture(number as u64, &file, permit, keep);
            let finished = match coded {
                Err(error) => FinishedFrame { frame, outcome: Outcome::Failed(error.to_string()) },
                Ok(Some(classes)) => {
                    let (timings, at) = (frame.timings, frame.ready);
                    FinishedFrame { frame, outcome: Outcome::Local { classes, timings, at, instead: None } }
                }
                Ok(None) => match self.frames.blocking_send(frame) {
                    Ok(()) => continue,
                    Err(back) => FinishedFrame {
                        frame: back.0,
                        outcome: Outcome::Failed("not sent: the run was ending".to_owned()),
                    },
                },
            };
            if self.outcomes.send(finished).is_err() {
                return number + 1;
            }
        }
        rounds
    }

    fn capture(
        &mut self,
        number: u64,
        file: &Path,
        permit: OwnedSemaphorePermit,
        keep: bool,
    ) -> (Frame, Result<Option<Vec<Class>>, Error>) {
        let started = Instant::now();
        let mut frame = Frame {
            number,
            file: file.to_owned(),
            started,
            ready: started,
            deadline: started + self.config.budget,
            timings: Timings::default(),
            payload: Payload::Packet(Vec::new()),
            coding: None,
            photo: None,
            _place: permit,
        };
        let coded = self.code(&mut frame, keep);
        frame.ready = Instant::now();
        (frame, coded)
    }

    /// Makes the frame's payload, or its answer where nothing travels.
    fn code(&mut self, frame: &mut Frame, keep: bool) -> Result<Option<Vec<Class>>, Error> {
        let photo = load(&frame.file)?;
        let decode = frame.started.elapsed();
        let geometry = GeometryId(self.config.geometry as u8);
        let (timings, classes) = match &mut self.coder {
            Coder::Split(head) => {
                let encoded = head.encode_image(&photo, geometry, LevelId(self.config.level as u8))?;
                frame.payload = Payload::Packet(encoded.packet);
                frame.coding = Some(encoded.mode);
                (encoded.timings, None)
            }
            Coder::Image(offload) => {
                let (image, timings) = offload.encode_image(&photo, geometry)?;
                frame.payload = Payload::Image(image);
                (timings, None)
            }
            Coder::Local(local) => {
                let answer = local.answer(&photo)?;
                (answer.timings, Some(answer.classes()))
            }
        };
        frame.timings = Timings { decode, ..timings };
        frame.photo = keep.then_some(photo);
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
async fn watch_signals(mut signals: Signals, permits: Arc<Semaphore>, stop: watch::Sender<bool>) -> Stop {
    let first = next(&mut signals).await;
    permits.close();
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

fn progress_bar(frames: usize) -> ProgressBar {
    if frames < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{progress_bar:32.cyan/238} {pos}/{len} frames  {per_sec}  {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(frames as u64).with_style(style)
}
