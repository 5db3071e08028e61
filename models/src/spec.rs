//! The contents of a manifest as checked types.

use crate::Label;

/// The head: the part of the network that runs on the device.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HeadSpec {
    /// The part that holds the network.
    pub file: String,
    /// Name of the input tensor, u8 [1, height, width, 3].
    pub input: String,
    /// Name of the output tensor, s8 [1, channels, height / stride, width / stride].
    pub output: String,
    /// Channels of the latent.
    pub channels: usize,
    /// Image pixels per latent position, in both directions.
    pub stride: usize,
    /// Multiply-accumulates for one image of the first geometry.
    pub macs: u64,
    /// Number of weights and biases.
    pub parameters: u64,
}

/// An input size, and how an image is brought to that size (BUNDLE.md, section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Geometry {
    /// Name in the manifest.
    pub name: String,
    /// Input width in pixels, a multiple of the head's stride.
    pub width: usize,
    /// Input height in pixels, a multiple of the head's stride.
    pub height: usize,
    /// How an image of another size is brought to this one.
    pub fit: Fit,
    /// The resampling filter.
    pub filter: Filter,
}

impl Geometry {
    /// An input of a network. What a bundle brings is checked when it is opened; here any sizes above zero will do.
    #[must_use]
    pub fn new(name: &str, (width, height): (usize, usize), fit: Fit, filter: Filter) -> Self {
        Geometry { name: name.to_owned(), width, height, fit, filter }
    }
}

/// How an image of any size is brought to the size of a [`Geometry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Resize so that the shorter side has `short_side` pixels, then crop the centre.
    Crop {
        /// The shorter side after resizing, at least the longer side of the geometry.
        short_side: usize,
    },
    /// Resize to the geometry's width and height without keeping the aspect ratio.
    Stretch,
}

/// A resampling filter. It is widened by the scale where an image gets smaller (antialiasing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Catmull-Rom, which is the cubic with a = −0.5; Pillow's bicubic.
    Bicubic,
    /// Triangle filter.
    Bilinear,
    /// Box filter: the mean of the covered pixels.
    Box,
}

/// A rate level: an operating point of the head.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Level {
    /// Multiplies the last layer's requantisation factors; 0 < gain ≤ 1.
    pub gain: f32,
    /// Quantisation step: the input of the tail is `symbol * step`.
    pub step: f32,
    /// Mean bytes of a packet at the first geometry, on photos that were held out of training.
    pub bytes: u32,
}

/// A task that a tail answers from a latent.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Task {
    /// Name in the manifest and in the hello.
    pub name: String,
    /// The form of the answer.
    pub kind: TaskKind,
    /// The part that holds the tail, the network of the server.
    pub tail: String,
    /// Name of the tail's latent tensor, f32 [N, channels, h, w].
    pub latent: String,
    /// Name of the tail's step tensor, f32 `[N]`.
    pub step: String,
    /// Name of the tail's output tensor.
    pub output: String,
    /// Index of the geometry to use when this task is requested alone.
    pub geometry: usize,
    /// The part that holds the labels.
    pub labels_file: String,
    /// The classes, by index.
    pub labels: Vec<Label>,
    /// The unsplit network, if the bundle has it.
    pub reference: Option<Reference>,
    /// What an answer is worth at each rate level and at each place where a packet may end, finest level first; empty if that
    /// was not measured.
    pub ladder: Vec<LevelValues>,
}

/// What the answers of a task at one rate level are worth, by how much of the packet they are made from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LevelValues {
    /// Mean bytes of a packet, at the task's geometry, up to the end of each group of channels; they ascend, and the last is
    /// the whole packet.
    pub bytes: Vec<u32>,
    /// Quality of the answer from exactly so much, from 0 to 1; it does not descend.
    pub value: Vec<f64>,
}

/// The form of a task's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Scores for the whole image: logits f32 [N, classes].
    Classify,
    /// Scores for every pixel: logits f32 [N, classes, h·stride, w·stride].
    Segment,
}

/// The unsplit network of a task (BUNDLE.md, section 6).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reference {
    /// The part that holds it.
    pub file: String,
    /// Name of the input tensor, u8 [N, height, width, 3].
    pub input: String,
    /// Name of the output tensor, shaped as the tail's.
    pub output: String,
}

/// An input with the outputs that every implementation must reproduce (BUNDLE.md, section 8).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vector {
    /// Name in the manifest.
    pub name: String,
    /// Index of the geometry.
    pub geometry: usize,
    /// Index of the rate level.
    pub level: usize,
    /// PNG of the geometry's size.
    pub image: String,
    /// The head's output, i8 in channel, row, column order.
    pub symbols: String,
    /// The packet in mode static.
    pub packet: String,
    /// The outputs of the tails.
    pub outputs: Vec<VectorOutput>,
}

/// The output of a tail for a [`Vector`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VectorOutput {
    /// Index of the task.
    pub task: usize,
    /// Little-endian f32 in the tensor's order.
    pub file: String,
    /// For kind segment, only pixels `[stride/2::stride, stride/2::stride]` are stored; 1 means all.
    pub stride: usize,
}

/// The local network, which runs on the device alone (BUNDLE.md, section 9).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LocalSpec {
    /// The part that holds the network.
    pub file: String,
    /// Name of the input tensor, u8 [1, height, width, 3].
    pub input: String,
    /// Name of the output tensor, f32 [1, classes].
    pub output: String,
    /// Index of the task that it answers, of kind classify.
    pub task: usize,
    /// Name of the network.
    pub backbone: String,
    /// Size of the input, and how an image is brought to it; not one of the head's geometries.
    pub geometry: Geometry,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Number of weights and biases.
    pub parameters: u64,
    /// The same network in f32, if the bundle has it.
    pub reference: Option<Reference>,
    /// Inputs with the logits that every implementation must reproduce.
    pub vectors: Vec<LocalVector>,
    /// From which confidence on its answer makes sending needless, if that was calibrated.
    pub exit: Option<ExitSpec>,
}

/// The calibrated early exit: photos that the local network is sure of are not sent (BUNDLE.md, section 10).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExitSpec {
    /// Confidence from which on the local network's answer is used; one of the curve's thresholds.
    pub threshold: f64,
    /// Number of held-out photos that the curve was measured on.
    pub photos: u32,
    /// Name of the network whose classes stood for labels.
    pub judge: String,
    /// What each threshold keeps and costs, the lowest threshold first.
    pub curve: Vec<ExitPoint>,
}

/// Early exit at one threshold, on held-out photos.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ExitPoint {
    /// Confidence from which on the local network's answer is used.
    pub threshold: f64,
    /// Share of the photos that stay on the device, from 0 to 1.
    pub kept: f64,
    /// Share of the photos whose answer is the judge's class, from 0 to 1.
    pub agreement: f64,
    /// Mean packet bytes per photo at the default level; a photo that stays on the device has none.
    pub bytes: f64,
}

/// An input of the local network with its logits, bit for bit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalVector {
    /// Name in the manifest.
    pub name: String,
    /// PNG of the local geometry's size.
    pub image: String,
    /// Little-endian f32, one per class.
    pub logits: String,
}

impl Geometry {
    /// Bytes of one image: pixels times three.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.width * self.height * 3
    }

    /// Height and width of the latent for a head of this stride.
    #[must_use]
    pub fn latent(&self, stride: usize) -> (usize, usize) {
        (self.height / stride, self.width / stride)
    }
}
