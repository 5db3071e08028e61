//! One decoded frame, sent to the network of each query; the runs are gathered into one answer.
#![expect(clippy::disallowed_methods, reason = "the stages of a job are timed")]

use std::time::{Duration, Instant};

use narrows_scheduler::{Dropped, NetworkId};
use ndarray::{Axis, Ix1, Ix3};
use tokio::sync::oneshot;

use super::{
    client::Client,
    input::ModelInput,
    job::{Answer, TaskAnswer},
    metrics::Metrics,
    ort::Provider,
    postprocess::{self, Prediction},
    query::{Query, TaskQuery},
    queues::{Ask, Queues},
    refusal::{Refusal, RefusalReason},
    ticket::Ticket,
    timing::{Span, stages},
    worker::{Network, TaskRun, Work, WorkResult, busy, shutting_down},
};

/// The queries to a frame, and its times.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    /// Who it is for.
    pub(super) client: &'a Client,
    /// The queries.
    pub(super) queries: &'a [TaskQuery],
    /// The time of the frame's arrival.
    pub(super) arrived: Instant,
    /// The time by which the answer is of use.
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

/// Hint for work that made room for that of another device: about the time in which a queue changes.
const DISPLACED: Duration = Duration::from_millis(100);

/// Admits a frame for these networks, or refuses it by its client's quotas, or where none of them would queue it now. Called
/// before a frame is decoded, so that frames that would be refused anyway do not cost a decode.
///
/// # Errors
/// [`RefusalReason::Busy`] or [`RefusalReason::ShuttingDown`].
pub(super) fn admit<I: ModelInput>(
    queues: &Queues,
    metrics: &Metrics,
    networks: &[&Network<I>],
    frame: Frame<'_>,
) -> Result<(), Refusal> {
    if !networks.is_empty() && networks.iter().all(|network| network.closed()) {
        return Err(shutting_down());
    }
    let ids: Vec<NetworkId> = networks.iter().map(|network| network.id()).collect();
    queues.admit(frame.ask(), &ids).map_err(|refused| {
        metrics.count_refused(&refused);
        busy(networks.first().map_or("", |network| &network.task().name), &refused)
    })
}

impl Frame<'_> {
    /// What the frame asks of a network.
    pub(super) fn ask(&self) -> Ask<'_> {
        Ask { client: self.client, deadline: self.deadline }
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
        (queues, metrics): (&Queues, &Metrics),
    ) -> Result<Answer<T>, Refusal> {
        let Dispatch { frame, networks, input, geometry, decode_time } = self;
        let Frame { queries, arrived, deadline, .. } = frame;
        let ids: Vec<NetworkId> = networks.iter().map(|network| network.id()).collect();
        queues.record_frame(frame.ask(), &ids, geometry);
        let submit = |network: &&Network<I>| Pending::submit(network, frame.ask(), input.clone(), geometry);
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
    fn submit<I: ModelInput>(network: &Network<I>, ask: Ask<'_>, input: I, geometry: usize) -> Pending {
        let (result, receiver) = oneshot::channel();
        let ticket = Ticket::default();
        let work = Work { input, geometry, ticket: ticket.clone(), result };
        let submitted = network.submit(ask, work);
        Pending { ticket, result: submitted.map(|()| receiver) }
    }

    /// Waits for the run. Work that has not begun at its deadline is refused at the deadline, and not only when the run
    /// before it ends.
    ///
    /// # Errors
    /// The reason why there was no run.
    async fn result(mut self, deadline: Option<Instant>, metrics: &Metrics) -> Result<TaskRun, Refusal> {
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
                    return Err(dropped(Dropped::Expired));
                }
                receiver.await
            }
        };
        match result {
            Ok(WorkResult::Ran(run)) => Ok(run),
            Ok(WorkResult::Dropped(reason)) => Err(dropped(reason)),
            Ok(WorkResult::Failed(reason)) => Err(Refusal::new(RefusalReason::Internal, reason)),
            Err(_) => Err(Refusal::new(RefusalReason::Internal, "the worker is gone")),
        }
    }
}

/// The refusal of work that was dropped from its queue.
fn dropped(reason: Dropped) -> Refusal {
    match reason {
        Dropped::Displaced => {
            let text = "the queue is full, and a device with fewer frames in it took the place of this one";
            Refusal::new(RefusalReason::Busy, text).retry_after(DISPLACED)
        }
        Dropped::Hopeless => {
            Refusal::new(RefusalReason::Expired, "the frame waited until the network had no time left for it")
        }
        _ => Refusal::new(RefusalReason::Expired, "the frame waited until its budget was spent"),
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
        Query::Scores => tokio::task::block_in_place(|| convert(Prediction::Scores(logits.to_owned()))),
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
