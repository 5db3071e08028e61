//! One thread per worker: takes a batch from its tail's queue, runs the network, hands the outputs over.
#![expect(clippy::disallowed_methods, reason = "the shell of the batcher reads the clock")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use narrows_models::Task;
use narrows_wire::{Provider, Refusal, RefusalCode};
use tokio::sync::oneshot;

use crate::{
    admit::Ticket,
    batcher::{Batcher, Item, Limits, Next, Rejected},
    input::ModelInput,
    metrics::Metrics,
    net::{Output, Session},
};

/// One network of one task: its queue, and its workers behind it.
pub(crate) struct Tail<I> {
    pub(crate) task: Task,
    pub(crate) provider: Provider,
    queue: Mutex<Queue<I>>,
    work_or_close: Condvar,
    metrics: Arc<Metrics>,
}

struct Queue<I> {
    batcher: Batcher<usize, Work<I>>,
    closed: bool,
}

/// One frame's work for one network.
pub(crate) struct Work<I> {
    /// The network's input.
    pub(crate) input: I,
    /// Whether the frame still waits for it.
    pub(crate) ticket: Ticket,
    /// Where the result goes.
    pub(crate) done: oneshot::Sender<WorkResult>,
}

/// What became of a piece of work.
pub(crate) enum WorkResult {
    /// The network ran.
    Ran(TaskRun),
    /// Its budget was spent before a run began.
    Expired,
    /// The run failed.
    Failed(String),
}

/// One frame's share of a run.
pub(crate) struct TaskRun {
    pub(crate) started: Instant,
    pub(crate) inferred: Instant,
    /// Frames of the run, and which of them this one is.
    pub(crate) batch: usize,
    pub(crate) item: usize,
    pub(crate) output: Arc<Output>,
}

impl<I: ModelInput> Tail<I> {
    /// A tail and its workers, one per session.
    pub(crate) fn start(
        task: Task,
        sessions: Vec<Session>,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let tail = Arc::new(Tail {
            task,
            provider: sessions.first().map_or(Provider::Cpu, Session::provider),
            queue: Mutex::new(Queue { batcher: Batcher::new(limits), closed: false }),
            work_or_close: Condvar::new(),
            metrics,
        });
        let spawn = |session| {
            let tail = Arc::clone(&tail);
            std::thread::Builder::new()
                .name(format!("{} {}", I::NAME, tail.task.name))
                .spawn(move || tail.work(session))
        };
        let threads = sessions.into_iter().map(spawn).collect::<Result<_, _>>()?;
        Ok((tail, threads))
    }

    /// Why work that is due then would not be taken now, if so.
    pub(crate) fn refusal(&self, deadline: Option<Instant>) -> Option<Refusal> {
        let queue = self.lock();
        if queue.closed {
            return Some(draining());
        }
        queue.batcher.room(Instant::now(), deadline).err().map(|rejected| self.rejected(rejected))
    }

    /// Queues work, or says why not.
    pub(crate) fn submit(
        &self,
        geometry: usize,
        deadline: Option<Instant>,
        work: Work<I>,
    ) -> Result<(), Refusal> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(draining());
        }
        let pushed = queue.batcher.push(Instant::now(), geometry, deadline, work);
        drop(queue);
        match pushed {
            Ok(()) => {
                self.work_or_close.notify_one();
                Ok(())
            }
            Err((_, rejected)) => Err(self.rejected(rejected)),
        }
    }

    fn rejected(&self, rejected: Rejected) -> Refusal {
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
        Refusal::new(RefusalCode::Busy, text).retry_after(retry)
    }

    /// Ends the workers once the queue is empty.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.work_or_close.notify_all();
    }

    fn work(&self, mut session: Session) {
        while let Some((_, items)) = self.next() {
            // Work that was given up between the queue and here is not begun.
            let works: Vec<Work<I>> =
                items.into_iter().map(|item| item.work).filter(|work| work.ticket.claim()).collect();
            let began = Instant::now();
            if !works.is_empty() {
                self.run(&mut session, works, began);
            }
            self.lock().batcher.record_run(began.elapsed());
        }
    }

    fn next(&self) -> Option<(usize, Vec<Item<Work<I>>>)> {
        let mut queue = self.lock();
        loop {
            let decision = queue.batcher.decide(Instant::now(), |work| work.ticket.wanted());
            self.metrics.expired.add(decision.expired.len() as u64);
            for work in decision.expired {
                // A receiver that is gone has given up already.
                let _ = work.done.send(WorkResult::Expired);
            }
            let ignored = PoisonError::into_inner;
            match decision.next {
                Next::Run { key, items } => return Some((key, items)),
                Next::Wait(until) => {
                    let wait = until.saturating_duration_since(Instant::now());
                    queue = self
                        .work_or_close
                        .wait_timeout(queue, wait)
                        .map_or_else(|e| e.into_inner().0, |got| got.0);
                }
                Next::Idle if queue.closed => return None,
                Next::Idle => queue = self.work_or_close.wait(queue).unwrap_or_else(ignored),
            }
        }
    }

    fn run(&self, session: &mut Session, works: Vec<Work<I>>, started: Instant) {
        let batch: Vec<&I> = works.iter().map(|work| &work.input).collect();
        // A panic must not silence the tail for ever.
        let run = catch_unwind(AssertUnwindSafe(|| I::run(&self.task, session, &batch)));
        let inferred = Instant::now();
        let output = match run {
            Ok(Ok(output)) if output.view().shape().first() == Some(&works.len()) => Ok(Arc::new(output)),
            Ok(Ok(output)) => {
                Err(format!("an output of shape {:?} for {} frames", output.view().shape(), works.len()))
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the run panicked".to_owned()),
        };
        match &output {
            Ok(_) => self.metrics.run(works.len()),
            Err(reason) => {
                self.metrics.runs_failed.add(1);
                tracing::error!(
                    task = self.task.name,
                    network = I::NAME,
                    frames = works.len(),
                    reason,
                    "a run failed"
                );
            }
        }
        let batch = works.len();
        for (item, work) in works.into_iter().enumerate() {
            let done = match &output {
                Ok(output) => {
                    WorkResult::Ran(TaskRun { started, inferred, batch, item, output: Arc::clone(output) })
                }
                Err(_) => WorkResult::Failed(format!("{} failed; the server's log has more", self.task.name)),
            };
            let _ = work.done.send(done);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<I>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn draining() -> Refusal {
    Refusal::new(RefusalCode::Draining, "the server is shutting down")
}
