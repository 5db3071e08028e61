//! The engine without any transport: it answers jobs for the shipped bundle, and refuses what it cannot answer. Needs ONNX
//! Runtime (`make runtime`).

use std::{
    error::Error,
    time::{Duration, Instant},
};

use narrows_codec::{Decoder, Feature, GeometryId, LevelId, Shape, Tables};
use narrows_models::{Bundle, image::ImageFormat};
use narrows_tail::engine::{
    Answer, Client, Device, EncodedImage, Engine, Framing, Job, JobInput, Options, Prediction, Query,
    RefusalReason, TaskQuery,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BUNDLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/bundles/lite2");

/// One test, because a process can load ONNX Runtime only once, and so has one engine.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_answers_jobs_that_fit_its_model_and_refuses_others() -> Result<()> {
    let options = Options { device: Device::Cpu, unsplit: true, ..Options::default() };
    let engine = Engine::open(&[BUNDLE.into()], &options)?;
    a_packet_and_the_latent_in_it_have_the_same_answer(&engine).await?;
    an_image_is_answered_by_the_unsplit_network(&engine).await?;
    the_front_end_converts_predictions_and_may_refuse_them(&engine).await?;
    jobs_that_do_not_fit_the_model_are_refused_with_the_reason(&engine).await?;
    a_conversion_that_panics_fails_its_job_alone(&engine).await?;
    engine.close();
    let model = engine.models().remove(0);
    let bundle = model.bundle();
    let late = job(&engine, JobInput::Packet(latent(bundle)?.0), vec![classify(bundle)?]);
    assert_eq!(engine.submit(late).await.expect_err("a refusal").reason, RefusalReason::ShuttingDown);
    Ok(())
}

/// A job for the engine's only model, without a deadline.
#[expect(clippy::disallowed_methods, reason = "a job arrives now")]
fn job(engine: &Engine, input: JobInput, queries: Vec<TaskQuery>) -> Job {
    let model = engine.models().remove(0);
    Job { client: Client::default(), model, input, queries, arrived: Instant::now(), deadline: None }
}

fn classify(bundle: &Bundle) -> Result<TaskQuery> {
    let (task, _) = bundle.task("classify").ok_or("no such task")?;
    Ok(TaskQuery { task, query: Query::Classify { top_k: 3 } })
}

fn segment(bundle: &Bundle, size: Option<(usize, usize)>) -> Result<TaskQuery> {
    let (task, _) = bundle.task("segment").ok_or("no such task")?;
    Ok(TaskQuery { task, query: Query::Segment { size } })
}

/// The packet of the bundle's first vector, and the latent that it holds.
fn latent(bundle: &Bundle) -> Result<(Vec<u8>, JobInput)> {
    let packet = bundle.read(&bundle.vectors().first().ok_or("no vector")?.packet)?;
    let tables = Tables::parse(&bundle.read(bundle.tables())?)?;
    let shape = |geometry: &narrows_models::Geometry| {
        let (height, width) = geometry.latent(bundle.head().stride);
        Shape::new(bundle.head().channels, height, width)
    };
    let shapes = bundle.geometries().iter().map(shape).collect::<std::result::Result<Vec<_>, _>>()?;
    let decoded = Decoder::new().decode(&tables, &shapes, &packet)?;
    let (geometry, level, feature) = (decoded.geometry, decoded.level, decoded.feature);
    Ok((packet, JobInput::Latent { geometry, level, feature }))
}

fn predictions(answer: Answer) -> Result<Vec<Prediction>> {
    Ok(answer.tasks.into_iter().map(|task| task.result).collect::<std::result::Result<_, _>>()?)
}

async fn a_packet_and_the_latent_in_it_have_the_same_answer(engine: &Engine) -> Result<()> {
    let model = engine.models().remove(0);
    let bundle = model.bundle();
    let queries = vec![classify(bundle)?, segment(bundle, Some((60, 45)))?];
    let (packet, latent) = latent(bundle)?;
    let answer = engine.submit(job(engine, JobInput::Packet(packet), queries.clone())).await?;
    assert!(answer.timings.infer > Duration::ZERO);
    assert!(answer.tasks.iter().all(|task| task.batch == 1));
    let of_packet = predictions(answer)?;
    let of_latent = predictions(engine.submit(job(engine, latent, queries)).await?)?;
    assert_eq!(of_packet, of_latent);
    let [Prediction::Classes(classes), Prediction::Map(map)] = &of_packet[..] else {
        panic!("{of_packet:?}")
    };
    assert_eq!(classes.len(), 3);
    assert!(classes.is_sorted_by(|a, b| a.probability >= b.probability));
    assert_eq!((map.width, map.height, map.classes.len()), (60, 45, 60 * 45));
    assert_eq!(model.networks().map(|network| network.runs.sizes().count()).sum::<u64>(), 4);
    Ok(())
}

async fn an_image_is_answered_by_the_unsplit_network(engine: &Engine) -> Result<()> {
    let model = engine.models().remove(0);
    let bundle = model.bundle();
    let vector = bundle.vectors().first().ok_or("no vector")?;
    let image = EncodedImage {
        geometry: GeometryId(u8::try_from(vector.geometry)?),
        format: ImageFormat::Png,
        framing: Framing::Fitted,
        file: bundle.read(&vector.image)?,
    };
    let answer = engine.submit(job(engine, JobInput::Image(image.clone()), vec![classify(bundle)?])).await?;
    let [Prediction::Classes(classes)] = &predictions(answer)?[..] else { panic!("no classes") };
    assert_eq!(classes.len(), 3);

    let elsewhere = EncodedImage { geometry: GeometryId(99), ..image };
    let refused = engine.submit(job(engine, JobInput::Image(elsewhere), vec![classify(bundle)?])).await;
    assert_eq!(refused.expect_err("a refusal").reason, RefusalReason::BadImage);
    Ok(())
}

async fn the_front_end_converts_predictions_and_may_refuse_them(engine: &Engine) -> Result<()> {
    let model = engine.models().remove(0);
    let bundle = model.bundle();
    let (packet, _) = latent(bundle)?;
    let queries = vec![classify(bundle)?, segment(bundle, None)?];
    let too_large =
        || narrows_tail::engine::Refusal::new(RefusalReason::TooLarge, "the front end takes no maps");
    let convert = |prediction| match prediction {
        Prediction::Classes(classes) => Ok(classes.len()),
        _ => Err(too_large()),
    };
    let answer = engine.submit_with(job(engine, JobInput::Packet(packet.clone()), queries), convert).await?;
    let results: Vec<_> = answer.tasks.into_iter().map(|task| task.result).collect();
    assert_eq!(results, [Ok(3), Err(too_large())]);
    // If no task is left, the job is refused.
    let only_map = vec![segment(bundle, None)?];
    let refused = engine.submit_with(job(engine, JobInput::Packet(packet), only_map), convert).await;
    assert_eq!(refused.expect_err("a refusal"), too_large());
    Ok(())
}

async fn a_conversion_that_panics_fails_its_job_alone(engine: &Engine) -> Result<()> {
    let model = engine.models().remove(0);
    let bundle = model.bundle();
    let (packet, _) = latent(bundle)?;
    for query in [classify(bundle)?, segment(bundle, None)?] {
        let (held, given_back) = tokio::sync::oneshot::channel::<()>();
        let panicking = job(engine, JobInput::Packet(packet.clone()), vec![query]);
        let answer = engine
            .submit_releasing(panicking, held, |_| -> std::result::Result<(), _> { panic!("injected") });
        assert!(catch(answer).await.is_err());
        assert!(given_back.await.is_err(), "what the job held is dropped");
        let next = job(engine, JobInput::Packet(packet.clone()), vec![query]);
        assert_eq!(engine.submit(next).await?.tasks.len(), 1);
    }
    Ok(())
}

/// The output of a future, or the panic that ended it.
async fn catch<T>(future: impl Future<Output = T>) -> std::thread::Result<T> {
    let mut future = Box::pin(future);
    std::future::poll_fn(move |context| {
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await
}

async fn jobs_that_do_not_fit_the_model_are_refused_with_the_reason(engine: &Engine) -> Result<()> {
    let model = engine.models().remove(0);
    let bundle = model.bundle();
    let ((packet, latent), classify) = (latent(bundle)?, classify(bundle)?);
    let JobInput::Latent { geometry, level, feature } = latent else { panic!("a latent") };
    let reason = async |input: JobInput, query: TaskQuery| {
        engine.submit(job(engine, input, vec![query])).await.map(drop).expect_err("a refusal").reason
    };
    let packet = || JobInput::Packet(packet.clone());
    let no_task = TaskQuery { task: 99, ..classify };
    assert_eq!(reason(packet(), no_task).await, RefusalReason::NoSuchTask);
    let wrong = TaskQuery { query: Query::Segment { size: None }, ..classify };
    assert_eq!(reason(packet(), wrong).await, RefusalReason::WrongQuery);
    assert_eq!(reason(JobInput::Packet(vec![1, 2, 3]), classify).await, RefusalReason::BadLatent);
    let unfit = |geometry, level, feature| JobInput::Latent { geometry, level, feature };
    let small = Feature::new(Shape::new(1, 1, 1)?, vec![0])?;
    assert_eq!(reason(unfit(geometry, level, small), classify).await, RefusalReason::BadLatent);
    let no_level = unfit(geometry, LevelId(99), feature.clone());
    assert_eq!(reason(no_level, classify).await, RefusalReason::BadLatent);
    let no_geometry = unfit(GeometryId(99), level, feature);
    assert_eq!(reason(no_geometry, classify).await, RefusalReason::BadLatent);
    // The image of an unknown geometry is the fifth.
    assert_eq!(engine.metrics().decode_failures.value(), 5);
    Ok(())
}
