//! One request of inference: its tensors become jobs of the engine, one for each item of the batch, and the results tensors.
#![expect(clippy::disallowed_methods, reason = "requests are answered within a time")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use narrows_codec::GeometryId;
use narrows_models::{Bundle, Geometry, Task, TaskKind, image::ImageFormat};
use narrows_wire::{Path, RefusalCode};
use ndarray::{ArrayD, Axis, Ix1, Ix3};
use tokio::{
    task::JoinSet,
    time::{timeout, timeout_at},
};

use super::{
    models::{FILE, Model},
    tensors::{InferRequest, Malformed, Output, Tensor, Values, Wanted},
};
use crate::{
    engine::{
        Answer, Client, EncodedImage, Engine, Framing, Job, JobInput, Model as Loaded, Prediction, Query,
        Refusal, RefusalReason, TaskQuery, Timings, Unserved, class_map, probabilities,
    },
    frontend::{
        budget::{Exhausted, Lease},
        codes,
        metrics::{Arrival, Asked, DeviceMetrics, Outcome},
    },
};

/// The time in which a request is answered that states none.
const DEFAULT_TIME: Duration = Duration::from_secs(30);

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The request is at fault.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The bundle has no model.
    #[error(transparent)]
    Unserved(#[from] Unserved),
    /// The engine refused an item.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The time was over.
    #[error("the answer was not there within {} ms", .0.as_millis())]
    Late(Duration),
    /// The time was over before the bundle was loaded.
    #[error("the bundle was not loaded within {} ms", .0.as_millis())]
    Unloaded(Duration),
    /// There is no memory for the answer.
    #[error(transparent)]
    NoMemory(#[from] Exhausted),
}

/// What answers requests, and for whom.
pub(super) struct Context<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) client: Client,
    pub(super) metrics: &'a Arc<DeviceMetrics>,
    /// Items that one request may have.
    pub(super) largest: usize,
    /// Bytes of the request.
    pub(super) bytes: usize,
}

/// Answers a request, for whose memory the lease stands. Dropping the future gives its work up.
///
/// # Errors
/// The [`Fault`].
pub(super) async fn infer(
    context: &Context<'_>,
    model: &Model,
    request: InferRequest,
    lease: &mut Lease,
) -> Result<Vec<Output>, Fault> {
    let arrived = Instant::now();
    let wanted = wanted(model, &request)?;
    let time = request.parameters.timeout_us()?.map_or(DEFAULT_TIME, Duration::from_micros).min(DEFAULT_TIME);
    let deadline = arrived + time;
    let items = items(model, request, context.largest)?;
    // An answer for which there is no memory is not computed.
    lease.raise_to(fewest_bytes(model, &wanted, &items))?;
    let path = if model.unsplit { Path::Image } else { Path::Split };
    let metrics = context.metrics;
    let each = context.bytes / items.len().max(1);
    let loaded = timeout(time, context.engine.model(model.served.bundle.digest()));
    let loaded: Arc<Loaded> = loaded.await.map_err(|_| Fault::Unloaded(time))??;
    let queries = vec![TaskQuery { task: model.task, query: Query::Scores }];
    let asked = Asked::new(&loaded, &queries, path);
    let mut in_flight = InFlight { metrics, count: items.len() };
    let mut jobs = JoinSet::new();
    for (place, input) in items.into_iter().enumerate() {
        metrics.accepted(arrived, Arrival { path, level: None, bytes: each });
        let (engine, client, model) =
            (Arc::clone(context.engine), context.client.clone(), Arc::clone(&loaded));
        let queries = queries.clone();
        let job = Job { client, model, input, queries, arrived, deadline: Some(deadline) };
        jobs.spawn(async move { (place, engine.submit(job).await) });
    }
    let mut scores: Vec<Option<ArrayD<f32>>> = vec![None; jobs.len()];
    let mut refused = None;
    while !jobs.is_empty() {
        let Ok(Some(ended)) = timeout_at(deadline.into(), jobs.join_next()).await else {
            return Err(Fault::Late(time));
        };
        in_flight.count -= 1;
        let (place, result) = ended.unwrap_or_else(|_| {
            let refusal = Refusal::new(RefusalReason::Internal, "the server failed on this request");
            (0, Err(refusal))
        });
        match result.and_then(only) {
            Ok((found, timings)) => {
                metrics.answered(arrived, &asked, &timings, None);
                scores[place] = Some(found);
            }
            Err(refusal) => {
                metrics.refused(Outcome::Refused, codes::refusal_code(refusal.reason));
                refused = refused.or(Some(refusal));
            }
        }
    }
    match (refused, scores.into_iter().collect::<Option<Vec<_>>>()) {
        (None, Some(scores)) => {
            // Maps take milliseconds each, and Tokio moves the other tasks of this thread meanwhile.
            Ok(tokio::task::block_in_place(|| outputs(model, &scores, &wanted))?)
        }
        (refused, _) => Err(refused
            .unwrap_or_else(|| Refusal::new(RefusalReason::Internal, "an item has no answer"))
            .into()),
    }
}

/// Items that were accepted and have not ended.
struct InFlight<'a> {
    metrics: &'a Arc<DeviceMetrics>,
    count: usize,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.abandoned(self.count);
    }
}

/// The scores of an answer to one query, and its times.
fn only(answer: Answer) -> Result<(ArrayD<f32>, Timings), Refusal> {
    let Answer { timings, tasks, .. } = answer;
    match tasks.into_iter().next().map(|task| task.result) {
        Some(Ok(Prediction::Scores(scores))) => Ok((scores, timings)),
        Some(Err(refusal)) => Err(refusal),
        _ => Err(Refusal::new(RefusalReason::Internal, "no scores")),
    }
}

/// The outputs that are wanted; all where none is named.
fn wanted(model: &Model, request: &InferRequest) -> Result<Vec<Wanted>, Malformed> {
    let known = [model.output(), model.derived()];
    if request.outputs.is_empty() {
        let binary = request.wants_binary();
        return Ok(known.map(|name| Wanted { name: name.to_owned(), binary, classes: None }).into());
    }
    let segments = model.bundle().tasks()[model.task].kind == TaskKind::Segment;
    for (place, wanted) in request.outputs.iter().enumerate() {
        if request.outputs[..place].iter().any(|other| other.name == wanted.name) {
            return Err(Malformed(format!("output {:?}: it is wanted twice", wanted.name)));
        }
        if !known.contains(&wanted.name.as_str()) {
            let known = known.join(", ");
            return Err(Malformed(format!("output {:?}: the model has {known}", wanted.name)));
        }
        if wanted.classes.is_some() && segments {
            return Err(Malformed(format!("output {:?}: classification of a map", wanted.name)));
        }
    }
    Ok(request.outputs.clone())
}

/// The fewest bytes that the wanted outputs of these items take: four for a value of type FP32, in JSON as well.
fn fewest_bytes(model: &Model, wanted: &[Wanted], items: &[JobInput]) -> usize {
    let bundle = model.bundle();
    let task = &bundle.tasks()[model.task];
    let each = |wanted: &Wanted| match task.kind {
        _ if wanted.classes.is_some() => 0,
        TaskKind::Segment if wanted.name != model.output() => 1,
        _ => 4 * task.labels.len(),
    };
    let each: usize = wanted.iter().map(each).sum();
    let places = |item: &JobInput| {
        let geometry = match item {
            JobInput::Values { geometry, .. } | JobInput::Pixels { geometry, .. } => geometry.index(),
            JobInput::Image(image) => image.geometry.index(),
            _ => return 0,
        };
        match task.kind {
            TaskKind::Classify => 1,
            TaskKind::Segment => bundle.geometries().get(geometry).map_or(0, |own| own.width * own.height),
        }
    };
    each * items.iter().map(places).sum::<usize>()
}

/// The items of a request's batch.
fn items(model: &Model, request: InferRequest, largest: usize) -> Result<Vec<JobInput>, Malformed> {
    let bundle = model.bundle();
    let task = &bundle.tasks()[model.task];
    let check = |count: usize| match count {
        0 => Err(Malformed("no item in the batch".into())),
        count if count > largest => Err(Malformed(format!("{count} items in the batch; at most {largest}"))),
        count => Ok(count),
    };
    let geometry = match &request.parameters.geometry {
        None => task.geometry,
        Some(name) => bundle.geometries().iter().position(|own| own.name == *name).ok_or_else(|| {
            let known: Vec<&str> = bundle.geometries().iter().map(|own| own.name.as_str()).collect();
            Malformed(format!("parameters: geometry {name:?}: the model has {}", known.join(", ")))
        })?,
    };
    let inputs = request.inputs;
    if !model.unsplit {
        let [first, second] = <[Tensor; 2]>::try_from(inputs).map_err(|inputs| {
            Malformed(format!("{} inputs; give {} and {}", inputs.len(), task.latent, task.step))
        })?;
        let (latent, step) = if first.name == task.latent { (first, second) } else { (second, first) };
        if (latent.name.as_str(), step.name.as_str()) != (&task.latent, &task.step) {
            return Err(Malformed(format!("give the inputs {} and {}", task.latent, task.step)));
        }
        return latents(bundle, latent, step, check);
    }
    let image = task.reference.as_ref().map_or("", |reference| reference.input.as_str());
    let [tensor] = <[Tensor; 1]>::try_from(inputs)
        .map_err(|inputs| Malformed(format!("{} inputs; give {image} or {FILE}", inputs.len())))?;
    let Tensor { name, shape, values } = tensor;
    let wrong = |reason: String| Malformed(format!("input {name}: {reason}"));
    match values {
        Values::Bytes(files) if name == FILE => {
            check(files.len())?;
            let geometry = u8::try_from(geometry).map(GeometryId).unwrap_or(GeometryId(u8::MAX));
            let encoded = |file: Vec<u8>| {
                let format =
                    format_of(&file).ok_or_else(|| wrong("no JPEG, PNG, WebP or BMP file".into()))?;
                Ok(JobInput::Image(EncodedImage { geometry, format, framing: Framing::Original, file }))
            };
            files.into_iter().map(encoded).collect()
        }
        Values::U8(pixels) if name == image => {
            let [count, height, width, 3] = shape[..] else {
                return Err(wrong(format!("its shape is {shape:?}; give [n, height, width, 3]")));
            };
            check(count)?;
            let geometry = geometry_of(bundle, height, width).map_err(wrong)?;
            let item = |pixels: &[u8]| JobInput::Pixels { geometry, pixels: pixels.to_vec() };
            Ok(pixels.chunks_exact(3 * height * width).map(item).collect())
        }
        _ => Err(wrong(format!("give {image} (UINT8) or {FILE} (BYTES)"))),
    }
}

fn latents(
    bundle: &Bundle,
    latent: Tensor,
    step: Tensor,
    check: impl Fn(usize) -> Result<usize, Malformed>,
) -> Result<Vec<JobInput>, Malformed> {
    let wrong = |reason: String| Malformed(format!("input {}: {reason}", latent.name));
    let (Values::F32(values), Values::F32(steps)) = (&latent.values, step.values) else {
        return Err(wrong("give FP32".into()));
    };
    let channels = bundle.head().channels;
    let [count, own, height, width] = latent.shape[..] else {
        return Err(wrong(format!("its shape is {:?}; give [n, {channels}, height, width]", latent.shape)));
    };
    check(count)?;
    let stride = bundle.head().stride;
    let fits = |geometry: &Geometry| geometry.latent(stride) == (height, width);
    let geometry = bundle.geometries().iter().position(fits).filter(|_| own == channels);
    let Some(geometry) = geometry.and_then(|index| u8::try_from(index).ok()).map(GeometryId) else {
        let known = bundle.geometries().iter().map(|own| {
            let (height, width) = own.latent(stride);
            format!("[n, {channels}, {height}, {width}]")
        });
        let known: Vec<String> = known.collect();
        return Err(wrong(format!("its shape is {:?}; give {}", latent.shape, known.join(" or "))));
    };
    if steps.len() != count {
        return Err(Malformed(format!("input {}: {} values for {count} items", step.name, steps.len())));
    }
    let items = values.chunks_exact(own * height * width).zip(steps);
    Ok(items.map(|(values, step)| JobInput::Values { geometry, values: values.to_vec(), step }).collect())
}

fn geometry_of(bundle: &Bundle, height: usize, width: usize) -> Result<GeometryId, String> {
    let fits = |own: &Geometry| (own.height, own.width) == (height, width);
    let index = bundle.geometries().iter().position(fits).and_then(|index| u8::try_from(index).ok());
    index.map(GeometryId).ok_or_else(|| {
        let known: Vec<String> =
            bundle.geometries().iter().map(|own| format!("{}×{}", own.width, own.height)).collect();
        format!(
            "{width}×{height} pixels; the network takes {}, or {FILE} an image of any size",
            known.join(" or ")
        )
    })
}

/// The format of an image file by its first bytes.
fn format_of(file: &[u8]) -> Option<ImageFormat> {
    match file {
        [0xff, 0xd8, 0xff, ..] => Some(ImageFormat::Jpeg),
        [0x89, b'P', b'N', b'G', ..] => Some(ImageFormat::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(ImageFormat::WebP),
        [b'B', b'M', ..] => Some(ImageFormat::Bmp),
        _ => None,
    }
}

/// The outputs of all items as tensors.
fn outputs(model: &Model, scores: &[ArrayD<f32>], wanted: &[Wanted]) -> Result<Vec<Output>, Refusal> {
    let task = &model.bundle().tasks()[model.task];
    let unfit = || Refusal::new(RefusalReason::Internal, "the network's output does not fit its task");
    let mut found = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let mut shape = vec![scores.len()];
        let values = if wanted.name == model.output() {
            shape.extend(scores.first().map(ndarray::ArrayBase::shape).unwrap_or_default());
            Values::F32(scores.iter().flatten().copied().collect())
        } else if task.kind == TaskKind::Classify {
            shape.push(task.labels.len());
            let mut values = Vec::with_capacity(scores.len() * task.labels.len());
            for scores in scores {
                let logits = scores.view().into_dimensionality::<Ix1>().map_err(|_| unfit())?;
                values.extend(probabilities(logits).ok_or_else(unfit)?);
            }
            Values::F32(values)
        } else {
            let mut values = Vec::new();
            for scores in scores {
                let logits = scores.view().into_dimensionality::<Ix3>().map_err(|_| unfit())?;
                shape.truncate(1);
                shape.extend([logits.len_of(Axis(1)), logits.len_of(Axis(2))]);
                values.extend(class_map(logits, None).classes);
            }
            Values::U8(values)
        };
        let tensor = match (wanted.classes, values) {
            (Some(count), Values::F32(values)) => classification(&wanted.name, count, &values, task),
            (_, values) => Tensor { name: wanted.name.clone(), shape, values },
        };
        found.push(Output { tensor, binary: wanted.binary });
    }
    Ok(found)
}

/// The largest values of each item with their classes, as `value:index:label`.
fn classification(name: &str, count: usize, values: &[f32], task: &Task) -> Tensor {
    let classes = task.labels.len();
    let count = count.min(classes);
    let mut texts = Vec::new();
    for item in values.chunks_exact(classes.max(1)) {
        let mut order: Vec<usize> = (0..item.len()).collect();
        order.sort_by(|&a, &b| item[b].total_cmp(&item[a]).then(a.cmp(&b)));
        let text =
            |&class: &usize| format!("{:.6}:{class}:{}", item[class], task.labels[class].name).into_bytes();
        texts.extend(order.iter().take(count).map(text));
    }
    let shape = vec![texts.len() / count.max(1), count];
    Tensor { name: name.to_owned(), shape, values: Values::Bytes(texts) }
}

impl Fault {
    /// The status line of an answer with this fault, and the seconds after which another attempt may succeed.
    pub(super) fn status(&self) -> (&'static str, Option<u64>) {
        let unavailable =
            |retry: Option<Duration>| ("503 Service Unavailable", retry.map(|own| own.as_secs().max(1)));
        match self {
            Fault::Malformed(_) => ("400 Bad Request", None),
            Fault::Unserved(Unserved::Unknown) => ("404 Not Found", None),
            Fault::Unserved(Unserved::Failed(_)) => ("500 Internal Server Error", None),
            Fault::Unserved(_) => unavailable(Some(Duration::from_secs(5))),
            Fault::NoMemory(_) => unavailable(Some(Duration::from_secs(1))),
            Fault::Late(_) | Fault::Unloaded(_) => ("504 Gateway Timeout", None),
            Fault::Refused(refusal) => match refusal.reason {
                RefusalReason::BadLatent | RefusalReason::BadImage | RefusalReason::WrongQuery => {
                    ("400 Bad Request", None)
                }
                RefusalReason::NoSuchTask | RefusalReason::UnsplitNotServed => ("404 Not Found", None),
                RefusalReason::Busy => unavailable(refusal.retry.or(Some(Duration::from_secs(1)))),
                RefusalReason::ShuttingDown => unavailable(None),
                RefusalReason::Expired => ("504 Gateway Timeout", None),
                RefusalReason::TooLarge => ("413 Content Too Large", None),
                RefusalReason::Internal => ("500 Internal Server Error", None),
            },
        }
    }

    /// The code by which it is counted, where it is not counted by the items.
    pub(super) fn code(&self) -> Option<RefusalCode> {
        match self {
            Fault::Malformed(_) => Some(RefusalCode::BadPacket),
            Fault::Unserved(_) | Fault::Unloaded(_) => Some(RefusalCode::Busy),
            // Those of memory have a count of their own.
            Fault::Refused(_) | Fault::Late(_) | Fault::NoMemory(_) => None,
        }
    }
}
