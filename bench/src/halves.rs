//! Both halves in one process: the shipped head, codec and tails, and the unsplit networks beside them.

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use narrows_codec::{Choice, Encoder, Feature, GeometryId, LevelId, Shape, Tables, decode, prefixes};
use narrows_head::{
    Head,
    encoding::{Chroma, Encoding, Format},
};
use narrows_models::Bundle;
use narrows_tail::net::{Device, Input, Runtime, Session};
use ndarray::{Array1, Array4};

/// Head, codec and tails of one bundle, and its unsplit networks.
pub struct Halves {
    head: Head,
    tables: Tables,
    shapes: Vec<Shape>,
    tails: Vec<Session>,
    unsplit: Unsplit,
}

/// What the split path made of an image.
pub struct Split {
    /// The head's input, u8 [height, width, 3].
    pub pixels: Vec<u8>,
    /// Width and height of the input.
    pub size: (usize, usize),
    /// Bytes of the packet, header and all.
    pub packet: usize,
    /// The tail's output for this one item.
    pub output: Vec<f32>,
}

/// A prefix of a packet and what the tail made of it.
pub struct Prefix {
    /// Bytes of the prefix, header and all.
    pub packet: usize,
    /// The tail's output for this one item.
    pub output: Vec<f32>,
}

/// Every prefix of a packet, the head's input, u8 \[height, width, 3\], and its width and height.
pub type Prefixes = (Vec<Prefix>, Vec<u8>, (usize, usize));

impl Halves {
    /// Opens the head, the tables and every tail and reference of `bundle` on the CPU.
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
        let unsplit = Unsplit::open(bundle, runtime)?;
        Ok(Halves { head: Head::open(bundle.clone())?, tables, shapes, tails, unsplit })
    }

    /// The index of a task by name.
    pub fn task(&self, name: &str) -> Result<usize> {
        let (index, _) =
            self.bundle().task(name).with_context(|| format!("the bundle has no task `{name}`"))?;
        Ok(index)
    }

    /// How many classes a task has.
    pub fn classes(&self, task: usize) -> usize {
        self.bundle().tasks()[task].labels.len()
    }

    /// Multiply-accumulates of the head at a geometry.
    pub fn head_macs(&self, geometry: usize) -> u64 {
        self.head.macs(geometry)
    }

    /// Sends `image` through head, encoder, decoder and the tail of `task`, at the task's own geometry.
    pub fn split(&mut self, task: usize, level: usize, image: &RgbImage) -> Result<Split> {
        let spec = &self.head.bundle().tasks()[task];
        let geometry = spec.geometry;
        let input = &self.head.bundle().geometries()[geometry];
        let (size, step) = ((input.width, input.height), self.head.bundle().levels()[level].step);
        let encoded = self.head.frame_of(image, geometry, level)?;
        let packet = decode(&self.tables, &self.shapes, &encoded.packet)?;
        ensure!(packet.feature == encoded.feature, "the packet does not decode to what was encoded");
        let output = self.finish(task, step, &packet.feature)?;
        Ok(Split { packet: encoded.packet.len(), pixels: encoded.pixels, size, output })
    }

    /// As [`split`](Self::split), with a packet that is cut after each group of channels in turn: what the tail makes
    /// of every prefix, the whole packet last; the pixels, and their width and height.
    pub fn prefixes(&mut self, task: usize, level: usize, image: &RgbImage) -> Result<Prefixes> {
        let geometry = self.bundle().tasks()[task].geometry;
        let input = &self.bundle().geometries()[geometry];
        let (size, step) = ((input.width, input.height), self.bundle().levels()[level].step);
        let encoded = self.head.frame_of(image, geometry, level)?;
        let mut packet = Vec::new();
        let (at, level) = (GeometryId(u8::try_from(geometry)?), LevelId(u8::try_from(level)?));
        let mut encoder = Encoder::new().truncatable(true);
        encoder.encode(&self.tables, at, level, Choice::Auto, &encoded.feature, &mut packet)?;
        let mut found = Vec::new();
        for length in prefixes(&packet)? {
            let decoded = decode(&self.tables, &self.shapes, &packet[..length])?;
            found.push(Prefix { packet: length, output: self.finish(task, step, &decoded.feature)? });
        }
        Ok((found, encoded.pixels, size))
    }

    /// Channels in the first group, in the first two, …
    pub fn channels_by_group(&self) -> Vec<usize> {
        let mut sum = 0;
        let group = |group: &[u16]| {
            sum += group.len();
            sum
        };
        self.tables.order().map(group).collect()
    }

    /// The tail's output for one feature.
    fn finish(&mut self, task: usize, step: f32, feature: &Feature) -> Result<Vec<f32>> {
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

    /// Runs the unsplit network of `task` over a batch of inputs, u8 [N, height, width, 3].
    pub fn unsplit(&mut self, task: usize, pixels: &[u8], size: (usize, usize)) -> Result<Vec<f32>> {
        self.unsplit.run(task, pixels, size)
    }

    fn bundle(&self) -> &Bundle {
        self.head.bundle()
    }
}

/// The unsplit networks of a bundle, by task.
pub struct Unsplit {
    networks: Vec<Option<(Session, String, String)>>,
}

impl Unsplit {
    /// Opens every reference network of `bundle` on the CPU.
    pub fn open(bundle: &Bundle, runtime: &Runtime) -> Result<Self> {
        let networks = bundle.tasks().iter().map(|task| {
            let Some(reference) = &task.reference else { return Ok(None) };
            let session = open(runtime, bundle, &reference.file)?;
            Ok(Some((session, reference.input.clone(), reference.output.clone())))
        });
        Ok(Unsplit { networks: networks.collect::<Result<_>>()? })
    }

    /// Logits of `task` for a batch of inputs, u8 [N, height, width, 3].
    pub fn run(&mut self, task: usize, pixels: &[u8], (width, height): (usize, usize)) -> Result<Vec<f32>> {
        let network = self.networks.get_mut(task).and_then(Option::as_mut);
        let (session, input, output) =
            network.context("the bundle brings no unsplit network for this task")?;
        let items = pixels.len() / (3 * width * height);
        let pixels = ndarray::ArrayView4::from_shape((items, height, width, 3), pixels)?;
        let logits = session.run(&[(input.as_str(), Input::U8(pixels.into_dyn()))], output)?;
        Ok(logits.into_raw_vec_and_offset().0)
    }
}

fn open(runtime: &Runtime, bundle: &Bundle, part: &str) -> Result<Session> {
    // Two threads: enough to be quick, few enough to leave a small machine its other cores.
    Session::open(runtime, &bundle.path(part), Device::Cpu, 2).with_context(|| part.to_owned())
}

/// Pixels, u8 [height, width, 3], as a JPEG with 4:2:0 chroma.
pub fn jpeg(pixels: &[u8], width: usize, height: usize, quality: u8) -> Result<Vec<u8>> {
    Ok(Encoding { format: Format::Jpeg, quality, chroma: Chroma::Half }.encode(pixels, width, height)?)
}
