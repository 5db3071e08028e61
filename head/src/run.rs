//! A run: source and stages, uplink, and sink in three threads with a bounded number of frames between them.

use std::{
    io::{IsTerminal, Stdout},
    sync::{Arc, mpsc::sync_channel},
    thread,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use narrows_models::{Bundle, Parts};
use narrows_wire::{BundleId, identity::Identity};
use tokio::{
    runtime::{self, Handle},
    sync::mpsc,
    task::spawn_blocking,
};

use crate::{
    Error, Local, Stop,
    config::{Config, Flags},
    policy::FixedPolicy,
    report::Summary,
    shutdown::Shutdown,
    signals::Signals,
    sink::{JsonlSink, PictureFolder, SinkReport},
    source::{FileSource, FrameSource},
    stage::Stages,
    uplink::{Connector, Fallback, FrameQueue, LocalAnswers, Uplink, find},
};

mod producer;

use self::producer::Producer;

/// How long an interrupted run waits for the answers of frames in flight.
const GRACE: Duration = Duration::from_secs(2);

/// What a run did and how it ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunReport {
    /// Totals of all frames.
    pub summary: Summary,
    /// What asked the run to end early.
    pub stop: Option<Stop>,
    /// The error that ended the run early.
    pub error: Option<Error>,
}

/// The parts of a run, opened and checked before the first frame.
struct Run {
    config: Config,
    source: FileSource,
    stages: Stages,
    policy: FixedPolicy,
    /// `None` where nothing is sent.
    connector: Option<Arc<Connector>>,
    /// The network that answers while the server is away.
    fallback: Option<Local>,
    sink: JsonlSink<Stdout>,
}

/// Takes the frames of the source through the bundle and writes their lines to standard output, as `narrows-head run`
/// does.
///
/// # Errors
/// What kept the run from beginning. An error that ends it later is in [`RunReport::error`].
pub fn run(flags: &Flags) -> Result<RunReport, Error> {
    let run = Run::open(flags)?;
    // One thread for everything that waits, so that an answer is passed on without waking another core.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::Device { problem: "no runtime", source })?;
    runtime.block_on(run.start())
}

impl Run {
    fn open(flags: &Flags) -> Result<Self, Error> {
        let bundle = Bundle::open(&flags.bundle, Parts::Head)?;
        let config = Config::new(flags, &bundle)?;
        let identity = config.server.as_ref().map(|(_, folder)| Identity::load(folder)).transpose()?;
        let source = FileSource::open(&flags.source, config.repeat)?;
        let pictures = config.out.as_deref().map(PictureFolder::create).transpose()?;
        let connector = config.server.as_ref().zip(identity).map(|((server, _), identity)| {
            let tasks = config.tasks.iter().map(|&task| bundle.tasks()[task].name.clone()).collect();
            let id = BundleId(*bundle.digest().bytes());
            Connector::new(server.clone(), identity, config.tuning.clone(), id, tasks).map(Arc::new)
        });
        let connector = connector.transpose()?;
        let stages = Stages::open(&bundle, &config)?;
        let fallback = connector.is_some() && config.fallback;
        let policy = FixedPolicy::new(&config, bundle.tasks(), fallback);
        let fallback = fallback.then(|| Local::open(&bundle)).transpose()?;
        let progress = progress_bar(source.total());
        let sink = JsonlSink { bundle, pictures, progress, out: std::io::stdout() };
        Ok(Run { config, source, stages, policy, connector, fallback, sink })
    }

    async fn start(self) -> Result<RunReport, Error> {
        let Run { config, source, stages, policy, connector, fallback, sink } = self;
        let shutdown = Shutdown::new();
        let mut signals = tokio::spawn(shut_down_on_signals(Signals::watch()?, shutdown.clone()));
        let total = source.total();

        let mut first = None;
        if let Some(connector) = &connector {
            tokio::select! {
                session = find(connector, config.retry_for, fallback.is_some()) => match session {
                    Err(error) if fallback.is_none() || !error.is_of_server() => {
                        return Err(error);
                    }
                    session => first = Some(session),
                },
                stop = &mut signals => {
                    let summary = Summary::of_none(total.unwrap_or(0));
                    return Ok(RunReport { summary, stop: stop.ok(), error: None });
                }
            }
        }

        // Each frame holds one of the places in flight until it is reported, so no channel ever has more frames than it
        // has room for.
        let (encoded_in, encoded) = mpsc::channel(config.in_flight);
        let (finished_in, finished) = sync_channel(config.in_flight);
        let (fallback_in, fallback_frames) = sync_channel(config.in_flight);
        let has_fallback = fallback.is_some();
        let fallback = fallback.map(|local| LocalAnswers {
            local,
            frames: fallback_frames,
            finished: finished_in.clone(),
        });
        let uplink = connector.map(|connector| Uplink {
            connector,
            queue: FrameQueue::new(encoded, finished_in.clone()),
            retry_for: config.retry_for,
            fallback: has_fallback.then_some(Fallback(fallback_in)),
            shutdown: shutdown.clone(),
        });
        let producer = Producer::new(
            source,
            policy,
            stages,
            config.in_flight,
            encoded_in,
            finished_in,
            shutdown.signal(Handle::current()),
        );
        let on_write_error = {
            let shutdown = shutdown.clone();
            move || shutdown.stop()
        };
        let producer = spawn("producer", move || producer.run())?;
        let sink = spawn("sink", move || sink.run(&finished, on_write_error))?;
        let fallback = fallback.map(|fallback| spawn("fallback", move || fallback.run())).transpose()?;

        let uplink_result = match uplink.zip(first) {
            Some((uplink, first)) => {
                let result = uplink.run(first).await;
                // Whatever the reason: without an uplink no new frame can be sent.
                shutdown.drain();
                result
            }
            None => Ok(()),
        };
        if let Some(fallback) = fallback {
            join(fallback, "answers on this device").await?;
        }
        let begun = join(producer, "captures and encodes frames").await?;
        let SinkReport { mut summary, unread, error } = join(sink, "writes the results").await?;
        summary.not_begun = total.map_or(0, |total| total.saturating_sub(begun));
        let stop = match unread {
            true => Some(Stop::Unread),
            false if signals.is_finished() => signals.await.ok(),
            false => None,
        };
        Ok(RunReport { summary, stop, error: uplink_result.err().or(error) })
    }
}

/// Drains the run on the first signal and stops it after [`GRACE`] or on the next signal; returns the first one.
async fn shut_down_on_signals(mut signals: Signals, shutdown: Shutdown) -> Stop {
    let first = signals.next().await;
    shutdown.drain();
    tokio::spawn(async move {
        let _ = tokio::time::timeout(GRACE, signals.next()).await;
        shutdown.stop();
    });
    first
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, Error> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|source| Error::Device { problem: "no thread", source })
}

/// Waits for a thread without blocking the runtime.
async fn join<T: Send + 'static>(thread: thread::JoinHandle<T>, task: &'static str) -> Result<T, Error> {
    match spawn_blocking(|| thread.join()).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) | Err(_) => Err(Error::Thread { task }),
    }
}

/// Progress on standard error, if that is a terminal: a bar where the number of frames is known, else a counter.
fn progress_bar(total: Option<u64>) -> ProgressBar {
    if total.is_some_and(|total| total < 2) || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), "{bar:32.cyan/238} {pos}/{len} frames  {per_sec}  {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {pos} frames  {per_sec}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
