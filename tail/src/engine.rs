//! Inference for any front end: jobs in, predictions out. The engine knows no transport.
//!
//! ```text
//! submit ── queues ── decode ── queues ── worker ── ort (ONNX Runtime) ── postprocess ── Answer
//!           admit?    latent    form      a thread   run                  softmax,
//!                     or pixels batches   per copy                        class map
//! ```
//!
//! An [`Engine`] serves [`Model`]s, which are bundles with their networks loaded. A [`Job`] names a model, carries one
//! frame (a codec packet, a decoded latent or an image file) and queries its tasks. [`Engine::submit`] returns the
//! [`Answer`], or a [`Refusal`] that says why there is none. The scheduler behind the queues
//! (`narrows-scheduler`), postprocessing and timing are pure: the time is an argument.
//!
//! [`Session`] runs a single network without queues and threads, for tools that measure networks.

mod bundle;
mod client;
mod decode;
mod dispatch;
mod error;
mod input;
mod job;
mod loader;
mod metrics;
mod model;
mod options;
mod ort;
mod postprocess;
mod query;
mod queues;
mod recorder;
mod refusal;
mod registry;
mod selftest;
mod ticket;
mod timing;
mod upkeep;
mod warmup;
mod worker;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use narrows_codec::{Feature, GeometryId, LevelId, Shape};
use narrows_models::{Digest, Geometry};
use tokio::sync::{oneshot, watch};

use self::{
    bundle::OpenedBundle,
    decode::{ImageDecoder, decode_groups, decode_packet},
    dispatch::{Dispatch, Frame, admit},
    input::{Latent, QuantizedLatent, RgbImage},
    loader::Loader,
    queues::Queues,
    recorder::Recorder,
    registry::{Command, Registry},
    upkeep::Upkeep,
};
pub use self::{
    client::{Client, Priority, Terms},
    decode::{EncodedImage, Framing},
    error::{Error, ErrorKind},
    job::{Answer, Groups, Job, JobInput, TaskAnswer},
    metrics::{Counter, Histogram, Metrics, NetworkStatus, Runs},
    model::Model,
    options::{BatchLimits, BundleOptions, Load, Options, WarmUp},
    ort::{
        Device, Error as OrtError, ErrorKind as OrtErrorKind, Input, LIBRARY_VARIABLE, Output, Provider,
        Runtime, Session,
    },
    postprocess::{Class, ClassMap, Prediction},
    query::{Query, TaskQuery},
    refusal::{Refusal, RefusalReason},
    registry::{BundleState, BundleStatus, Successor, Unserved},
    timing::Timings,
};
pub(crate) use self::{
    error::chain,
    postprocess::{class_map, probabilities},
};

/// The networks of some bundles, with their queues and worker threads.
///
/// [`Engine::close`] ends the threads. Those of an engine that is dropped without it wait for work until the process ends.
pub struct Engine {
    registry: Arc<Registry>,
    /// The thread that loads bundles.
    upkeep: Mutex<Option<JoinHandle<()>>>,
    queues: Arc<Queues>,
    decoder: ImageDecoder,
    metrics: Arc<Metrics>,
}

impl Engine {
    /// Opens the bundles in these folders, loads ONNX Runtime and the bundles' networks, tests each network against a
    /// vector of its bundle, and starts the workers.
    ///
    /// # Errors
    /// The first [`Error`] of these steps. All bundles are checked before the first network is loaded.
    pub fn open(folders: &[PathBuf], options: &Options) -> Result<Engine, Error> {
        let metrics = Arc::new(Metrics::default());
        let record = |path: &PathBuf| {
            Recorder::create(path).map_err(|source| Error::Recording { path: path.clone(), source })
        };
        let queues = Arc::new(Queues::new(options.record_arrivals.as_ref().map(record).transpose()?));
        let opened = open_all(folders, options.unsplit)?;
        let runtime = Runtime::open(options.library.as_deref())?;
        tracing::info!(library = %runtime.library().display(), version = runtime.version(), "ONNX Runtime");
        let (options, decoder) =
            (options.clone(), ImageDecoder::new(options.decoders, options.queue, options.max_image_pixels));
        let unsplit = options.unsplit;
        let loader = Loader { runtime, options, queues: Arc::clone(&queues), metrics: Arc::clone(&metrics) };
        let entries = upkeep::open(folders, &loader, opened)?;
        let (asks, commands) = mpsc::channel();
        let registry = Arc::new(Registry::new(unsplit, entries, asks));
        let upkeep = Upkeep { registry: Arc::clone(&registry), loader, commands }.start();
        let upkeep = Mutex::new(Some(upkeep.map_err(Error::Thread)?));
        Ok(Engine { registry, upkeep, queues, decoder, metrics })
    }

    /// The models in memory, in the order of their folders. Each stays in memory as long as the caller has it.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<Model>> {
        self.registry.models()
    }

    /// The bundles that are served, in memory or not, in the order of their folders; those that are leaving come last.
    #[must_use]
    pub fn bundles(&self) -> Vec<BundleStatus> {
        self.registry.bundles()
    }

    /// The model of a bundle that is served. One that is not in memory is loaded first, which takes seconds; that goes on where the
    /// future is dropped.
    ///
    /// # Errors
    /// The reason why there is none.
    pub async fn model(&self, digest: Digest) -> Result<Arc<Model>, Unserved> {
        self.registry.model(digest).await
    }

    /// Serves the bundles in these folders from now on, while those that are served answer frames; what is returned is told when
    /// that is done. Each new bundle is loaded, tested and warmed up before it takes the place of another. Where one cannot be
    /// used the log has the reason, and what was served from its folder stays. A bundle that is served no longer stays in
    /// memory as long as anybody has its model.
    #[must_use]
    pub fn serve_bundles(&self, folders: Vec<PathBuf>, options: BundleOptions) -> oneshot::Receiver<()> {
        let (done, served) = oneshot::channel();
        self.registry.ask(Command::Serve(folders, options, done));
        served
    }

    /// The version of a bundle that clients should have, if that is another one: of the served bundles of its name the last.
    #[must_use]
    pub fn successor(&self, digest: Digest) -> Option<Successor> {
        self.registry.successor(digest)
    }

    /// A receiver that is told when other bundles are served than before.
    #[must_use]
    pub fn watch_bundles(&self) -> watch::Receiver<u64> {
        self.registry.watch_offers()
    }

    /// The engine's counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers a job. Must be called on Tokio's multi-threaded runtime. Dropping the future gives the job up: work that has
    /// not begun never will.
    ///
    /// # Errors
    /// The reason why no task of the job has a prediction.
    pub async fn submit(&self, job: Job) -> Result<Answer, Refusal> {
        self.submit_with(job, Ok).await
    }

    /// Answers a job as [`Engine::submit`] does, with predictions in the form that `convert` gives them, for example
    /// compressed. Each prediction is converted as soon as it exists, on the thread that made it, and the time that this
    /// takes is part of [`Timings::postprocess`].
    ///
    /// # Errors
    /// The reason why no task of the job has a prediction.
    pub async fn submit_with<T>(
        &self,
        job: Job,
        convert: impl Fn(Prediction) -> Result<T, Refusal> + Sync,
    ) -> Result<Answer<T>, Refusal> {
        self.submit_releasing(job, (), convert).await
    }

    /// Answers a job as [`Engine::submit_with`] does, and drops `held` as soon as the job's packet or image file is no longer
    /// in memory, which is before the networks run.
    ///
    /// # Errors
    /// The reason why no task of the job has a prediction.
    pub async fn submit_releasing<T>(
        &self,
        job: Job,
        held: impl Send + 'static,
        convert: impl Fn(Prediction) -> Result<T, Refusal> + Sync,
    ) -> Result<Answer<T>, Refusal> {
        let Job { client, model, input, queries, arrived, deadline } = job;
        let (model, frame) = (&*model, Frame { client: &client, queries: &queries, arrived, deadline });
        match input {
            JobInput::Packet(packet) => {
                let input = (packet, held);
                let decode = move || {
                    let packet = decode_packet(model.tables(), model.shapes(), &input.0)?;
                    // The packet is dropped first.
                    drop(input);
                    Ok((packet.geometry, packet.level, packet.feature, None))
                };
                self.answer_latent(model, frame, decode, &convert).await
            }
            JobInput::TruncatedPacket(packet) => {
                let input = (packet, held);
                let decode = move || {
                    let packet = decode_groups(model.tables(), model.shapes(), &input.0)?;
                    drop(input);
                    let groups = Groups { used: packet.groups_decoded, total: packet.groups };
                    Ok((packet.geometry, packet.level, packet.feature, Some(groups)))
                };
                self.answer_latent(model, frame, decode, &convert).await
            }
            JobInput::Latent { geometry, level, feature } => {
                let check = move || {
                    let _held = held;
                    check_latent(model, geometry, level, &feature)?;
                    Ok((geometry, level, feature, None))
                };
                self.answer_latent(model, frame, check, &convert).await
            }
            JobInput::Values { geometry, values, step } => {
                let check = move || {
                    let _held = held;
                    let shape = shape_of(model, geometry)?;
                    if values.len() != shape.symbols() {
                        let text =
                            format!("{} values, geometry {geometry} has {}", values.len(), shape.symbols());
                        return Err(Refusal::new(RefusalReason::BadLatent, text));
                    }
                    let latent = Latent::Values(Arc::new(values), shape);
                    Ok((geometry, QuantizedLatent { latent, step }, None))
                };
                self.answer_split(model, frame, check, &convert).await
            }
            JobInput::Pixels { geometry, pixels } => {
                let _held = held;
                self.answer_pixels(model, frame, (geometry, pixels), &convert).await
            }
            JobInput::Image(image) => self.answer_image(model, frame, (image, held), &convert).await,
        }
    }

    /// Refuses new jobs, lets those that are queued run, and ends the worker threads.
    pub fn close(&self) {
        self.registry.close();
        let upkeep = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(upkeep) = upkeep {
            // It loads what it has begun to load, and ends.
            let _ = upkeep.join();
        }
        self.registry.end();
        self.queues.close();
    }

    /// Answers a latent with the split networks, once `decode` has made it.
    async fn answer_latent<T>(
        &self,
        model: &Model,
        frame: Frame<'_>,
        decode: impl FnOnce() -> Result<(GeometryId, LevelId, Feature, Option<Groups>), Refusal>,
        convert: &(impl Fn(Prediction) -> Result<T, Refusal> + Sync),
    ) -> Result<Answer<T>, Refusal> {
        let decode = || {
            let (geometry, level, feature, groups) = decode()?;
            let step = model.bundle().levels()[level.index()].step;
            Ok((geometry, QuantizedLatent { latent: Latent::Symbols(Arc::new(feature)), step }, groups))
        };
        self.answer_split(model, frame, decode, convert).await
    }

    /// Answers with the split networks, once `decode` has made their input.
    async fn answer_split<T>(
        &self,
        model: &Model,
        frame: Frame<'_>,
        decode: impl FnOnce() -> Result<(GeometryId, QuantizedLatent, Option<Groups>), Refusal>,
        convert: &(impl Fn(Prediction) -> Result<T, Refusal> + Sync),
    ) -> Result<Answer<T>, Refusal> {
        let networks = frame.queries.iter().map(|query| model.split_network(query));
        let networks = networks.collect::<Result<Vec<_>, _>>()?;
        admit(&self.queues, &self.metrics, &networks, frame)?;
        let (geometry, input, groups) = decode().inspect_err(|refusal| self.count(refusal))?;
        let decode_time = frame.arrived.elapsed();
        let dispatch = Dispatch { frame, networks, input, geometry: geometry.index(), decode_time };
        let answer = dispatch.answer(convert, (&self.queues, &self.metrics)).await?;
        Ok(Answer { groups, ..answer })
    }

    /// Decodes an image and answers it with the unsplit networks.
    async fn answer_image<T>(
        &self,
        model: &Model,
        frame: Frame<'_>,
        (image, held): (EncodedImage, impl Send + 'static),
        convert: &(impl Fn(Prediction) -> Result<T, Refusal> + Sync),
    ) -> Result<Answer<T>, Refusal> {
        let index = image.geometry.index();
        let Some(geometry) = model.bundle().geometries().get(index) else {
            let text = format!("geometry {index}, the bundle has {}", model.bundle().geometries().len());
            let refusal = Refusal::new(RefusalReason::BadImage, text);
            self.count(&refusal);
            return Err(refusal);
        };
        let networks = frame.queries.iter().map(|query| model.unsplit_network(query));
        let networks = networks.collect::<Result<Vec<_>, _>>()?;
        admit(&self.queues, &self.metrics, &networks, frame)?;
        let decoded = self.decoder.decode(image, held, geometry, frame.deadline).await;
        let (input, decode_time) = decoded.inspect_err(|refusal| self.count(refusal))?;
        let dispatch = Dispatch { frame, networks, input, geometry: index, decode_time };
        dispatch.answer(convert, (&self.queues, &self.metrics)).await
    }

    /// Answers pixels with the unsplit networks.
    async fn answer_pixels<T>(
        &self,
        model: &Model,
        frame: Frame<'_>,
        (geometry, pixels): (GeometryId, Vec<u8>),
        convert: &(impl Fn(Prediction) -> Result<T, Refusal> + Sync),
    ) -> Result<Answer<T>, Refusal> {
        let index = geometry.index();
        let fits = |geometry: &&Geometry| pixels.len() == 3 * geometry.width * geometry.height;
        let Some(geometry) = model.bundle().geometries().get(index).filter(fits) else {
            let text = format!("{} bytes of pixels do not fit geometry {index}", pixels.len());
            let refusal = Refusal::new(RefusalReason::BadImage, text);
            self.count(&refusal);
            return Err(refusal);
        };
        let networks = frame.queries.iter().map(|query| model.unsplit_network(query));
        let networks = networks.collect::<Result<Vec<_>, _>>()?;
        admit(&self.queues, &self.metrics, &networks, frame)?;
        let input = RgbImage { pixels: Arc::new(pixels), height: geometry.height, width: geometry.width };
        let decode_time = frame.arrived.elapsed();
        let dispatch = Dispatch { frame, networks, input, geometry: index, decode_time };
        dispatch.answer(convert, (&self.queues, &self.metrics)).await
    }

    /// Counts a frame that was refused while it was decoded.
    fn count(&self, refusal: &Refusal) {
        match refusal.reason {
            RefusalReason::BadLatent | RefusalReason::BadImage => self.metrics.decode_failures.add(1),
            RefusalReason::Expired => self.metrics.expired.add(1),
            RefusalReason::Busy => self.metrics.images_busy.add(1),
            _ => {}
        }
    }
}

/// Opens the bundles in these folders.
///
/// # Errors
/// The first [`Error`].
fn open_all(folders: &[PathBuf], unsplit: bool) -> Result<Vec<OpenedBundle>, Error> {
    let opened = folders.iter().map(|folder| OpenedBundle::open(folder, unsplit));
    let opened = opened.collect::<Result<Vec<_>, _>>()?;
    let digest = |index: usize| opened[index].bundle.digest();
    let repeated = (1..opened.len()).find(|&index| (0..index).any(|other| digest(other) == digest(index)));
    match repeated {
        Some(index) => {
            let folder = folders[index].clone();
            Err(Error::Unfit { folder, reason: "the same bundle is served twice".into() })
        }
        None => Ok(opened),
    }
}

/// The shape of a geometry's latent.
///
/// # Errors
/// [`RefusalReason::BadLatent`] for a geometry that the model does not have.
fn shape_of(model: &Model, geometry: GeometryId) -> Result<Shape, Refusal> {
    model.shapes().get(geometry.index()).copied().ok_or_else(|| {
        let text = format!("geometry {geometry}, the bundle has {}", model.shapes().len());
        Refusal::new(RefusalReason::BadLatent, text)
    })
}

/// Checks that a decoded latent is one of the model's.
///
/// # Errors
/// [`RefusalReason::BadLatent`] if it is not.
fn check_latent(
    model: &Model,
    geometry: GeometryId,
    level: LevelId,
    feature: &Feature,
) -> Result<(), Refusal> {
    let text = match model.shapes().get(geometry.index()) {
        None => format!("geometry {geometry}, the bundle has {}", model.shapes().len()),
        Some(shape) if *shape != feature.shape() => {
            format!("a latent of shape {:?}, geometry {geometry} has {shape:?}", feature.shape())
        }
        Some(_) if level.index() >= model.bundle().levels().len() => {
            format!("level {level}, the bundle has {}", model.bundle().levels().len())
        }
        Some(_) => return Ok(()),
    };
    Err(Refusal::new(RefusalReason::BadLatent, text))
}
