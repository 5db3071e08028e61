//! One accepted frame: decode, hand to the tails, gather, answer.
#![expect(clippy::disallowed_methods, reason = "the shell of a frame reads the clock between its stages")]

use std::sync::Arc;
use std::time::Instant;

use narrows_codec::{Feature, decode};
use narrows_wire::session::Accepted;
use narrows_wire::{Ask, FrameReply, Outcome, Path, Provider, Refusal, RefusalCode, Reply, TaskAnswer, Want};
use ndarray::{Axis, Ix1, Ix3};
use tokio::sync::oneshot;

use crate::admit::Ticket;
use crate::answer;
use crate::catalog::Served;
use crate::metrics::{Metrics, Span, stages};
use crate::worker::{Done, Ran, Tail, Work};

/// What became of a frame, for its peer and for the log.
pub(crate) struct Finished {
    pub(crate) reply: FrameReply,
    /// The codec's words when the packet did not decode.
    pub(crate) bad_packet: Option<String>,
}

/// Works on a frame until it is answered or refused. Dropping the future gives the frame up: work that has not
/// begun never will.
pub(crate) async fn work(
    catalog: &[Served],
    metrics: &Metrics,
    accepted: Accepted,
    arrived: Instant,
) -> Finished {
    let Accepted { id, bundle, deadline, wants, payload } = accepted;
    let served = &catalog[bundle];
    // Under a millisecond for the largest geometry: not worth another thread.
    let packet = match decode(&served.tables, &served.shapes, &payload) {
        Ok(packet) => packet,
        Err(error) => {
            metrics.bad_packets.add(1);
            let reason = error.to_string();
            let refusal = Refusal::new(RefusalCode::BadPacket, reason.clone());
            return Finished { reply: FrameReply::Refused { id, refusal }, bad_packet: Some(reason) };
        }
    };
    let decoded = Instant::now();
    let step = served.bundle.levels()[usize::from(packet.level)].step;
    let geometry = usize::from(packet.geometry);
    let feature = Arc::new(packet.feature);
    let pending: Vec<_> =
        wants.iter().map(|want| Pending::submit(served, want, &feature, step, geometry, deadline)).collect();
    let mut answers = Vec::with_capacity(wants.len());
    let mut spans = Vec::with_capacity(wants.len());
    let mut provider = Provider::Cpu;
    for (want, pending) in wants.iter().zip(pending) {
        let tail = &served.tails[usize::from(want.task)];
        let (batch, outcome) = match pending.result(deadline, metrics).await {
            Ok(ran) => {
                provider = tail.provider;
                let outcome = answer(tail, &want.ask, &ran);
                spans.push(Span { started: ran.started, inferred: ran.inferred, answered: Instant::now() });
                (u16::try_from(ran.batch).unwrap_or(u16::MAX), outcome)
            }
            Err(refusal) => (0, Outcome::Refused(refusal)),
        };
        answers.push(TaskAnswer { task: want.task, batch, outcome });
    }
    let refused = |answer: &TaskAnswer| match &answer.outcome {
        Outcome::Refused(refusal) => Some(refusal.clone()),
        _ => None,
    };
    // If no task answered, the frame is refused for its first task's reason.
    let refusals: Option<Vec<Refusal>> = answers.iter().map(refused).collect();
    let reply = match refusals.and_then(|refusals| refusals.into_iter().next()) {
        Some(refusal) => FrameReply::Refused { id, refusal },
        None => {
            let timings = stages(arrived, decoded, &spans, Instant::now());
            FrameReply::Answered(Reply { id, path: Path::Split, provider, timings, answers })
        }
    };
    Finished { reply, bad_packet: None }
}

/// One task of a frame, queued or refused. Dropping it gives the work up.
struct Pending {
    ticket: Ticket,
    done: Result<oneshot::Receiver<Done>, Refusal>,
}

impl Pending {
    fn submit(
        served: &Served,
        want: &Want,
        feature: &Arc<Feature>,
        step: f32,
        geometry: usize,
        deadline: Option<Instant>,
    ) -> Pending {
        let (done, receiver) = oneshot::channel();
        let ticket = Ticket::default();
        let work = Work { feature: Arc::clone(feature), step, ticket: ticket.clone(), done };
        let submitted = served.tails[usize::from(want.task)].submit(geometry, deadline, work);
        Pending { ticket, done: submitted.map(|()| receiver) }
    }

    /// The run, or why there was none. A frame that is not begun at its deadline is refused at the deadline, not
    /// when the run before it ends.
    async fn result(mut self, deadline: Option<Instant>, metrics: &Metrics) -> Result<Ran, Refusal> {
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
            Ok(Done::Ran(ran)) => Ok(ran),
            Ok(Done::Expired) => Err(expired()),
            Ok(Done::Failed(reason)) => Err(Refusal::new(RefusalCode::Internal, reason)),
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
fn answer(tail: &Tail, ask: &Ask, ran: &Ran) -> Outcome {
    let internal = |text: &str| Outcome::Refused(Refusal::new(RefusalCode::Internal, text));
    let outputs = ran.output.view().len_of(Axis(1));
    if outputs != tail.task.labels.len() {
        return internal("the network's output does not fit the labels");
    }
    match *ask {
        Ask::Classify { top_k } => {
            let view = ran.output.view();
            let logits = view.index_axis(Axis(0), ran.item).into_dimensionality::<Ix1>();
            let classes = logits.ok().and_then(|logits| answer::classes(logits, top_k.into()));
            classes.map_or_else(|| internal("the network gave no finite scores"), Outcome::Classes)
        }
        Ask::Segment { size } => {
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
