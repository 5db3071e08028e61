//! Translation between the messages of wire/PROTOCOL.md and the engine's jobs and answers.

use std::{sync::Arc, time::Instant};

use narrows_codec::{GeometryId, Header};
use narrows_models::{Digest, Task, TaskKind, image::ImageFormat};
use narrows_wire::{
    self as wire, BundleId, Hello, Outcome, Path, Payload, QueryKind, RefusalCode, Reply, Truncatable,
    session::{Accepted, Catalog, CatalogBundle, CatalogTask},
};

use crate::{
    devices::Scope,
    engine::{
        Answer, BundleStatus, Client, EncodedImage, Framing, Job, JobInput, Model, Prediction, Provider,
        Query, Refusal, RefusalReason, TaskQuery,
    },
    frontend::{codes::refusal_code, metrics::Arrival},
};

/// What a session offers its client: the catalog, and what its indices stand for.
#[derive(Debug)]
pub(super) struct Offer {
    /// The bundles and limits that the session tells: first those with models, then the others that the client may use.
    pub(super) catalog: Arc<Catalog>,
    /// For each bundle that the client has its model, and for each of its tasks the index in the manifest.
    models: Vec<(Arc<Model>, Vec<usize>)>,
}

/// A bundle that a client may use, and those of its tasks that it may use.
pub(super) struct Usable {
    pub(super) digest: Digest,
    bundle: CatalogBundle,
    tasks: Vec<usize>,
}

impl Usable {
    /// The part of a served bundle that `scope` allows, if any.
    pub(super) fn new(served: &BundleStatus, scope: &Scope) -> Option<Usable> {
        let bundle = &served.bundle;
        let tasks = bundle.tasks().iter().enumerate().filter(|(_, task)| scope.has_task(&task.name));
        let tasks: Vec<(usize, &Task)> = tasks.collect();
        if tasks.is_empty() || !scope.has_bundle(bundle.name(), &bundle.digest().to_string()) {
            return None;
        }
        let task = |(index, task): &(usize, &Task)| CatalogTask {
            name: task.name.clone(),
            kind: match task.kind {
                TaskKind::Classify => QueryKind::Classify,
                TaskKind::Segment => QueryKind::Segment,
            },
            unsplit: scope.images && served.serves_unsplit(*index),
        };
        let id = BundleId(*bundle.digest().bytes());
        Some(Usable {
            digest: bundle.digest(),
            bundle: CatalogBundle { id, tasks: tasks.iter().map(task).collect() },
            tasks: tasks.into_iter().map(|(index, _)| index).collect(),
        })
    }

    /// Whether a client has the bundle.
    pub(super) fn is_of(&self, hello: &Hello) -> bool {
        hello.bundles.contains(&self.bundle.id)
    }
}

impl Offer {
    /// An offer of bundles with their models, and of others that the client does not have.
    pub(super) fn new(models: Vec<(Usable, Arc<Model>)>, others: Vec<Usable>, max_in_flight: u16) -> Offer {
        let others = others.into_iter().map(|usable| usable.bundle);
        let (mut bundles, mut offered) = (Vec::new(), Vec::new());
        for (usable, model) in models {
            bundles.push(usable.bundle);
            offered.push((model, usable.tasks));
        }
        bundles.extend(others);
        Offer { catalog: Arc::new(Catalog { bundles, max_in_flight }), models: offered }
    }

    /// The bundles with models, by their places in the catalog.
    pub(super) fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.iter().map(|(model, _)| model)
    }
}

/// The job of a request that a session with this offer has accepted, and the path that answers it.
///
/// # Errors
/// A refusal for payloads, formats and queries that this version does not know.
pub(super) fn job(
    offer: &Offer,
    client: Client,
    accepted: Accepted,
    arrived: Instant,
) -> Result<(Path, Job), wire::Refusal> {
    let unsupported = |what: String| wire::Refusal::new(RefusalCode::Unsupported, what);
    let Accepted { bundle, deadline, task_requests, payload, .. } = accepted;
    let (model, tasks) = &offer.models[bundle];
    let query = |request: wire::TaskRequest| {
        let query = match request.query {
            wire::Query::Classify { top_k } => Query::Classify { top_k: top_k.into() },
            wire::Query::Segment { size } => {
                Query::Segment { size: size.map(|(width, height)| (width.into(), height.into())) }
            }
            other => return Err(unsupported(other.kind().to_string())),
        };
        // The session has checked the index.
        Ok(TaskQuery { task: tasks[usize::from(request.task)], query })
    };
    let queries = task_requests.into_iter().map(query).collect::<Result<_, _>>()?;
    let (path, input) = match payload {
        Payload::Packet(packet) => (Path::Split, JobInput::Packet(packet)),
        Payload::Truncatable(Truncatable { packet, .. }) => (Path::Split, JobInput::TruncatedPacket(packet)),
        Payload::Image(wire::Image { geometry, format, framing, file }) => {
            let format = match format {
                wire::ImageFormat::Jpeg => ImageFormat::Jpeg,
                wire::ImageFormat::WebP => ImageFormat::WebP,
                other => return Err(unsupported(other.to_string())),
            };
            let framing = match framing {
                wire::Framing::Fitted => Framing::Fitted,
                wire::Framing::Original => Framing::Original,
                other => return Err(unsupported(other.to_string())),
            };
            let geometry = GeometryId(geometry);
            (Path::Image, JobInput::Image(EncodedImage { geometry, format, framing, file }))
        }
        other => return Err(unsupported(other.kind().to_string())),
    };
    Ok((path, Job { client, model: Arc::clone(model), input, queries, arrived, deadline }))
}

/// What is counted of a request of `bytes` bytes with this payload.
pub(super) fn arrival(payload: &Payload, bytes: usize) -> Arrival {
    let level = match payload {
        Payload::Packet(packet) | Payload::Truncatable(Truncatable { packet, .. }) => {
            // A packet that does not decode is refused later.
            Header::parse(packet).ok().map(|header| header.level.0)
        }
        _ => None,
    };
    Arrival { path: payload.path().unwrap_or(Path::Split), level, bytes }
}

/// The outcome of one task; class maps are packed.
///
/// # Errors
/// [`RefusalReason::TooLarge`] for a class map over the limits of the protocol.
pub(super) fn outcome(prediction: Prediction) -> Result<Outcome, Refusal> {
    match prediction {
        Prediction::Classes(classes) => {
            let class = |class: crate::engine::Class| wire::Class {
                index: class.index,
                probability: class.probability,
            };
            Ok(Outcome::Classes(classes.into_iter().map(class).collect()))
        }
        Prediction::Map(map) => {
            let sides = (u16::try_from(map.width), u16::try_from(map.height));
            let packed = match sides {
                (Ok(width), Ok(height)) => wire::ClassMap::pack(width, height, &map.classes),
                _ => Err(wire::Error::Invalid {
                    field: "map size",
                    reason: "the tail's own resolution is over 65535",
                }),
            };
            packed.map(Outcome::Map).map_err(|error| Refusal::new(RefusalReason::TooLarge, error.to_string()))
        }
        // The protocol has no query for them.
        Prediction::Scores(_) => Err(Refusal::new(RefusalReason::Internal, "scores were computed")),
    }
}

/// The reply to frame `id`, whose tasks had these indices in the request.
pub(super) fn reply(id: u64, path: Path, tasks: &[u8], answer: Answer<Outcome>) -> Reply {
    let Answer { provider, groups, timings, tasks: answers } = answer;
    // The codec has at most 32 groups.
    let count = |groups: usize| u8::try_from(groups).unwrap_or(u8::MAX);
    let groups = groups.map(|groups| wire::Groups { used: count(groups.used), total: count(groups.total) });
    // The engine answers the queries in their order.
    let answers = answers.into_iter().zip(tasks).map(|(task, index)| wire::TaskAnswer {
        task: *index,
        batch: u16::try_from(task.batch).unwrap_or(u16::MAX),
        outcome: task.result.unwrap_or_else(|refused| Outcome::Refused(refusal(refused))),
    });
    let provider = match provider {
        Provider::Cpu => wire::Provider::Cpu,
        Provider::Cuda => wire::Provider::Cuda,
    };
    let timings = wire::Timings {
        decode: timings.decode,
        queue: timings.queue,
        infer: timings.infer,
        answer: timings.postprocess,
    };
    Reply { id, path, provider, groups, timings, answers: answers.collect() }
}

/// The protocol's form of a refusal of the engine.
pub(super) fn refusal(refusal: Refusal) -> wire::Refusal {
    let code = refusal_code(refusal.reason);
    wire::Refusal { code, retry: refusal.retry, text: refusal.text }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::{ClassMap, Groups, TaskAnswer, Timings};

    fn map(width: usize, height: usize) -> Prediction {
        Prediction::Map(ClassMap { width, height, classes: vec![1; width * height] })
    }

    #[test]
    fn a_map_over_the_limit_is_refused() {
        for (width, height) in [(4096, 4096), (0, 3)] {
            assert_eq!(outcome(map(width, height)).unwrap_err().reason, RefusalReason::TooLarge);
        }
        let error = outcome(map(65536, 1)).unwrap_err();
        assert_eq!(error.text, "map size: the tail's own resolution is over 65535");
        let Ok(Outcome::Map(packed)) = outcome(map(3, 2)) else { panic!("a small map is packed") };
        assert_eq!((packed.width(), packed.height()), (3, 2));
        assert_eq!(packed.unpack().unwrap(), [1; 6]);
    }

    #[test]
    fn a_reply_holds_the_engines_answer() {
        let retry = Some(Duration::from_millis(7));
        let busy = Refusal { reason: RefusalReason::Busy, text: "64 frames wait".into(), retry };
        let ms = Duration::from_millis;
        let answer = Answer {
            provider: Provider::Cuda,
            groups: Some(Groups { used: 2, total: 6 }),
            timings: Timings { decode: ms(1), queue: ms(2), infer: ms(3), postprocess: ms(4) },
            tasks: vec![
                TaskAnswer { task: 1, batch: 3, result: Ok(Outcome::Classes(Vec::new())) },
                TaskAnswer { task: 0, batch: 0, result: Err(busy) },
            ],
        };
        let reply = reply(9, Path::Image, &[1, 0], answer);
        assert_eq!((reply.id, reply.path, reply.provider), (9, Path::Image, wire::Provider::Cuda));
        assert_eq!(reply.groups, Some(wire::Groups { used: 2, total: 6 }));
        let wire::Timings { decode, queue, infer, answer } = reply.timings;
        assert_eq!([decode, queue, infer, answer], [ms(1), ms(2), ms(3), ms(4)]);
        assert_eq!(reply.answers[0].outcome, Outcome::Classes(Vec::new()));
        assert_eq!((reply.answers[0].task, reply.answers[0].batch), (1, 3));
        let refused = wire::Refusal { code: RefusalCode::Busy, retry, text: "64 frames wait".into() };
        assert_eq!(reply.answers[1].outcome, Outcome::Refused(refused));
    }
}
