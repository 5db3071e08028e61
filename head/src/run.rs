//! A run: source and stages, uplink, and sink in threads with a bounded number of frames between them.

use std::{
    io::IsTerminal,
    sync::{Arc, mpsc::sync_channel},
    thread,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use narrows_codec::LevelId;
use narrows_models::{Bundle, Parts};
use narrows_policy::PlannerConfig;
use narrows_wire::BundleId;
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};

use crate::{
    Error, Local, Stop,
    config::{Config, Flags, Level, Lines},
    demand::Demand,
    identity, limits,
    name::Escaped,
    policy::{FixedPolicy, Levels, Spending},
    report::{SpoolTally, Summary, Totals},
    shutdown::Shutdown,
    signals::Signals,
    sink::{Hub, JsonlSink, Out, PictureFolder},
    source::{FrameSource, Reloader, Settings, Sources, Spec, present},
    stage::Stages,
    uplink::{
        Access, DecisionFile, DecisionLog, Fallback, FrameQueue, LocalAnswers, Planning, SPOOLED_IN_FLIGHT,
        Servers, Spool, Uplink, find,
    },
};

mod producer;
mod watts;

use self::producer::Producer;

/// How long an interrupted run waits for the answers of frames in flight.
const GRACE: Duration = Duration::from_millis(1000);
/// How long a run that gives up its frames may take to end by itself. After that it is left as it is: some thread is stuck in
/// the operating system, in a write that nobody reads or on a file system that does not answer.
const STUCK: Duration = Duration::from_millis(500);

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
    source: Sources,
    stages: Stages,
    policy: FixedPolicy,
    /// `None` where nothing is sent.
    servers: Option<Arc<Servers>>,
    /// For frames whose level is chosen when they are sent.
    planning: Option<Planning>,
    /// The network that answers while the server is away.
    fallback: Option<Local>,
    /// Where frames wait that no server answers.
    spool: Option<Spool>,
    /// Where decisions are recorded, and what records them.
    decisions: Option<(DecisionLog, DecisionFile)>,
    sink: JsonlSink<Out>,
    totals: Arc<Totals>,
}

/// Takes the frames of the source through the bundle and writes their lines to standard output, as `narrows-head run`
/// does.
///
/// The calling thread waits for signals and for the end, and for nothing else; it returns within two seconds of a signal
/// whatever the run is doing, and may leave threads behind that are stuck in the operating system. The process is meant to
/// end after that.
///
/// # Errors
/// What kept the run from beginning. An error that ends it later is in [`RunReport::error`].
pub fn run(flags: &Flags) -> Result<RunReport, Error> {
    limits::check()?;
    let flags = flags.clone();
    let runtime = event_loop()?;
    let report = runtime.block_on(async {
        let signals = Signals::watch()?;
        Signals::survive_file_size_limit()?;
        let (shutdown, totals) = (Shutdown::new(), Arc::new(Totals::default()));
        let work = {
            let (shutdown, totals) = (shutdown.clone(), Arc::clone(&totals));
            move || work(&flags, &shutdown, &totals)
        };
        let work = Worker::spawn("run", "runs the network", &shutdown, &totals, work)?;
        supervise(work, signals, &shutdown, &totals).await
    });
    runtime.shutdown_background();
    report
}

fn event_loop() -> Result<Runtime, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| Error::Device { problem: "no event loop", source })
}

/// Opens the parts of a run and runs it to its end.
fn work(flags: &Flags, shutdown: &Shutdown, totals: &Arc<Totals>) -> Result<Option<Error>, Error> {
    let run = Run::open(flags, Arc::clone(totals))?;
    // One thread for everything that waits, so that an answer is passed on without waking another core.
    let runtime = event_loop()?;
    let ended = runtime.block_on(run.start(shutdown));
    match &ended {
        Ok(_) => runtime.shutdown_background(),
        // A thread of the run may still be waiting by it, and would panic.
        Err(_) => std::mem::forget(runtime),
    }
    ended
}

/// Waits for the end of the work, or brings it about: at the first signal no new frames are begun, after [`GRACE`] or at the
/// next signal those in flight are given up, and [`STUCK`] after that the work is left as it is.
async fn supervise(
    work: Worker<Result<Option<Error>, Error>>,
    mut signals: Signals,
    shutdown: &Shutdown,
    totals: &Totals,
) -> Result<RunReport, Error> {
    let mut work = std::pin::pin!(work.join());
    let mut signal = None;
    let mut ended = tokio::select! {
        ended = &mut work => Some(ended),
        stop = signals.next() => {
            signal = Some(stop);
            None
        }
        () = shutdown.stopped() => None,
    };
    if ended.is_none() && signal.is_some() {
        shutdown.drain();
        tokio::select! {
            end = &mut work => ended = Some(end),
            () = sleep(GRACE) => {}
            _ = signals.next() => {}
            () = shutdown.stopped() => {}
        }
    }
    if ended.is_none() {
        shutdown.stop();
        ended = timeout(STUCK, work).await.ok();
    }
    let error = match ended.map(Result::flatten) {
        None => None,
        Some(Ok(error)) => error,
        Some(Err(error)) if signal.is_none() => return Err(error),
        Some(Err(error)) => Some(error),
    };
    let (summary, unread, output_error) = totals.take();
    Ok(RunReport { summary, stop: unread.or(signal), error: error.or(output_error) })
}

impl Run {
    fn open(flags: &Flags, totals: Arc<Totals>) -> Result<Self, Error> {
        let began = present();
        let specs = flags.source.iter().map(|text| Spec::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let mut bundle = Bundle::open(&flags.bundle, Parts::Head)?;
        let mut config = Config::new(flags, &bundle, specs.iter().any(Spec::is_live))?;
        let identity = config.servers.as_ref().map(|(_, folder)| identity::load(folder)).transpose()?;
        let settings = Settings {
            passes: config.repeat,
            budget: config.budget,
            rate: config.fps,
            stall: config.stall,
            every: config.every_frame,
            began,
        };
        let source = Sources::open(&specs, &settings, &totals)?;
        totals.expect(source.total());
        let pictures = config.out.as_deref().map(PictureFolder::create).transpose()?;
        let device = identity::device_name(config.device.as_deref(), identity.as_ref());
        let servers = config.servers.clone().zip(identity).map(|((servers, _), identity)| {
            let tasks = config.tasks.iter().map(|&task| bundle.tasks()[task].name.clone()).collect();
            let id = BundleId(*bundle.digest().bytes());
            let access = Access::new(identity, config.tuning.clone(), id, tasks)?;
            let access = Arc::new(access.planned(config.level == Level::Auto));
            Ok::<_, Error>(Arc::new(Servers::new(
                servers,
                &access,
                config.server_choice,
                config.return_after,
            )))
        });
        let servers = servers.transpose()?;
        if let Some(energy) = &mut config.energy
            && config.measures_watts
            && let Some((watts, rails)) = watts::measured(&bundle, config.geometry)
        {
            tracing::warn!("--for energy: computing adds {watts:.1} W, measured at {rails}");
            energy.computing = watts;
        }
        let spending = config.energy.map(|model| Arc::new(Spending::new(model)));
        let stages = Stages::open(&bundle, &config, spending.as_ref())?;
        let spool = config.spool.clone().map(|settings| {
            let tally = Arc::new(SpoolTally::new(Escaped(&settings.folder).to_string()));
            totals.add_spool(Arc::clone(&tally));
            // A bundle has at most 16 levels.
            let level = LevelId(bundle.default_level() as u8);
            let encoder = stages.level_encoder().map(|encoder| (encoder, level));
            Spool::open(settings, bundle.digest().short(), encoder, tally)
        });
        let spool = spool.transpose()?;
        let decisions = config
            .decisions
            .as_ref()
            .map(|settings| DecisionLog::open(settings, |tally| totals.add_sink(tally)));
        let decisions = decisions.transpose()?;
        let levels = Levels::new(&bundle, &config.tasks).filter(|_| config.level == Level::Auto);
        let planning = levels.zip(stages.level_encoder());
        let planning = planning.map(|(levels, encoder)| {
            let (waiting, energy) = (config.waiting, config.energy);
            let planner = PlannerConfig { waiting, energy, ..PlannerConfig::default() };
            let log = decisions.as_ref().map(|(log, _)| log.clone());
            Planning::new(encoder, levels, planner, spending.clone(), log)
        });
        let fallback = servers.is_some() && config.fallback;
        let demand = Demand::default();
        let policy = FixedPolicy::new(&config, bundle.tasks(), fallback, demand.clone());
        let fallback =
            fallback.then(|| stages.local().map_or_else(|| Local::open(&bundle), Ok)).transpose()?;
        bundle.release();
        let progress = progress_bar(source.total());
        let hub = Hub::open(&config.outputs, &device, &bundle, &source.cameras(), demand, &totals)?;
        let out = (config.outputs.lines == Lines::Standard).then(Out::new);
        let counts = Arc::clone(&totals);
        let sink = JsonlSink { bundle, device, spending, pictures, progress, out, hub, totals: counts };
        Ok(Run {
            config,
            source,
            stages,
            policy,
            servers,
            planning,
            fallback,
            spool,
            decisions,
            sink,
            totals,
        })
    }

    /// Runs to the end; returns what ended it early.
    async fn start(self, shutdown: &Shutdown) -> Result<Option<Error>, Error> {
        let Run { config, source, stages, policy, servers, planning, fallback, .. } = self;
        let Run { spool, decisions, sink, totals, .. } = self;

        let can_begin_alone = fallback.is_some() || spool.is_some();
        let mut first = None;
        if let Some(servers) = &servers {
            tokio::select! {
                session = find(servers, config.retry_for, can_begin_alone) => match session {
                    Err(error) if !can_begin_alone || !error.is_of_server() => {
                        sink.hub.close(shutdown).await;
                        return Err(error);
                    }
                    session => first = Some(session),
                },
                () = shutdown.draining() => {
                    sink.hub.close(shutdown).await;
                    return Ok(None);
                }
            }
        }

        // Each frame holds one of the places in flight until it is reported, so no channel ever has more frames than it
        // has room for.
        let (encoded_in, encoded) = mpsc::channel(config.in_flight);
        let (finished_in, finished) = sync_channel(config.in_flight + SPOOLED_IN_FLIGHT);
        let (fallback_in, fallback_frames) = sync_channel(config.in_flight);
        let way = fallback.is_some().then(|| Fallback::new(fallback_in));
        let spool_way = spool.as_ref().and_then(Spool::way);
        let fallback = fallback.zip(way.as_ref()).map(|(local, way)| LocalAnswers {
            local,
            reloader: Reloader::new(config.budget),
            frames: fallback_frames,
            pace: way.pace(),
            finished: finished_in.clone(),
            spool: spool_way.clone(),
        });
        let uplink = servers.map(|servers| Uplink {
            servers,
            queue: FrameQueue::new(encoded, finished_in.clone()).spooling(spool_way.clone()),
            planning,
            retry_for: config.retry_for,
            fallback: way,
            shutdown: shutdown.clone(),
        });
        let spool = spool.map(|spool| {
            let finished = finished_in.clone();
            let work = move || spool.run(finished);
            Worker::spawn("spool", "keeps frames on disk", shutdown, &totals, work)
        });
        let spool = spool.transpose()?;
        let (log, file) = decisions.unzip();
        let file = file.map(|file| {
            Worker::spawn("decisions", "records decisions", shutdown, &totals, move || file.run())
        });
        let file = file.transpose()?;
        if let Some(closer) = source.closer() {
            let shutdown = shutdown.clone();
            tokio::spawn(async move {
                shutdown.draining().await;
                closer.close();
            });
        }
        let producer = Producer {
            source,
            policy,
            stages,
            places: Arc::new(Semaphore::new(config.in_flight)),
            encoded: encoded_in,
            finished: finished_in,
            stop: shutdown.signal(Handle::current()),
            totals: Arc::clone(&totals),
            decisions: log,
        };
        let on_write_error = {
            let shutdown = shutdown.clone();
            move || shutdown.stop()
        };
        let work = move || producer.run();
        let producer = Worker::spawn("producer", "captures and encodes frames", shutdown, &totals, work)?;
        let work = move || sink.run(&finished, on_write_error);
        let sink = Worker::spawn("sink", "writes the results", shutdown, &totals, work)?;
        let spawn_fallback = |fallback: LocalAnswers| {
            Worker::spawn("fallback", "answers on this device", shutdown, &totals, move || fallback.run())
        };
        let fallback = fallback.map(spawn_fallback).transpose()?;

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
            fallback.join().await?;
        }
        producer.join().await?;
        if let Some(way) = spool_way {
            way.close();
        }
        let hub = sink.join().await?;
        if let Some(spool) = spool {
            spool.join().await?;
        }
        if let Some(file) = file {
            file.join().await?;
        }
        hub.close(shutdown).await;
        Ok(uplink_result.err())
    }
}

/// A thread that can be waited for without blocking, or left behind.
struct Worker<T> {
    result: oneshot::Receiver<T>,
    task: &'static str,
}

/// Stops the run when a thread of it panics, since without that thread it could not end, and notes the error, since the run
/// may be left as it is before anybody has waited for the thread.
struct StopOnPanic {
    shutdown: Shutdown,
    totals: Arc<Totals>,
    task: &'static str,
}

impl<T: Send + 'static> Worker<T> {
    fn spawn(
        name: &str,
        task: &'static str,
        shutdown: &Shutdown,
        totals: &Arc<Totals>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Self, Error> {
        let (sender, result) = oneshot::channel();
        let guard = StopOnPanic { shutdown: shutdown.clone(), totals: Arc::clone(totals), task };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _guard = guard;
            // Nobody waits any more where the run was left as it is.
            let _ = sender.send(work());
        });
        let problem = "no thread can be started; raise the limits of processes (ulimit -u) and of memory";
        thread.map_err(|source| Error::Device { problem, source })?;
        Ok(Worker { result, task })
    }

    /// Waits for the thread.
    async fn join(self) -> Result<T, Error> {
        self.result.await.map_err(|_| Error::Thread { task: self.task })
    }
}

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.totals.note_error(Error::Thread { task: self.task });
            self.shutdown.stop();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_panics_stops_the_run_and_is_named() {
        let (shutdown, totals) = (Shutdown::new(), Arc::new(Totals::default()));
        let worker = Worker::spawn("x", "counts", &shutdown, &totals, || panic!("on purpose")).unwrap();
        let error = Worker::<()>::join(worker).await.unwrap_err();
        assert!(matches!(error, Error::Thread { task: "counts" }), "{error}");
        shutdown.stopped().await;
        // Also where nobody waits for the thread any more.
        assert!(matches!(totals.take().2, Some(Error::Thread { task: "counts" })));
    }

    #[tokio::test]
    async fn work_that_is_stuck_is_left_as_it_is_with_its_frames_counted() {
        let (shutdown, totals) = (Shutdown::new(), Arc::new(Totals::default()));
        totals.expect(Some(5));
        totals.begin();
        let stuck = || {
            thread::park();
            Ok(None)
        };
        let worker = Worker::spawn("x", "is stuck", &shutdown, &totals, stuck).unwrap();
        shutdown.stop();
        let signals = Signals::watch().unwrap();
        let report = supervise(worker, signals, &shutdown, &totals).await.unwrap();
        assert_eq!((report.summary.unfinished, report.summary.not_begun), (1, 4));
    }
}
