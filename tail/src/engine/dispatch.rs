//! One decoded frame, sent to the network of each query; the runs are gathered into one answer.
#![expect(clippy::disallowed_methods, reason = "the stages of a job are timed")]

use std::time::{Duration, Instant};

use ndarray::{Axis, Ix1, Ix3};
use tokio::sync::oneshot;

use super::{
    input::ModelInput,
    job::{Answer, TaskAnswer},
    metrics::Metrics,
    ort::Provider,
    postprocess::{self, Prediction},
    query::{Query, TaskQuery},
    refusal::{Refusal, RefusalReason},
    ticket::Ticket,
    timing::{Span, stages},
    worker::{Network, TaskRun, Work, WorkResult},
};

/// The queries to a frame, and its times.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    /// The queries.
    pub(super) queries: &'a [TaskQuery],
    /// The time of the frame's arrival.
    pub(super) arrived: Instant,
    /// The time by which the networks must have begun to run.
    pub(super) deadline: Option<Instant>,
}

/// A decoded frame and the networks that answer its queries.
pub(super) struct Dispatch<'a, I> {
    /// The frame's queries and times.
    pub(super) frame: Frame<'a>,
    /// The network of each query.
    pub(super) networks: Vec<&'a Network<I>>,
    /// The networks' input.
    pub(super) input: I,
    /// The index of the input's geometry.
    pub(super) geometry: usize,
    /// The time that decoding the input took.
    pub(super) decode_time: Duration,
}

/// Refuses a frame that none of the networks would queue now, for the reason of the first one. Called before a frame is
/// decoded, so that frames that would be refused anyway do not cost a decode.
///
/// # Errors
/// The first network's refusal if every network refuses.
pub(super) fn refuse_unless_any_admits<I: ModelInput>(
    networks: &[&Network<I>],
    deadline: Option<Instant>,
) -> Result<(), Refusal> {
    let refusals: Option<Vec<Refusal>> =
        networks.iter().map(|network| network.admit(deadline).err()).collect();
    match refusals.and_then(|refusals| refusals.into_iter().next()) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

impl<I: ModelInput> Dispatch<'_, I> {
    /// Queues the frame for each network, waits for the runs, and computes from each output the prediction that its query asks
    /// for and into the form that `convert` gives it. Dropping the future gives up the work that has not begun.
    ///
    /// # Errors
    /// If no task has a prediction, the refusal of the first one.
    pub(super) async fn answer<T>(
        self,
        convert: &(impl Fn(Prediction) -> Result<T, Refusal> + Sync),
        metrics: &Metrics,
    ) -> Result<Answer<T>, Refusal> {
        let Dispatch { frame, networks, input, geometry, decode_time } = self;
        let Frame { queries, arrived, deadline } = frame;
        let submit = |network: &&Network<I>| Pending::submit(network, input.clone(), geometry, deadline);
        let pending: Vec<Pending> = networks.iter().map(submit).collect();
        let mut tasks = Vec::with_capacity(queries.len());
        let mut spans = Vec::with_capacity(queries.len());
        let mut provider = Provider::Cpu;
        for ((query, network), pending) in queries.iter().zip(networks).zip(pending) {
            let (batch, result) = match pending.result(deadline, metrics).await {
                Ok(run) => {
                    provider = network.provider();
                    let result = predict(network, query.query, &run, convert);
                    let TaskRun { started, inferred, batch, .. } = run;
                    spans.push(Span { started, inferred, answered: Instant::now() });
                    (batch, result)
                }
                Err(refusal) => (0, Err(refusal)),
            };
            tasks.push(TaskAnswer { task: query.task, batch, result });
        }
        let refusals: Option<Vec<&Refusal>> = tasks.iter().map(|task| task.result.as_ref().err()).collect();
        if let Some(refusal) = refusals.and_then(|refusals| refusals.first().copied().cloned()) {
            return Err(refusal);
        }
        let timings = stages(arrived, decode_time, &spans, Instant::now());
        Ok(Answer { provider, groups: None, timings, tasks })
    }
}

/// One task of a frame that was queued or refused. Dropping it gives the work up.
struct Pending {
    ticket: Ticket,
    result: Result<oneshot::Receiver<WorkResult>, Refusal>,
}

impl Pending {
    fn submit<I: ModelInput>(
        network: &Network<I>,
        input: I,
        geometry: usize,
        deadline: Option<Instant>,
    ) -> Pending {
        let (result, receiver) = oneshot::channel();
        let ticket = Ticket::default();
        let work = Work { input, ticket: ticket.clone(), result };
        let submitted = network.submit(geometry, deadline, work);
        Pending { ticket, result: submitted.map(|()| receiver) }
    }

    /// Waits for the run. Work that has not begun at its deadline is refused at the deadline, and not only when the run
    /// before it ends.
    ///
    /// # Errors
    /// The reason why there was no run.
    async fn result(mut self, deadline: Option<Instant>, metrics: &Metrics) -> Result<TaskRun, Refusal> {
        let expired = || Refusal::new(RefusalReason::Expired, "the frame waited until its budget was spent");
        let receiver = match &mut self.result {
            Ok(receiver) => receiver,
            Err(refusal) => return Err(refusal.clone()),
        };
        let at_deadline = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            biased;
            result = &mut *receiver => result,
            () = at_deadline => {
                if self.ticket.cancel() {
                    metrics.expired.add(1);
                    return Err(expired());
                }
                receiver.await
            }
        };
        match result {
            Ok(WorkResult::Ran(run)) => Ok(run),
            Ok(WorkResult::Expired) => Err(expired()),
            Ok(WorkResult::Failed(reason)) => Err(Refusal::new(RefusalReason::Internal, reason)),
            Err(_) => Err(Refusal::new(RefusalReason::Internal, "the worker is gone")),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.ticket.cancel();
    }
}

/// The prediction from one frame's part of a run, as `convert` forms it. Needs Tokio's multi-threaded runtime.
fn predict<I: ModelInput, T>(
    network: &Network<I>,
    query: Query,
    run: &TaskRun,
    convert: &(impl Fn(Prediction) -> Result<T, Refusal> + Sync),
) -> Result<T, Refusal> {
    let internal = |text: &str| Refusal::new(RefusalReason::Internal, text);
    let view = run.output.view();
    if view.len_of(Axis(1)) != network.task().labels.len() {
        return Err(internal("the network's output does not fit the labels"));
    }
    let logits = view.index_axis(Axis(0), run.item);
    match query {
        Query::Classify { top_k } => {
            let logits = logits.into_dimensionality::<Ix1>();
            let classes = logits.ok().and_then(|logits| postprocess::classes(logits, top_k));
            convert(Prediction::Classes(
                classes.ok_or_else(|| internal("the network gave no finite scores"))?,
            ))
        }
        // A large map takes milliseconds. Working in place saves two changes of thread, and Tokio moves the other tasks of
        // this thread to another one meanwhile.
        Query::Segment { size } => tokio::task::block_in_place(|| {
            let logits = logits.into_dimensionality::<Ix3>();
            let logits = logits.map_err(|_| internal("the network's output is no map"))?;
            convert(Prediction::Map(postprocess::class_map(logits, size)))
        }),
    }
}
