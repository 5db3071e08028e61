//! One accepted frame: decode, hand to the networks, gather, answer.
#![expect(clippy::disallowed_methods, reason = "the shell of a frame reads the clock between its stages")]

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_codec::Decoder;
use narrows_wire::{
    FrameReply, Outcome, Path, Payload, Provider, Query, Refusal, RefusalCode, Reply, TaskAnswer,
    TaskRequest, session::Accepted,
};
use ndarray::{Axis, Ix1, Ix3};
use tokio::sync::oneshot;

use crate::{
    admit::Ticket,
    answer,
    catalog::Model,
    images::{DecodeFailure, Decoders},
    input::{ModelInput, QuantizedLatent, RgbImage},
    metrics::{Metrics, Span, stages},
    worker::{Tail, TaskRun, Work, WorkResult},
};

thread_local! {
    /// Its memory serves every packet that this thread decodes.
    static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new());
}

/// What became of a frame, for its peer and for the log.
pub(crate) struct Finished {
    pub(crate) reply: FrameReply,
    /// The decoder's words when packet or image did not decode.
    pub(crate) undecoded: Option<String>,
}

/// A frame whose input is there.
struct Frame<'a> {
    id: u64,
    path: Path,
    task_requests: &'a [TaskRequest],
    geometry: usize,
    arrived: Instant,
    /// What the input cost.
    decode: Duration,
    deadline: Option<Instant>,
}

/// Works on a frame until it is answered or refused. Dropping the future gives the frame up: work that has not
/// begun never will.
pub(crate) async fn work(
    catalog: &[Model],
    decoders: &Decoders,
    metrics: &Metrics,
    accepted: Accepted,
    arrived: Instant,
) -> Finished {
    let Accepted { id, bundle, deadline, task_requests, payload } = accepted;
    let served = &catalog[bundle];
    let refused = |refusal| Finished { reply: FrameReply::Refused { id, refusal }, undecoded: None };
    let refuse = |code, reason: &str| refused(Refusal::new(code, reason));
    let undecoded = |code, reason: String| {
        metrics.undecoded.add(1);
        Finished { undecoded: Some(reason.clone()), ..refuse(code, &reason) }
    };
    let reply = match payload {
        Payload::Packet(packet) => {
            let tail = |task_request: &TaskRequest| &*served.tails[usize::from(task_request.task)];
            let tails: Vec<_> = task_requests.iter().map(tail).collect();
            if let Some(refusal) = refusal_of_all(&tails, deadline) {
                return refused(refusal);
            }
            // Under a millisecond for the largest geometry: not worth another thread.
            let decoded = DECODER.with_borrow_mut(|it| it.decode(&served.tables, &served.shapes, &packet));
            let packet = match decoded {
                Ok(packet) => packet,
                Err(error) => return undecoded(RefusalCode::BadPacket, error.to_string()),
            };
            let (geometry, decode) = (packet.geometry.index(), arrived.elapsed());
            let frame = Frame {
                id,
                path: Path::Split,
                task_requests: &task_requests,
                geometry,
                arrived,
                decode,
                deadline,
            };
            let step = served.bundle.levels()[packet.level.index()].step;
            let feature = Arc::new(packet.feature);
            let input = || QuantizedLatent { feature: Arc::clone(&feature), step };
            frame.answer(tails, input, metrics).await
        }
        Payload::Image(image) => {
            let index = usize::from(image.geometry);
            let Some(geometry) = served.bundle.geometries().get(index) else {
                let count = served.bundle.geometries().len();
                return undecoded(RefusalCode::BadImage, format!("geometry {index}, the bundle has {count}"));
            };
            let whole = |task_request: &TaskRequest| {
                let whole = served.unsplit[usize::from(task_request.task)].as_deref();
                whole.expect("the session takes images only for tasks that are served whole")
            };
            let unsplit: Vec<_> = task_requests.iter().map(whole).collect();
            if let Some(refusal) = refusal_of_all(&unsplit, deadline) {
                return refused(refusal);
            }
            let (pixels, decode) = match decoders.decode(image, geometry, deadline).await {
                Ok(decoded) => decoded,
                Err(DecodeFailure::Bad(reason)) => return undecoded(RefusalCode::BadImage, reason),
                Err(DecodeFailure::Late) => {
                    metrics.expired.add(1);
                    return refuse(
                        RefusalCode::Expired,
                        "the image waited for a decoder until its budget was spent",
                    );
                }
                Err(DecodeFailure::Failed) => return refuse(RefusalCode::Internal, "the decoder failed"),
            };
            let frame = Frame {
                id,
                path: Path::Image,
                task_requests: &task_requests,
                geometry: index,
                arrived,
                decode,
                deadline,
            };
            let input = || RgbImage { rows: Arc::clone(&pixels.rows), ..pixels };
            frame.answer(unsplit, input, metrics).await
        }
        other => return refuse(RefusalCode::Unsupported, &other.kind().to_string()),
    };
    Finished { reply, undecoded: None }
}

/// Why none of the networks would take a frame now, for its first task; `None` while one would. What is refused anyway
/// is refused before it costs a decode.
fn refusal_of_all<I: ModelInput>(tails: &[&Tail<I>], deadline: Option<Instant>) -> Option<Refusal> {
    let refusals: Option<Vec<Refusal>> = tails.iter().map(|tail| tail.refusal(deadline)).collect();
    refusals?.into_iter().next()
}

impl Frame<'_> {
    /// Asks the network of each task request, and gathers what they say.
    async fn answer<I: ModelInput>(
        self,
        tails: Vec<&Tail<I>>,
        input: impl Fn() -> I,
        metrics: &Metrics,
    ) -> FrameReply {
        let Frame { id, path, task_requests, geometry, arrived, decode, deadline } = self;
        let pending: Vec<_> =
            tails.iter().map(|tail| Pending::submit(tail, input(), geometry, deadline)).collect();
        let mut answers = Vec::with_capacity(task_requests.len());
        let mut spans = Vec::with_capacity(task_requests.len());
        let mut provider = Provider::Cpu;
        for ((task_request, tail), pending) in task_requests.iter().zip(tails).zip(pending) {
            let (batch, outcome) = match pending.result(deadline, metrics).await {
                Ok(ran) => {
                    provider = tail.provider;
                    let outcome = answer(tail, &task_request.query, &ran);
                    spans.push(Span {
                        started: ran.started,
                        inferred: ran.inferred,
                        answered: Instant::now(),
                    });
                    (u16::try_from(ran.batch).unwrap_or(u16::MAX), outcome)
                }
                Err(refusal) => (0, Outcome::Refused(refusal)),
            };
            answers.push(TaskAnswer { task: task_request.task, batch, outcome });
        }
        let refused = |answer: &TaskAnswer| match &answer.outcome {
            Outcome::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        };
        // If no task answered, the frame is refused for its first task's reason.
        let refusals: Option<Vec<Refusal>> = answers.iter().map(refused).collect();
        match refusals.and_then(|refusals| refusals.into_iter().next()) {
            Some(refusal) => FrameReply::Refused { id, refusal },
            None => {
                let timings = stages(arrived, decode, &spans, Instant::now());
                FrameReply::Answered(Reply { id, path, provider, timings, answers })
            }
        }
    }
}

/// One task of a frame, queued or refused. Dropping it gives the work up.
struct Pending {
    ticket: Ticket,
    done: Result<oneshot::Receiver<WorkResult>, Refusal>,
}

impl Pending {
    fn submit<I: ModelInput>(
        tail: &Tail<I>,
        input: I,
        geometry: usize,
        deadline: Option<Instant>,
    ) -> Pending {
        let (done, receiver) = oneshot::channel();
        let ticket = Ticket::default();
        let work = Work { input, ticket: ticket.clone(), done };
        let submitted = tail.submit(geometry, deadline, work);
        Pending { ticket, done: submitted.map(|()| receiver) }
    }

    /// The run, or why there was none. A frame that is not begun at its deadline is refused at the deadline, not
    /// when the run before it ends.
    async fn result(mut self, deadline: Option<Instant>, metrics: &Metrics) -> Result<TaskRun, Refusal> {
        let expired = || Refusal::new(RefusalCode::Expired, "the frame waited until its budget was spent");
        let done = match &mut self.done {
            Ok(done) => done,
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
            result = &mut *done => result,
            () = at_deadline => {
                if self.ticket.cancel() {
                    metrics.expired.add(1);
                    return Err(expired());
                }
                done.await
            }
        };
        match result {
            Ok(WorkResult::Ran(ran)) => Ok(ran),
            Ok(WorkResult::Expired) => Err(expired()),
            Ok(WorkResult::Failed(reason)) => Err(Refusal::new(RefusalCode::Internal, reason)),
            Err(_) => Err(Refusal::new(RefusalCode::Internal, "the worker is gone")),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.ticket.cancel();
    }
}

/// Turns one item of a run's output into the answer asked for. Needs the multi-threaded executor.
fn answer<I: ModelInput>(tail: &Tail<I>, query: &Query, ran: &TaskRun) -> Outcome {
    let internal = |text: &str| Outcome::Refused(Refusal::new(RefusalCode::Internal, text));
    let outputs = ran.output.view().len_of(Axis(1));
    if outputs != tail.task.labels.len() {
        return internal("the network's output does not fit the labels");
    }
    match *query {
        Query::Classify { top_k } => {
            let view = ran.output.view();
            let logits = view.index_axis(Axis(0), ran.item).into_dimensionality::<Ix1>();
            let classes = logits.ok().and_then(|logits| answer::classes(logits, top_k.into()));
            classes.map_or_else(|| internal("the network gave no finite scores"), Outcome::Classes)
        }
        Query::Segment { size } => {
            // Milliseconds for a large map: in place saves two changes of thread, and the connections' other tasks
            // move to another thread meanwhile.
            let map = tokio::task::block_in_place(|| {
                let view = ran.output.view();
                let logits = view.index_axis(Axis(0), ran.item).into_dimensionality::<Ix3>();
                logits.ok().map(|logits| answer::class_map(logits, size))
            });
            match map {
                Some(Ok(map)) => Outcome::Map(map),
                Some(Err(error)) => Outcome::Refused(Refusal::new(RefusalCode::TooLarge, error.to_string())),
                None => internal("the network's output is no map"),
            }
        }
        _ => Outcome::Refused(Refusal::new(RefusalCode::Unsupported, "")),
    }
}
