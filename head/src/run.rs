//! A run: source and stages, uplink, and sink in threads with a bounded number of frames between them.

use std::{sync::Arc, time::Duration};

use narrows_service::{Notifier, Origin};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    Error, Stop,
    config::Flags,
    event_loop::event_loop,
    limits,
    report::{Summary, Totals},
    shutdown::Shutdown,
    signals::Signals,
};

mod parts;
mod pipeline;
mod producer;
mod service;
mod shared;
mod socket;
mod watts;
mod worker;

pub(crate) use self::socket::socket_of;
use self::{
    parts::Parts,
    pipeline::{Change, Endpoints, PipelineEnd},
    service::Service,
    shared::Shared,
    socket::StatusSocket,
    worker::Worker,
};

/// How long an interrupted run waits for the answers of frames in flight.
const GRACE: Duration = Duration::from_millis(1000);
/// How long a run that gives up its frames may take to end by itself. After that it is left as it is: some thread is stuck in
/// the operating system, in a write that nobody reads or on a file system that does not answer.
const STUCK: Duration = Duration::from_millis(500);

/// Time between two signs of life of the thread that sends frames.
const PULSE: Duration = Duration::from_secs(1);

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

/// Takes the frames of the source through the bundle and writes their lines to standard output, as `narrows-head run`
/// does.
///
/// The calling thread waits for signals and for the end, and for nothing else; it returns within two seconds of a signal
/// whatever the run is doing, and may leave threads behind that are stuck in the operating system. The process is meant to
/// end after that.
///
/// With an `origin` of the flags SIGHUP has the settings read again: they take effect between two frames, or where they cannot be
/// used the run goes on as before and says why.
///
/// # Errors
/// What kept the run from beginning. An error that ends it later is in [`RunReport::error`].
pub fn run(flags: &Flags, origin: Option<Origin<Flags>>) -> Result<RunReport, Error> {
    limits::check()?;
    let flags = flags.clone();
    let runtime = event_loop()?;
    let notifier = Arc::new(Notifier::default());
    let report = runtime.block_on(async {
        let signals = Signals::watch()?;
        Signals::survive_file_size_limit()?;
        let (shutdown, totals) = (Shutdown::new(), Arc::new(Totals::default()));
        let shared = Arc::new(Shared::new(shutdown.clone(), Arc::clone(&totals)));
        // Its file is removed when this is dropped.
        let socket =
            socket_of(flags.status_socket.as_deref()).as_deref().map(StatusSocket::open).transpose()?;
        if let Some(socket) = &socket {
            socket.serve(Arc::clone(&shared.state))?;
        }
        let (changes, changed) = mpsc::channel(1);
        let service = Service::new(&flags, Arc::clone(&shared), origin, changes, Arc::clone(&notifier))?;
        tokio::spawn(service.run());
        let work = {
            let (shared, notifier) = (Arc::clone(&shared), Arc::clone(&notifier));
            move || work(&flags, &shared, changed, &notifier)
        };
        let work = Worker::spawn("run", "runs the network", &shutdown, &totals, work)?;
        supervise(work, signals, &shutdown, &totals, &notifier).await
    });
    runtime.shutdown_background();
    report
}

/// Opens the parts of a run and runs it to its end.
fn work(
    flags: &Flags,
    shared: &Shared,
    changes: mpsc::Receiver<Box<Change>>,
    notifier: &Notifier,
) -> Result<Option<Error>, Error> {
    let parts = Parts::open(flags, shared)?;
    // One thread for everything that waits, so that an answer is passed on without waking another core.
    let runtime = event_loop()?;
    let ended = runtime.block_on(async {
        let state = Arc::clone(&shared.state);
        tokio::spawn(async move {
            loop {
                state.note_pulse();
                sleep(PULSE).await;
            }
        });
        pipelines(parts, shared, changes, notifier).await
    });
    match &ended {
        Ok(_) => runtime.shutdown_background(),
        // A thread of the run may still be waiting by it, and would panic.
        Err(_) => std::mem::forget(runtime),
    }
    ended
}

/// Works under one set of settings after the other; returns what ended the run early.
async fn pipelines(
    parts: Parts,
    shared: &Shared,
    mut changes: mpsc::Receiver<Box<Change>>,
    notifier: &Notifier,
) -> Result<Option<Error>, Error> {
    let (mut endpoints, mut pipeline) = Endpoints::open(parts, shared)?;
    notifier.ready(&shared.state.words());
    loop {
        let (left, end) = pipeline.run(endpoints, shared, &mut changes).await?;
        match end {
            PipelineEnd::Over(error) => {
                left.close(&shared.shutdown).await;
                return Ok(error);
            }
            PipelineEnd::Changed(change) => (endpoints, pipeline) = left.change(*change, shared).await?,
        }
    }
}

/// Waits for the end of the work, or brings it about: at the first signal no new frames are begun, after [`GRACE`] or at the
/// next signal those in flight are given up, and [`STUCK`] after that the work is left as it is.
async fn supervise(
    work: Worker<Result<Option<Error>, Error>>,
    mut signals: Signals,
    shutdown: &Shutdown,
    totals: &Totals,
    notifier: &Notifier,
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
    notifier.stopping("ending");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_is_stuck_is_left_as_it_is_with_its_frames_counted() {
        let (shutdown, totals) = (Shutdown::new(), Arc::new(Totals::default()));
        totals.expect(Some(5));
        totals.begin();
        let stuck = || {
            std::thread::park();
            Ok(None)
        };
        let worker = Worker::spawn("x", "is stuck", &shutdown, &totals, stuck).unwrap();
        shutdown.stop();
        let signals = Signals::watch().unwrap();
        let report = supervise(worker, signals, &shutdown, &totals, &Notifier::default()).await.unwrap();
        assert_eq!((report.summary.unfinished, report.summary.not_begun), (1, 4));
    }
}
