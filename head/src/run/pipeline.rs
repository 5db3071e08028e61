//! The frames of a run under one set of settings, and the change from one set to the next, between two frames.

use std::{
    io::IsTerminal,
    sync::{Arc, mpsc::sync_channel},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use narrows_codec::LevelId;
use narrows_models::Bundle;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
};

use super::{
    parts::{Parts, SourceSettings, views},
    producer::Producer,
    shared::Shared,
    worker::Worker,
};
use crate::{
    Chain, Error, Local,
    config::{Level, Lines, Outputs, Path, SpoolSettings},
    enrol::Renewal,
    policy::{FixedPolicy, Spending},
    shutdown::Shutdown,
    sink::{Figures, Hub, JsonlSink, Out, PictureFolder},
    source::{FrameSource, Reloader, Sources},
    stage::Stages,
    uplink::{
        DecisionFile, DecisionLog, Fallback, FrameQueue, LocalAnswers, Planning, SPOOLED_IN_FLIGHT, Servers,
        Spool, Uplink, find,
    },
};

/// New settings, opened and checked.
pub(super) struct Change {
    pub(super) parts: Parts,
    /// Told when they are in force, or which part of them cannot be.
    pub(super) done: oneshot::Sender<Result<(), Error>>,
}

/// Where frames come from and where answers go, which may stay open from one set of settings to the next.
pub(super) struct Endpoints {
    sources: Sources,
    source_settings: SourceSettings,
    /// The names in the lines, which sources tell before their first frame.
    cameras: Vec<Option<Arc<str>>>,
    sink: JsonlSink<Out>,
    outputs: Outputs,
    /// Frames that were begun.
    begun: u64,
}

/// How the work under one set of settings ended.
pub(super) enum PipelineEnd {
    /// The run is over, for this reason if it was ended early.
    Over(Option<Error>),
    /// New settings have come.
    Changed(Box<Change>),
}

/// Where the answers of one set of settings go.
struct Answers {
    outputs: Outputs,
    device: String,
    bundle: Bundle,
    pictures: Option<PictureFolder>,
    spending: Option<Arc<Spending>>,
}

/// The work under one set of settings, ready to begin.
pub(super) struct Pipeline {
    in_flight: usize,
    budget: Duration,
    retry_for: Duration,
    stages: Stages,
    policy: FixedPolicy,
    servers: Option<Arc<Servers>>,
    renewal: Option<Renewal>,
    planning: Option<Planning>,
    fallback: Option<Local>,
    spool: Option<SpoolSettings>,
    decisions: Option<(DecisionLog, DecisionFile)>,
    /// Path and level in words; only packets have a level.
    plan: (&'static str, Option<String>),
}

impl Answers {
    /// Opens the sinks of `outputs`, which may be others than these.
    fn open_sinks(
        &self,
        outputs: &Outputs,
        cameras: &[Option<Arc<str>>],
        shared: &Shared,
        before: Option<&Figures>,
    ) -> Result<Hub, Error> {
        let demand = shared.demand.clone();
        Hub::open(outputs, &self.device, &self.bundle, cameras, demand, &shared.state, before)
    }
}

impl Endpoints {
    /// Opens where answers go, and takes the sources of `parts`.
    ///
    /// # Errors
    /// [`Error::Usage`] or [`Error::Output`] for a sink that cannot be used, [`Error::Device`] where no thread can be started.
    pub(super) fn open(parts: Parts, shared: &Shared) -> Result<(Self, Pipeline), Error> {
        let (pipeline, sources, source_settings, answers) = Pipeline::split(parts);
        shared.totals.expect(sources.total());
        sources.count_in(&shared.totals);
        close_with(&sources, &shared.shutdown);
        let cameras = sources.cameras();
        let hub = answers.open_sinks(&answers.outputs, &cameras, shared, None)?;
        shared.note_open(&answers.outputs);
        let Answers { outputs, device, bundle, pictures, spending } = answers;
        let out = (outputs.lines == Lines::Standard).then(Out::new);
        let (progress, totals) = (progress_bar(sources.total()), Arc::clone(&shared.totals));
        let sink = JsonlSink { bundle, device, spending, pictures, progress, out, hub, totals };
        Ok((Endpoints { sources, source_settings, cameras, sink, outputs, begun: 0 }, pipeline))
    }

    /// Changes over to new settings. Sources and sinks whose settings are the same stay as they are.
    ///
    /// # Errors
    /// The sinks can be opened neither with the new settings nor with the old ones.
    pub(super) async fn change(self, change: Change, shared: &Shared) -> Result<(Self, Pipeline), Error> {
        let Change { parts, done } = change;
        let Endpoints { mut sources, mut source_settings, mut cameras, sink, outputs: old, begun } = self;
        let JsonlSink { hub, out, mut progress, totals, bundle: old_bundle, device: old_device, .. } = sink;
        let (rate, views) = (parts.config.fps, views(&parts.config, &parts.bundle));
        let (pipeline, new, new_settings, answers) = Pipeline::split(parts);
        let mut is_same = answers.outputs == old
            && answers.device == old_device
            && answers.bundle.digest() == old_bundle.digest();
        if new_settings == source_settings {
            sources.set_rate(rate);
            sources.set_views(views);
        } else {
            shared.totals.expect(new.total().map(|total| total.saturating_add(begun)));
            new.count_in(&shared.totals);
            close_with(&new, &shared.shutdown);
            let names = new.cameras();
            is_same &= names == cameras;
            progress.finish_and_clear();
            progress = progress_bar(new.total());
            // The old cameras are closed before new ones are opened, which may be the same.
            drop(std::mem::replace(&mut sources, new));
            (source_settings, cameras) = (new_settings, names);
        }
        let (mut outputs, mut failed) = (answers.outputs.clone(), None);
        let hub = if is_same {
            hub
        } else {
            let figures = hub.close(&shared.shutdown).await;
            match answers.open_sinks(&outputs, &cameras, shared, Some(&figures)) {
                Ok(hub) => hub,
                Err(error) => {
                    (outputs, failed) = (old, Some(error));
                    answers.open_sinks(&outputs, &cameras, shared, Some(&figures))?
                }
            }
        };
        shared.note_open(&outputs);
        let Answers { device, bundle, pictures, spending, .. } = answers;
        let out = (outputs.lines == Lines::Standard).then(|| out.unwrap_or_else(Out::new));
        let sink = JsonlSink { bundle, device, spending, pictures, progress, out, hub, totals };
        // Nobody waits for it where the run is about to end.
        let _ = done.send(failed.map_or(Ok(()), Err));
        Ok((Endpoints { sources, source_settings, cameras, sink, outputs, begun }, pipeline))
    }

    /// Ends the sinks; what waits in them is still delivered for a while.
    pub(super) async fn close(self, shutdown: &Shutdown) {
        self.sink.progress.finish_and_clear();
        self.sink.hub.close(shutdown).await;
    }
}

impl Pipeline {
    fn split(parts: Parts) -> (Self, Sources, SourceSettings, Answers) {
        let Parts { config, device, bundle, sources, source_settings, pictures, .. } = parts;
        let Parts { stages, policy, servers, renewal, planning, fallback, spending, decisions, .. } = parts;
        let path = match config.path {
            Path::Split => "split",
            Path::Image => "image",
            Path::Local => "local",
        };
        let level = match (config.path, config.level) {
            (Path::Split, Level::Auto) => Some("auto".to_owned()),
            (Path::Split, Level::Fixed(level)) => Some(level.0.to_string()),
            // Nothing is packed.
            _ => None,
        };
        let answers = Answers { outputs: config.outputs, device, bundle, pictures, spending };
        let pipeline = Pipeline {
            in_flight: config.in_flight,
            budget: config.budget,
            retry_for: config.retry_for,
            stages,
            policy,
            servers,
            renewal,
            planning,
            fallback,
            spool: config.spool,
            decisions,
            plan: (path, level),
        };
        (pipeline, sources, source_settings, answers)
    }

    /// Works until the run is over or new settings come. Then no new frame is begun, and every frame in flight has its outcome
    /// before this returns.
    ///
    /// # Errors
    /// What kept the run from beginning, or a thread that failed.
    pub(super) async fn run(
        self,
        endpoints: Endpoints,
        shared: &Shared,
        changes: &mut mpsc::Receiver<Box<Change>>,
    ) -> Result<(Endpoints, PipelineEnd), Error> {
        let Shared { shutdown, totals, state, .. } = shared;
        let Pipeline { in_flight, budget, retry_for, stages, policy, servers, planning, fallback, .. } = self;
        state.note_plan(self.plan.0, self.plan.1, budget);
        // Ends when this does.
        let mut tasks = JoinSet::new();
        if let Some(renewal) = self.renewal {
            tasks.spawn(renewal.run());
        }

        let spool = self.spool.zip(totals.spool()).map(|(settings, tally)| {
            let bundle = &endpoints.sink.bundle;
            // A bundle has at most 16 levels.
            let level = LevelId(bundle.default_level() as u8);
            let encoder = stages.level_encoder().map(|encoder| (encoder, level));
            Spool::open(settings, bundle.digest().short(), encoder, tally)
        });
        let spool = match spool.transpose() {
            Ok(spool) => spool,
            Err(error) => {
                endpoints.close(shutdown).await;
                return Err(error);
            }
        };
        let can_begin_alone = fallback.is_some() || spool.is_some();
        let mut first = None;
        if let Some(servers) = &servers {
            state.note_away(&servers.to_string(), "not found yet");
            tokio::select! {
                session = find(servers, retry_for, can_begin_alone) => match session {
                    Err(error) if !can_begin_alone || !error.is_of_server() => {
                        endpoints.close(shutdown).await;
                        return Err(error);
                    }
                    session => first = Some(session),
                },
                Some(change) = changes.recv() => return Ok((endpoints, PipelineEnd::Changed(change))),
                () = shutdown.draining() => return Ok((endpoints, PipelineEnd::Over(None))),
            }
        }

        // Ends with these settings, or with the run.
        let own = shutdown.part();
        // Each frame holds one of the places in flight until it is reported, so no channel ever has more frames than it
        // has room for.
        let (encoded_in, encoded) = mpsc::channel(in_flight);
        let (finished_in, finished) = sync_channel(in_flight + SPOOLED_IN_FLIGHT);
        let (fallback_in, fallback_frames) = sync_channel(in_flight);
        let way = fallback.is_some().then(|| Fallback::new(fallback_in));
        let Endpoints { sources, source_settings, cameras, sink, outputs, begun } = endpoints;
        let spool_way = spool.as_ref().and_then(Spool::way);
        let fallback = fallback.zip(way.as_ref()).map(|(local, way)| LocalAnswers {
            local,
            reloader: Reloader::new(budget),
            frames: fallback_frames,
            pace: way.pace(),
            finished: finished_in.clone(),
            spool: spool_way.clone(),
        });
        let uplink = servers.map(|servers| Uplink {
            servers,
            queue: FrameQueue::new(encoded, finished_in.clone()).spooling(spool_way.clone()),
            planning,
            retry_for,
            fallback: way,
            shutdown: own.clone(),
            state: Arc::clone(state),
        });
        let spool = spool.map(|spool| {
            let finished = finished_in.clone();
            let work = move || spool.run(finished);
            Worker::spawn("spool", "keeps frames on disk", shutdown, totals, work)
        });
        let spool = spool.transpose()?;
        let (log, file) = self.decisions.unzip();
        let file = file.map(|file| {
            Worker::spawn("decisions", "records decisions", shutdown, totals, move || file.run())
        });
        let file = file.transpose()?;
        let producer = Producer {
            source: sources,
            policy,
            stages,
            places: Arc::new(Semaphore::new(in_flight)),
            encoded: encoded_in,
            finished: finished_in,
            stop: own.signal(Handle::current()),
            totals: Arc::clone(totals),
            decisions: log,
            state: Arc::clone(state),
            begun,
        };
        let on_write_error = {
            let shutdown = shutdown.clone();
            move || shutdown.stop()
        };
        let work = move || producer.run();
        let producer = Worker::spawn("producer", "captures and encodes frames", shutdown, totals, work)?;
        let work = move || sink.run(&finished, on_write_error);
        let sink = Worker::spawn("sink", "writes the results", shutdown, totals, work)?;
        let spawn_fallback = |fallback: LocalAnswers| {
            Worker::spawn("fallback", "answers on this device", shutdown, totals, move || fallback.run())
        };
        let fallback = fallback.map(spawn_fallback).transpose()?;
        let work = async {
            let uplink_result = match uplink.zip(first) {
                Some((uplink, first)) => {
                    let result = uplink.run(first).await;
                    // Whatever the reason: without an uplink no new frame can be sent.
                    own.drain();
                    result
                }
                None => Ok(()),
            };
            if let Some(fallback) = fallback {
                fallback.join().await?;
            }
            let (sources, begun) = producer.join().await?;
            if let Some(way) = spool_way {
                way.close();
            }
            let sink = sink.join().await?;
            if let Some(spool) = spool {
                spool.join().await?;
            }
            if let Some(file) = file {
                file.join().await?;
            }
            let endpoints = Endpoints { sources, source_settings, cameras, sink, outputs, begun };
            Ok::<_, Error>((endpoints, uplink_result.err()))
        };
        let mut work = std::pin::pin!(work);
        let mut change = None;
        let (endpoints, error) = loop {
            tokio::select! {
                done = &mut work => break done?,
                Some(new) = changes.recv(), if change.is_none() => {
                    change = Some(new);
                    own.drain();
                }
            }
        };
        match change.filter(|_| !shutdown.is_draining()) {
            Some(change) => {
                if let Some(error) = error {
                    tracing::warn!("{}; the new settings are used all the same", Chain(&error));
                }
                Ok((endpoints, PipelineEnd::Changed(change)))
            }
            None => Ok((endpoints, PipelineEnd::Over(error))),
        }
    }
}

/// Has the cameras of sources end when the run is asked to.
fn close_with(sources: &Sources, shutdown: &Shutdown) {
    if let Some(closer) = sources.closer() {
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            shutdown.draining().await;
            closer.close();
        });
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
