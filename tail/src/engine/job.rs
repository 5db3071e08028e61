//! Jobs and their answers.

use std::{sync::Arc, time::Instant};

use narrows_codec::{Feature, GeometryId, LevelId};

use super::{
    client::Client, decode::EncodedImage, model::Model, ort::Provider, postprocess::Prediction,
    query::TaskQuery, refusal::Refusal, timing::Timings,
};

/// One frame and the queries to answer from it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Who it is for.
    pub client: Client,
    /// The model to run, one of [`Engine::models`](super::Engine::models).
    pub model: Arc<Model>,
    /// The frame.
    pub input: JobInput,
    /// The queries, one answer each.
    pub queries: Vec<TaskQuery>,
    /// The time of the frame's arrival, from which [`Answer::timings`] count.
    pub arrived: Instant,
    /// The time by which the answer is of use. A job that the networks are not estimated to finish by then, or have not begun, is
    /// refused.
    pub deadline: Option<Instant>,
}

/// The frame of a [`Job`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JobInput {
    /// A codec packet (codec/FORMAT.md). The split networks answer it.
    Packet(Vec<u8>),
    /// The beginning of a codec packet, or all of it. The split networks answer the whole channel groups in it.
    TruncatedPacket(Vec<u8>),
    /// A quantized latent that is already decoded. The split networks answer it.
    Latent {
        /// The geometry, which determines the latent's shape.
        geometry: GeometryId,
        /// The rate level, which determines the quantization step.
        level: LevelId,
        /// The latent's integers.
        feature: Feature,
    },
    /// What a tail takes: the values of a latent, which need not be multiples of `step`. The split networks answer it.
    Values {
        /// The geometry, which determines the latent's shape.
        geometry: GeometryId,
        /// The latent's values, row by row.
        values: Vec<f32>,
        /// The quantization step.
        step: f32,
    },
    /// Pixels in the size of a geometry, u8 RGB, row by row. The unsplit networks answer it, if they are served.
    Pixels {
        /// The geometry.
        geometry: GeometryId,
        /// The pixels.
        pixels: Vec<u8>,
    },
    /// An image file. The unsplit networks answer it, if they are served.
    Image(EncodedImage),
}

/// The answer to a [`Job`]. `T` is the form that the front end's conversion gave the predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T = Prediction> {
    /// The execution provider of the networks.
    pub provider: Provider,
    /// The channel groups that the predictions are from; `None` for other inputs than a truncated packet.
    pub groups: Option<Groups>,
    /// The time that each stage took.
    pub timings: Timings,
    /// One entry per query, in their order; at least one holds a prediction.
    pub tasks: Vec<TaskAnswer<T>>,
}

/// How many of a packet's channel groups a prediction is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// The groups that the packet holds whole, from the first on.
    pub used: usize,
    /// The groups that it was encoded with.
    pub total: usize,
}

/// The answer of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskAnswer<T = Prediction> {
    /// The index of the task in the bundle's manifest.
    pub task: usize,
    /// The number of frames that shared the inference run; 0 if there was none.
    pub batch: usize,
    /// The prediction, or the reason why this task has none.
    pub result: Result<T, Refusal>,
}
