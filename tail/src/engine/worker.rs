//! A network's queue and its workers: each worker is a thread that takes batches from the queue and runs the network.
#![expect(clippy::disallowed_methods, reason = "runs are timed")]

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

use narrows_models::Task;
use narrows_scheduler::{Dropped, FrameId, NetworkId, NetworkLimits, Refused, RunId};
use tokio::sync::oneshot;

use super::{
    error::chain,
    input::ModelInput,
    metrics::{Metrics, Runs},
    ort::{Output, Provider, Session},
    queues::{Ask, Queues, Step},
    refusal::{Refusal, RefusalReason},
    ticket::Ticket,
};

/// One network of one task, with its queue and its workers. Its inputs are of type `I`.
pub(super) struct Network<I> {
    task: Task,
    provider: Provider,
    id: NetworkId,
    queues: Arc<Queues>,
    work: Mutex<Waiting<I>>,
    work_or_close: Condvar,
    metrics: Arc<Metrics>,
    runs: Runs,
}

/// The work that waits. Its lock is taken before that of the queues.
struct Waiting<I> {
    frames: HashMap<FrameId, Work<I>>,
    closed: bool,
}

/// The frames of a run.
struct Batch<I> {
    run: RunId,
    works: Vec<Work<I>>,
}

/// The work on one frame for one network.
pub(super) struct Work<I> {
    /// The network's input.
    pub(super) input: I,
    /// The index of the input's geometry. Frames of one geometry may share a run.
    pub(super) geometry: usize,
    /// Whether the job still waits for the work.
    pub(super) ticket: Ticket,
    /// The channel that takes the result.
    pub(super) result: oneshot::Sender<WorkResult>,
}

/// The result of a piece of work.
pub(super) enum WorkResult {
    /// The network ran.
    Ran(TaskRun),
    /// It was dropped.
    Dropped(Dropped),
    /// The run failed; a text for the client.
    Failed(String),
}

/// One frame's part of an inference run.
pub(super) struct TaskRun {
    /// The time at which the run began.
    pub(super) started: Instant,
    /// The time at which it ended.
    pub(super) inferred: Instant,
    /// The number of frames in the run.
    pub(super) batch: usize,
    /// The index of this frame in the run.
    pub(super) item: usize,
    /// The output of the run, for all its frames.
    pub(super) output: Arc<Output>,
}

impl<I: ModelInput> Network<I> {
    /// Starts one worker thread per session. `name` tells the network from others in recordings.
    ///
    /// # Errors
    /// The operating system's error if a thread cannot be started.
    pub(super) fn start(
        name: &str,
        task: Task,
        sessions: Vec<Session>,
        limits: NetworkLimits,
        (queues, metrics): (&Arc<Queues>, &Arc<Metrics>),
    ) -> io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let network = Arc::new(Network {
            task,
            provider: sessions.first().map_or(Provider::Cpu, Session::provider),
            id: queues.add_network(name, limits),
            queues: Arc::clone(queues),
            work: Mutex::new(Waiting { frames: HashMap::new(), closed: false }),
            work_or_close: Condvar::new(),
            metrics: Arc::clone(metrics),
            runs: Runs::default(),
        });
        let spawn = |session| {
            let network = Arc::clone(&network);
            std::thread::Builder::new()
                .name(format!("{} {}", I::NETWORK, network.task.name))
                .spawn(move || network.serve(session))
        };
        let mut threads = Vec::with_capacity(sessions.len());
        for session in sessions {
            match spawn(session) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    network.close();
                    // They have nothing to do.
                    threads.into_iter().for_each(|thread| drop(thread.join()));
                    return Err(error);
                }
            }
        }
        Ok((network, threads))
    }

    /// The task that the network answers.
    pub(super) fn task(&self) -> &Task {
        &self.task
    }

    /// The execution provider of the first worker's session.
    pub(super) fn provider(&self) -> Provider {
        self.provider
    }

    /// The inference runs from the start.
    pub(super) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// The network's queue.
    pub(super) fn id(&self) -> NetworkId {
        self.id
    }

    /// The number of frames that wait.
    pub(super) fn waiting(&self) -> usize {
        self.queues.waiting(self.id)
    }

    /// Whether new work is refused.
    pub(super) fn closed(&self) -> bool {
        self.lock().closed
    }

    /// Queues work.
    ///
    /// # Errors
    /// [`RefusalReason::Busy`] or [`RefusalReason::ShuttingDown`] if it is not queued.
    pub(super) fn submit(&self, ask: Ask<'_>, work: Work<I>) -> Result<(), Refusal> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(shutting_down());
        }
        let queued = self.queues.push(ask, self.id, work.geometry).map_err(|refused| {
            self.metrics.count_refused(&refused);
            busy(&self.task.name, &refused)
        })?;
        waiting.frames.insert(queued.frame, work);
        if let Some(displaced) = queued.displaced.and_then(|frame| waiting.frames.remove(&frame)) {
            self.drop_work(displaced, Dropped::Displaced);
        }
        drop(waiting);
        self.work_or_close.notify_one();
        Ok(())
    }

    /// Tells the job of a piece of work that it will not be run.
    fn drop_work(&self, work: Work<I>, reason: Dropped) {
        // A job that has given it up at its deadline has counted that, and waits no more.
        if !work.ticket.claim() {
            return;
        }
        match reason {
            Dropped::Expired => self.metrics.expired.add(1),
            Dropped::Hopeless => self.metrics.hopeless.add(1),
            Dropped::Displaced => self.metrics.displaced.add(1),
            _ => {}
        }
        // If the receiver is gone, the job has been given up.
        let _ = work.result.send(WorkResult::Dropped(reason));
    }

    /// Refuses new work; the workers end once the queue is empty.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work_or_close.notify_all();
    }

    /// Runs batches until the queue is closed and empty.
    fn serve(&self, mut session: Session) {
        while let Some(Batch { run, works }) = self.next_batch() {
            // Work that was given up after it left the queue is not begun.
            let works: Vec<Work<I>> = works.into_iter().filter(|work| work.ticket.claim()).collect();
            let (ran, started) = (works.len(), Instant::now());
            let shape = works.first().map_or(0, |work| work.geometry);
            let output = (ran > 0).then(|| self.run(&mut session, &works));
            let inferred = Instant::now();
            // Before the answers, so that what comes after one finds the accounts settled.
            self.queues.complete(self.id, run, shape, ran, inferred - started);
            if let Some(output) = output {
                self.deliver(works, output.as_ref(), (started, inferred));
            }
        }
    }

    /// Waits for the next batch; `None` once the queue is closed and empty.
    fn next_batch(&self) -> Option<Batch<I>> {
        let mut waiting = self.lock();
        loop {
            let mut dropped = Vec::new();
            let wanted = |frame| waiting.frames.get(&frame).is_some_and(|work| work.ticket.wanted());
            let step = self.queues.decide(self.id, wanted, &mut dropped);
            for (frame, reason) in dropped {
                if let Some(work) = waiting.frames.remove(&frame) {
                    self.drop_work(work, reason);
                }
            }
            match step {
                Step::Run(run, frames) => {
                    let works = frames.iter().filter_map(|frame| waiting.frames.remove(frame)).collect();
                    if !waiting.frames.is_empty() {
                        // This worker may have been the only one that would wake in time for them.
                        self.work_or_close.notify_one();
                    }
                    return Some(Batch { run, works });
                }
                Step::Wait(time) => {
                    let waited = self.work_or_close.wait_timeout(waiting, time);
                    waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Step::Idle if waiting.closed => return None,
                Step::Idle => {
                    waiting = self.work_or_close.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Runs the network on a batch. `None`, and a line in the log, where that fails.
    fn run(&self, session: &mut Session, works: &[Work<I>]) -> Option<Arc<Output>> {
        let batch: Vec<&I> = works.iter().map(|work| &work.input).collect();
        // A panic would end the worker, and every later frame of this network would wait in vain.
        let run = catch_unwind(AssertUnwindSafe(|| I::run(&self.task, session, &batch)));
        let reason = match run {
            Ok(Ok(output)) if output.view().shape().first() == Some(&works.len()) => {
                self.runs.count(works.first().map_or(0, |work| work.geometry), works.len());
                return Some(Arc::new(output));
            }
            Ok(Ok(output)) => {
                format!("an output of shape {:?} for {} frames", output.view().shape(), works.len())
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => "the run panicked".to_owned(),
        };
        self.runs.failed.add(1);
        let (task, network, frames) = (&self.task.name, I::NETWORK, works.len());
        tracing::error!(task, network, frames, reason, "a run failed");
        None
    }

    /// Sends each frame of a run its part of the output.
    fn deliver(&self, works: Vec<Work<I>>, output: Option<&Arc<Output>>, times: (Instant, Instant)) {
        let (batch, (started, inferred)) = (works.len(), times);
        for (item, work) in works.into_iter().enumerate() {
            let result = match output {
                Some(output) => {
                    WorkResult::Ran(TaskRun { started, inferred, batch, item, output: Arc::clone(output) })
                }
                None => WorkResult::Failed(format!("{} failed; the server's log has more", self.task.name)),
            };
            // If the receiver is gone, the job has been given up.
            let _ = work.result.send(result);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<I>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I> Drop for Network<I> {
    fn drop(&mut self) {
        // Its workers had it as well, so they have ended.
        self.queues.remove_network(self.id);
    }
}

/// The refusal of new work while the engine is shutting down.
pub(super) fn shutting_down() -> Refusal {
    Refusal::new(RefusalReason::ShuttingDown, "the server is shutting down")
}

/// The refusal of a frame that the scheduler did not admit for this task.
pub(super) fn busy(task: &str, refused: &Refused) -> Refusal {
    let text = match refused {
        Refused::FrameQuota { .. } | Refused::TimeQuota { .. } => refused.to_string(),
        _ => format!("{task}: {refused}"),
    };
    Refusal::new(RefusalReason::Busy, text).retry_after(refused.retry())
}
