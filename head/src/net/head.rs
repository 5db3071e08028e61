//! The head of a bundle, ready to run at every geometry and level.

use std::sync::{Arc, Mutex, PoisonError};

use narrows_codec::{Feature, GeometryId, LevelId, Shape};
use narrows_int8::{Conv, Isa, Requant};
use narrows_models::Bundle;

use super::{
    error::Error,
    head_graph::HeadGraph,
    layer::Layer,
    node,
    plan::{Finish, Memory, Node, Operator, Plan},
};

/// The properties of a head that the manifest of its bundle states.
#[derive(Debug, Clone, PartialEq)]
pub struct Interface {
    /// Name of the input tensor.
    pub input: String,
    /// Name of the output tensor.
    pub output: String,
    /// Channels of the output.
    pub channels: usize,
    /// Pixels per output position, in both directions.
    pub stride: usize,
    /// Height and width of every input geometry.
    pub geometries: Vec<(usize, usize)>,
    /// Gain of every rate level.
    pub gains: Vec<f32>,
}

impl Interface {
    /// Reads the properties from the manifest of `bundle`.
    #[must_use]
    pub fn of(bundle: &Bundle) -> Interface {
        let head = bundle.head();
        Interface {
            input: head.input.clone(),
            output: head.output.clone(),
            channels: head.channels,
            stride: head.stride,
            geometries: bundle.geometries().iter().map(|g| (g.height, g.width)).collect(),
            gains: bundle.levels().iter().map(|level| level.gain).collect(),
        }
    }
}

/// What the head's output at every level is made from: the accumulators of its last layer (row, column, channel).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latent {
    geometry: GeometryId,
    accumulators: Vec<i32>,
}

impl Latent {
    /// The geometry of the image that it was made from.
    #[must_use]
    pub fn geometry(&self) -> GeometryId {
        self.geometry
    }
}

/// The head, ready to run at every geometry and level of its bundle.
pub struct Net {
    isa: Isa,
    plans: Vec<Plan>,
    macs: Vec<u64>,
    levels: Vec<Requant<i16>>,
    /// The symbols of an image in the order of the accumulators, before they are put in order.
    symbols: Mutex<Vec<i16>>,
}

impl Net {
    /// Loads the head of `bundle` for the fastest kernels of this processor.
    ///
    /// # Errors
    /// As [`Net::with_isa`].
    pub fn open(bundle: &Bundle) -> Result<Net, Error> {
        Net::with_isa(bundle, Isa::detect())
    }

    /// Loads the head of `bundle` for the kernels of `isa`.
    ///
    /// # Errors
    /// [`Error::Bundle`] if its file cannot be read; otherwise as [`Net::from_onnx`].
    pub fn with_isa(bundle: &Bundle, isa: Isa) -> Result<Net, Error> {
        let onnx = bundle.read(&bundle.head().file)?;
        Net::from_onnx(&onnx, &Interface::of(bundle), isa)
    }

    /// Loads a head from the bytes of its ONNX file.
    ///
    /// # Errors
    /// The first [`Error`] of a file that is not what section 4 of BUNDLE.md says or does not agree with `interface`.
    pub fn from_onnx(onnx: &[u8], interface: &Interface, isa: Isa) -> Result<Net, Error> {
        let graph = HeadGraph::parse(onnx)?;
        node::check_names([&graph.input, &graph.output], [&interface.input, &interface.output])?;
        let last = graph.layers.last().expect("`HeadGraph::parse` found a layer");
        if last.spec.out_channels != interface.channels {
            let problem =
                format!("{} channels, the manifest says {}", last.spec.out_channels, interface.channels);
            return Err(Error::Graph(problem));
        }
        let fail = |layer: &Layer| {
            let node = layer.name.clone();
            move |source| Error::Layer { node, source }
        };
        let mults = last.mults();
        let levels = interface.gains.iter().map(|gain| {
            let mults: Vec<f32> = mults.iter().map(|mult| mult * gain).collect();
            Requant::new(&mults, 0).and_then(|requant| requant.clamp(-128, 127)).map_err(fail(last))
        });
        let levels = levels.collect::<Result<_, _>>()?;
        let memory = Arc::new(Mutex::new(Memory::default()));
        let (mut convs, mut nodes) = (Vec::new(), Vec::new());
        for (i, layer) in graph.layers.iter().enumerate() {
            let conv = Arc::new(Conv::new(&layer.spec, isa).map_err(fail(layer))?);
            let activations = Requant::new(&layer.mults(), layer.zero).map_err(fail(layer))?;
            let is_last = i + 1 == graph.layers.len();
            let finish = if is_last { Finish::Accumulators } else { Finish::Activations(activations) };
            convs.push(Arc::clone(&conv));
            nodes.push(Node { inputs: vec![i], operator: Operator::Conv(conv, finish.into()) });
        }
        let (mut plans, mut macs) = (Vec::new(), Vec::new());
        for (geometry, &size) in interface.geometries.iter().enumerate() {
            let wrong = |problem| Error::Geometry { geometry, problem };
            macs.push(count(&convs, size).map_err(|source| Error::Size { geometry, source })?);
            let plan =
                Plan::new(&nodes, size, &memory).map_err(|(_, source)| Error::Size { geometry, source })?;
            let stride = interface.stride.max(1);
            let (rows, columns) = (size.0 / stride, size.1 / stride);
            if (plan.rows, plan.columns) != (rows, columns) {
                return Err(wrong(format!(
                    "the output is {}x{}, the stride asks for {rows}x{columns}",
                    plan.rows, plan.columns
                )));
            }
            Shape::new(interface.channels, plan.rows, plan.columns)
                .map_err(|source| Error::Feature { geometry, source })?;
            plans.push(plan);
        }
        Ok(Net { isa, plans, macs, levels, symbols: Mutex::default() })
    }

    /// Runs the head on one image: rows of RGB pixels of the geometry's size.
    ///
    /// # Errors
    /// [`Error::Index`] for a geometry or a level that the bundle does not have, [`Error::Pixels`] for an image of another
    /// size.
    pub fn run(&self, geometry: GeometryId, level: LevelId, pixels: &[u8]) -> Result<Feature, Error> {
        self.accumulate(geometry, pixels, |accumulators| self.quantize(geometry, level, accumulators))?
    }

    /// Runs the head on one image and keeps what its output at every level is made from.
    ///
    /// # Errors
    /// Those of [`Net::run`].
    pub fn latent(&self, geometry: GeometryId, pixels: &[u8]) -> Result<Latent, Error> {
        let accumulators = self.accumulate(geometry, pixels, <[i32]>::to_vec)?;
        Ok(Latent { geometry, accumulators })
    }

    /// The head's output at a level.
    ///
    /// # Errors
    /// [`Error::Index`] for a level that the bundle does not have, [`Error::Run`] for the latent of another head.
    pub fn symbols(&self, latent: &Latent, level: LevelId) -> Result<Feature, Error> {
        self.quantize(latent.geometry, level, &latent.accumulators)
    }

    /// Runs the network and calls `take` with its accumulators (row, column, channel).
    fn accumulate<T>(
        &self,
        geometry: GeometryId,
        pixels: &[u8],
        take: impl FnOnce(&[i32]) -> T,
    ) -> Result<T, Error> {
        let plan = at("geometry", &self.plans, geometry.index())?;
        let expected = plan.height * plan.width * 3;
        if pixels.len() != expected {
            return Err(Error::Pixels { found: pixels.len(), expected });
        }
        plan.run(pixels, take).map_err(|source| Error::Run(source.into()))
    }

    fn quantize(&self, geometry: GeometryId, level: LevelId, accumulators: &[i32]) -> Result<Feature, Error> {
        let plan = at("geometry", &self.plans, geometry.index())?;
        let requant = at("level", &self.levels, level.index())?;
        // All of them are written before any is read.
        let mut symbols = self.symbols.lock().unwrap_or_else(PoisonError::into_inner);
        symbols.resize(accumulators.len(), 0);
        requant.run(self.isa, accumulators, &mut symbols).map_err(|source| Error::Run(source.into()))?;
        let channels = requant.channels();
        let shape = Shape::new(channels, plan.rows, plan.columns);
        let feature = shape.and_then(|shape| Feature::new(shape, planes(&symbols, channels)));
        feature.map_err(|source| Error::Run(source.into()))
    }

    /// Number of multiply-accumulates for one image of this geometry.
    ///
    /// # Errors
    /// [`Error::Index`] for a geometry that the bundle does not have.
    pub fn macs(&self, geometry: GeometryId) -> Result<u64, Error> {
        at("geometry", &self.macs, geometry.index()).copied()
    }

    /// The kernels in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

/// Returns the value of a geometry or level.
fn at<'a, T>(what: &'static str, values: &'a [T], index: usize) -> Result<&'a T, Error> {
    values.get(index).ok_or(Error::Index { what, index, count: values.len() })
}

/// Number of multiply-accumulates of all layers for an image of this height and width.
fn count(layers: &[Arc<Conv>], size: (usize, usize)) -> Result<u64, narrows_int8::Error> {
    let (mut macs, mut size) = (0, size);
    for conv in layers {
        macs += conv.macs(size.0, size.1)?;
        size = conv.output_size(size.0, size.1)?;
    }
    Ok(macs)
}

/// Reorders row, column, channel to channel, row, column, a few positions at a time so that they stay in the cache.
fn planes(symbols: &[i16], channels: usize) -> Vec<i16> {
    const POSITIONS: usize = 64;
    let plane = symbols.len() / channels;
    let mut planes = vec![0; symbols.len()];
    for (i, block) in symbols.chunks(POSITIONS * channels).enumerate() {
        for (channel, plane) in planes.chunks_exact_mut(plane).enumerate() {
            let column = block[channel..].iter().step_by(channels);
            plane[i * POSITIONS..].iter_mut().zip(column).for_each(|(to, &symbol)| *to = symbol);
        }
    }
    planes
}
