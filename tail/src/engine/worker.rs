//! A network's queue and its workers: each worker is a thread that takes batches from the queue and runs the network.
#![expect(clippy::disallowed_methods, reason = "the scheduler is given the time, and runs are timed")]

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use narrows_models::Task;
use tokio::sync::oneshot;

use super::{
    batcher::{Item, Next},
    error::chain,
    input::ModelInput,
    metrics::{Metrics, Runs},
    ort::{Output, Provider, Session},
    refusal::{Refusal, RefusalReason},
    scheduler::{Limits, Rejected, Scheduler},
    ticket::Ticket,
};

/// One network of one task, with its queue and its workers. Its inputs are of type `I`.
pub(super) struct Network<I> {
    task: Task,
    provider: Provider,
    queue: Mutex<Queue<I>>,
    work_or_close: Condvar,
    metrics: Arc<Metrics>,
    runs: Runs,
}

struct Queue<I> {
    scheduler: Scheduler<usize, Work<I>>,
    closed: bool,
}

/// The work on one frame for one network.
pub(super) struct Work<I> {
    /// The network's input.
    pub(super) input: I,
    /// Whether the job still waits for the work.
    pub(super) ticket: Ticket,
    /// The channel that takes the result.
    pub(super) result: oneshot::Sender<WorkResult>,
}

/// The result of a piece of work.
pub(super) enum WorkResult {
    /// The network ran.
    Ran(TaskRun),
    /// The deadline passed before a run began.
    Expired,
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
    /// Starts one worker thread per session.
    ///
    /// # Errors
    /// The operating system's error if a thread cannot be started.
    pub(super) fn start(
        task: Task,
        sessions: Vec<Session>,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let network = Arc::new(Network {
            task,
            provider: sessions.first().map_or(Provider::Cpu, Session::provider),
            queue: Mutex::new(Queue { scheduler: Scheduler::new(limits), closed: false }),
            work_or_close: Condvar::new(),
            metrics,
            runs: Runs::default(),
        });
        let spawn = |session| {
            let network = Arc::clone(&network);
            std::thread::Builder::new()
                .name(format!("{} {}", I::NETWORK, network.task.name))
                .spawn(move || network.serve(session))
        };
        let threads = sessions.into_iter().map(spawn).collect::<Result<_, _>>()?;
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

    /// The number of frames that wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().scheduler.waiting()
    }

    /// Checks whether work with this deadline would be queued now.
    ///
    /// # Errors
    /// [`RefusalReason::Busy`] or [`RefusalReason::ShuttingDown`] if it would not.
    pub(super) fn admit(&self, deadline: Option<Instant>) -> Result<(), Refusal> {
        let queue = self.lock();
        if queue.closed {
            return Err(shutting_down());
        }
        queue.scheduler.admit(Instant::now(), deadline).map_err(|rejected| self.busy(rejected))
    }

    /// Queues work. Frames of one `geometry` may share a run.
    ///
    /// # Errors
    /// [`RefusalReason::Busy`] or [`RefusalReason::ShuttingDown`] if it is not queued.
    pub(super) fn submit(
        &self,
        geometry: usize,
        deadline: Option<Instant>,
        work: Work<I>,
    ) -> Result<(), Refusal> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(shutting_down());
        }
        let pushed = queue.scheduler.push(Instant::now(), geometry, deadline, work);
        drop(queue);
        match pushed {
            Ok(()) => {
                self.work_or_close.notify_one();
                Ok(())
            }
            Err((_, rejected)) => Err(self.busy(rejected)),
        }
    }

    fn busy(&self, rejected: Rejected) -> Refusal {
        let (text, retry) = match rejected {
            Rejected::Full { waiting, retry } => {
                let text = format!("{waiting} frames wait for {}", self.task.name);
                (text, retry.max(Duration::from_millis(1)))
            }
            Rejected::TooLong { wait } => {
                let (name, millis) = (&self.task.name, wait.as_millis());
                (format!("the queue of {name} takes {millis} ms, longer than the budget"), wait)
            }
        };
        Refusal::new(RefusalReason::Busy, text).retry_after(retry)
    }

    /// Refuses new work; the workers end once the queue is empty.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work_or_close.notify_all();
    }

    /// Runs batches until the queue is closed and empty.
    fn serve(&self, mut session: Session) {
        while let Some(items) = self.next_batch() {
            // Work that was given up after it left the queue is not begun.
            let works: Vec<Work<I>> =
                items.into_iter().map(|item| item.work).filter(|work| work.ticket.claim()).collect();
            let began = Instant::now();
            if !works.is_empty() {
                self.run(&mut session, works, began);
            }
            self.lock().scheduler.record_run(began.elapsed());
        }
    }

    /// Waits for the next batch; `None` once the queue is closed and empty.
    fn next_batch(&self) -> Option<Vec<Item<Work<I>>>> {
        let mut queue = self.lock();
        loop {
            let decision = queue.scheduler.decide(Instant::now(), |work| work.ticket.wanted());
            self.metrics.expired.add(decision.expired.len() as u64);
            for work in decision.expired {
                // If the receiver is gone, the job has been given up.
                let _ = work.result.send(WorkResult::Expired);
            }
            match decision.next {
                Next::Run { items, .. } => return Some(items),
                Next::Wait(until) => {
                    let wait = until.saturating_duration_since(Instant::now());
                    let waited = self.work_or_close.wait_timeout(queue, wait);
                    queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Next::Idle if queue.closed => return None,
                Next::Idle => {
                    queue = self.work_or_close.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Runs the network on a batch and sends each frame its part of the output.
    fn run(&self, session: &mut Session, works: Vec<Work<I>>, started: Instant) {
        let batch: Vec<&I> = works.iter().map(|work| &work.input).collect();
        // A panic would end the worker, and every later frame of this network would wait in vain.
        let run = catch_unwind(AssertUnwindSafe(|| I::run(&self.task, session, &batch)));
        let inferred = Instant::now();
        let output = match run {
            Ok(Ok(output)) if output.view().shape().first() == Some(&works.len()) => Ok(Arc::new(output)),
            Ok(Ok(output)) => {
                Err(format!("an output of shape {:?} for {} frames", output.view().shape(), works.len()))
            }
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("the run panicked".to_owned()),
        };
        match &output {
            Ok(_) => self.runs.count(works.len()),
            Err(reason) => {
                self.runs.failed.add(1);
                tracing::error!(
                    task = self.task.name,
                    network = I::NETWORK,
                    frames = works.len(),
                    reason,
                    "a run failed"
                );
            }
        }
        let batch = works.len();
        for (item, work) in works.into_iter().enumerate() {
            let result = match &output {
                Ok(output) => {
                    WorkResult::Ran(TaskRun { started, inferred, batch, item, output: Arc::clone(output) })
                }
                Err(_) => WorkResult::Failed(format!("{} failed; the server's log has more", self.task.name)),
            };
            // If the receiver is gone, the job has been given up.
            let _ = work.result.send(result);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<I>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shutting_down() -> Refusal {
    Refusal::new(RefusalReason::ShuttingDown, "the server is shutting down")
}
