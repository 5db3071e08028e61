//! Head, codec and tails of a bundle in one process, and its unsplit networks, all on the CPU.

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use narrows_codec::{Choice, Encoder, Feature, GeometryId, LevelId, Shape, Tables, decode, prefixes};
use narrows_head::{
    Head,
    encoding::{Chroma, Encoding, Format},
};
use narrows_models::Bundle;
use narrows_tail::engine::{Device, Input, Runtime, Session};
use ndarray::{Array1, Array4, ArrayView4};

/// Threads of each session: two are quick, and leave a small machine its other cores.
const THREADS: usize = 2;

/// Head, codec and tails of one bundle, with its unsplit networks.
pub struct InProcessPipeline {
    head: Head,
    tables: Tables,
    shapes: Vec<Shape>,
    tails: Vec<Session>,
    unsplit: UnsplitNetworks,
}

/// What the split path made of one image.
pub struct Coded {
    /// The head's input, u8 [height, width, 3].
    pub pixels: Vec<u8>,
    /// Width and height of the input.
    pub size: (usize, usize),
    /// One entry per packet.
    pub packets: Vec<PacketOutput>,
}

/// A packet's size and what the tail made of it.
pub struct PacketOutput {
    /// Bytes of the packet with its header.
    pub bytes: usize,
    /// The tail's output for this one item.
    pub output: Vec<f32>,
}

impl InProcessPipeline {
    /// Opens the head, the tables and every tail and unsplit network of `bundle`.
    ///
    /// # Errors
    /// When a file of the bundle cannot be read or ONNX Runtime refuses a network.
    pub fn open(bundle: &Bundle, runtime: &Runtime) -> Result<Self> {
        let tables = Tables::parse(&bundle.read(bundle.tables())?).context(bundle.tables().to_owned())?;
        let channels = bundle.head().channels;
        let shapes = bundle.geometries().iter().map(|geometry| {
            let (height, width) = geometry.latent(bundle.head().stride);
            Shape::new(channels, height, width).with_context(|| format!("geometry {}", geometry.name))
        });
        let shapes = shapes.collect::<Result<_>>()?;
        let tails = bundle.tasks().iter().map(|task| open(runtime, bundle, &task.tail));
        let tails = tails.collect::<Result<_>>()?;
        let unsplit = UnsplitNetworks::open(bundle, runtime)?;
        Ok(InProcessPipeline { head: Head::open(bundle.clone())?, tables, shapes, tails, unsplit })
    }

    /// The index of the task called `name`.
    ///
    /// # Errors
    /// When the bundle has no such task.
    pub fn task(&self, name: &str) -> Result<usize> {
        let found = self.head.bundle().task(name);
        Ok(found.with_context(|| format!("the bundle has no task `{name}`"))?.0)
    }

    /// The number of classes of a task.
    #[must_use]
    pub fn classes(&self, task: usize) -> usize {
        self.head.bundle().tasks()[task].labels.len()
    }

    /// Multiply-accumulates of the head at a geometry.
    #[must_use]
    pub fn head_macs(&self, geometry: GeometryId) -> u64 {
        self.head.macs(geometry)
    }

    /// Channels in the first group, in the first two groups, and so on.
    #[must_use]
    pub fn channels_by_group(&self) -> Vec<usize> {
        let mut sum = 0;
        let group = |group: &[u16]| {
            sum += group.len();
            sum
        };
        self.tables.order().map(group).collect()
    }

    /// Sends `image` at each of `levels` through head, encoder, decoder and the tail of `task`, at the task's geometry.
    ///
    /// # Errors
    /// When a stage fails, or a packet does not decode to the feature that was encoded.
    pub fn run_levels(&mut self, task: usize, levels: &[usize], image: &RgbImage) -> Result<Coded> {
        let (geometry, size) = self.geometry(task)?;
        let mut coded = Coded { pixels: Vec::new(), size, packets: Vec::new() };
        for &level in levels {
            let encoded = self.head.encode_image(image, geometry, LevelId(u8::try_from(level)?))?;
            let decoded = decode(&self.tables, &self.shapes, &encoded.packet)?;
            ensure!(decoded.feature == encoded.feature, "the packet does not decode to what was encoded");
            let output = self.run_tail(task, level, &decoded.feature)?;
            coded.packets.push(PacketOutput { bytes: encoded.packet.len(), output });
            coded.pixels = encoded.pixels;
        }
        Ok(coded)
    }

    /// Sends `image` through the head at `level` and runs the tail of `task` on every prefix of the packet that ends
    /// after a group of channels, the shortest first and the whole packet last.
    ///
    /// # Errors
    /// When a stage fails.
    pub fn run_prefixes(&mut self, task: usize, level: usize, image: &RgbImage) -> Result<Coded> {
        let (geometry, size) = self.geometry(task)?;
        let level_id = LevelId(u8::try_from(level)?);
        let encoded = self.head.encode_image(image, geometry, level_id)?;
        let (mut encoder, mut packet) = (Encoder::new().truncatable(true), Vec::new());
        encoder.encode(&self.tables, geometry, level_id, Choice::Auto, &encoded.feature, &mut packet)?;
        let mut coded = Coded { pixels: encoded.pixels, size, packets: Vec::new() };
        for bytes in prefixes(&packet)? {
            let decoded = decode(&self.tables, &self.shapes, &packet[..bytes])?;
            let output = self.run_tail(task, level, &decoded.feature)?;
            coded.packets.push(PacketOutput { bytes, output });
        }
        Ok(coded)
    }

    /// Runs the unsplit network of `task` over a batch of inputs, u8 [N, height, width, 3]; `size` is width and height.
    ///
    /// # Errors
    /// When the bundle has no unsplit network for the task, or it fails.
    pub fn unsplit(&mut self, task: usize, pixels: &[u8], size: (usize, usize)) -> Result<Vec<f32>> {
        self.unsplit.run(task, pixels, size)
    }

    /// The geometry of a task, and width and height of its input.
    fn geometry(&self, task: usize) -> Result<(GeometryId, (usize, usize))> {
        let geometry = self.head.bundle().tasks()[task].geometry;
        let input = &self.head.bundle().geometries()[geometry];
        Ok((GeometryId(u8::try_from(geometry)?), (input.width, input.height)))
    }

    /// The tail's output for one feature of a rate level.
    fn run_tail(&mut self, task: usize, level: usize, feature: &Feature) -> Result<Vec<f32>> {
        let step = self.head.bundle().levels()[level].step;
        let shape = feature.shape();
        let latent = feature.symbols().iter().map(|&symbol| f32::from(symbol) * step).collect();
        let latent = Array4::from_shape_vec((1, shape.channels(), shape.height(), shape.width()), latent)?;
        let steps = Array1::from_elem(1, step);
        let spec = &self.head.bundle().tasks()[task];
        let inputs = [
            (spec.latent.as_str(), Input::F32(latent.view().into_dyn())),
            (spec.step.as_str(), Input::F32(steps.view().into_dyn())),
        ];
        let output = self.tails[task].run(&inputs, &spec.output)?;
        Ok(output.into_raw_vec_and_offset().0)
    }
}

/// The unsplit networks of a bundle, by task.
pub struct UnsplitNetworks {
    /// Session, name of the input and name of the output; `None` for a task without a reference network.
    networks: Vec<Option<(Session, String, String)>>,
}

impl UnsplitNetworks {
    /// Opens every reference network of `bundle`.
    ///
    /// # Errors
    /// When a file of the bundle cannot be read or ONNX Runtime refuses a network.
    pub fn open(bundle: &Bundle, runtime: &Runtime) -> Result<Self> {
        let networks = bundle.tasks().iter().map(|task| {
            let Some(reference) = &task.reference else { return Ok(None) };
            let session = open(runtime, bundle, &reference.file)?;
            Ok(Some((session, reference.input.clone(), reference.output.clone())))
        });
        Ok(UnsplitNetworks { networks: networks.collect::<Result<_>>()? })
    }

    /// Logits of `task` for a batch of inputs, u8 [N, height, width, 3].
    ///
    /// # Errors
    /// When the bundle has no unsplit network for the task, or it fails.
    pub fn run(&mut self, task: usize, pixels: &[u8], (width, height): (usize, usize)) -> Result<Vec<f32>> {
        let network = self.networks.get_mut(task).and_then(Option::as_mut);
        let (session, input, output) =
            network.context("the bundle brings no unsplit network for this task")?;
        let items = pixels.len() / (3 * width * height);
        let pixels = ArrayView4::from_shape((items, height, width, 3), pixels)?;
        let logits = session.run(&[(input.as_str(), Input::U8(pixels.into_dyn()))], output)?;
        Ok(logits.into_raw_vec_and_offset().0)
    }
}

fn open(runtime: &Runtime, bundle: &Bundle, part: &str) -> Result<Session> {
    let onnx = bundle.read(part)?;
    Session::from_bytes(runtime, &bundle.path(part), &onnx, Device::Cpu, THREADS)
        .with_context(|| part.to_owned())
}

/// Encodes pixels, u8 [height, width, 3], as a JPEG file with 4:2:0 chroma.
///
/// # Errors
/// When the encoder refuses the size or the quality.
pub fn encode_jpeg(pixels: &[u8], width: usize, height: usize, quality: u8) -> Result<Vec<u8>> {
    Ok(Encoding { format: Format::Jpeg, quality, chroma: Chroma::Half }.encode(pixels, width, height)?)
}
