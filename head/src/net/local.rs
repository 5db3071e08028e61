//! The local network, which runs on the device alone (BUNDLE.md, section 9), planned for its one size.

use std::sync::{Arc, Mutex};

use narrows_int8::{Add, Conv, ConvKind, ConvSpec, Isa, Pads, Requant, Term};
use narrows_models::{Bundle, LocalSpec};

use super::{
    error::Error,
    local_graph::{LocalGraph, Quantization, Work},
    node,
    plan::{Finish, Memory, Node, Operator, Plan},
};

/// A local network, ready to run.
pub struct LocalNet {
    isa: Isa,
    plan: Plan,
    scales: Vec<f32>,
    macs: u64,
}

impl LocalNet {
    /// Loads the local network that `spec` describes for the fastest kernels of this processor.
    ///
    /// # Errors
    /// As [`LocalNet::with_isa`].
    pub fn open(bundle: &Bundle, spec: &LocalSpec) -> Result<LocalNet, Error> {
        LocalNet::with_isa(bundle, spec, Isa::detect())
    }

    /// Loads the local network that `spec` describes for the kernels of `isa`.
    ///
    /// # Errors
    /// [`Error::Bundle`] if its file cannot be read, [`Error::Graph`] if it has another number of classes than its task;
    /// otherwise as [`LocalNet::from_onnx`].
    pub fn with_isa(bundle: &Bundle, spec: &LocalSpec, isa: Isa) -> Result<LocalNet, Error> {
        let size = (spec.geometry.height, spec.geometry.width);
        let net = LocalNet::from_onnx(&bundle.read(&spec.file)?, [&spec.input, &spec.output], size, isa)?;
        let classes = bundle.tasks()[spec.task].labels.len();
        match net.scales.len() == classes {
            true => Ok(net),
            false => Err(Error::Graph(format!("{} scores for {classes} labels", net.scales.len()))),
        }
    }

    /// Loads a local network from the bytes of its ONNX file; `names` are those of its input and output.
    ///
    /// # Errors
    /// The first [`Error`] of a file that is not what section 9 of BUNDLE.md says.
    pub fn from_onnx(
        onnx: &[u8],
        names: [&str; 2],
        size: (usize, usize),
        isa: Isa,
    ) -> Result<LocalNet, Error> {
        let graph = LocalGraph::parse(onnx)?;
        node::check_names([&graph.input, &graph.output], names)?;
        let mut builder = Builder { isa, nodes: Vec::new(), sizes: vec![size], macs: 0 };
        for step in graph.steps {
            builder.step(step.name, step.inputs, step.work)?;
        }
        let scores = graph.scores;
        let name = scores.name.clone();
        let macs = builder.conv(scores.name, scores.input, &scores.spec, Ok(Finish::Accumulators))?;
        builder.macs += macs;
        let memory = Arc::new(Mutex::new(Memory::default()));
        // Every size was checked when its layer was added.
        let plan = Plan::new(&builder.nodes, size, &memory)
            .map_err(|(_, source)| Error::Layer { node: name, source })?;
        Ok(LocalNet { isa, plan, scales: scores.scales, macs: builder.macs })
    }

    /// Computes one score per class for one image: rows of RGB pixels of the local size.
    ///
    /// # Errors
    /// [`Error::Pixels`] for an image of another size.
    pub fn run(&self, pixels: &[u8]) -> Result<Vec<f32>, Error> {
        let expected = self.plan.height * self.plan.width * 3;
        if pixels.len() != expected {
            return Err(Error::Pixels { found: pixels.len(), expected });
        }
        let logits = self.plan.run(pixels, |acc| {
            acc.iter().zip(&self.scales).map(|(&acc, scale)| acc as f32 * scale).collect()
        });
        logits.map_err(|source| Error::Run(source.into()))
    }

    /// Number of multiply-accumulates for one image.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.macs
    }

    /// The kernels in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

/// Converts steps to operators and keeps the size of every value.
struct Builder {
    isa: Isa,
    nodes: Vec<Node>,
    sizes: Vec<(usize, usize)>,
    macs: u64,
}

impl Builder {
    fn step(&mut self, name: String, inputs: Vec<usize>, work: Work) -> Result<(), Error> {
        match work {
            Work::Conv(layer) => {
                let activations = Requant::new(&layer.mults(), layer.zero).map(Finish::Activations);
                let macs = self.conv(name, inputs[0], &layer.spec, activations)?;
                self.macs += macs;
            }
            Work::Pool { channels, x, y } => {
                // The sum over the image is a depthwise convolution with a kernel of ones as large as it.
                let (height, width) = self.sizes[inputs[0]];
                let spec = ConvSpec {
                    kind: ConvKind::Depthwise,
                    in_channels: channels,
                    out_channels: channels,
                    kernel: [height, width],
                    stride: [1, 1],
                    pads: Pads::default(),
                    input_zero: x.zero,
                    weights: vec![1; channels * height * width],
                    bias: vec![0; channels],
                };
                let mult = x.scale / (y.scale * (height * width) as f32);
                let finish = Requant::new(&vec![mult; channels], y.zero).map(Finish::Activations);
                self.conv(name, inputs[0], &spec, finish)?;
            }
            Work::Add { a, b, y } => {
                let sizes = [self.sizes[inputs[0]], self.sizes[inputs[1]]];
                if sizes[0] != sizes[1] {
                    let problem = format!("it adds values of {:?} and {:?} pixels", sizes[0], sizes[1]);
                    return Err(Error::Node { node: name, op: "QLinearAdd".to_owned(), problem });
                }
                let term = |x: Quantization| Term { zero: x.zero, mult: x.scale / y.scale };
                let add = Add::new(term(a), term(b), y.zero, self.isa);
                let add = add.map_err(|source| Error::Layer { node: name.clone(), source })?;
                self.push(inputs, Operator::Add(add.into()), sizes[0]);
            }
        }
        Ok(())
    }

    /// Adds a convolution and returns its number of multiply-accumulates.
    fn conv(
        &mut self,
        name: String,
        input: usize,
        spec: &ConvSpec,
        finish: Result<Finish, narrows_int8::Error>,
    ) -> Result<u64, Error> {
        let fail = |source| Error::Layer { node: name.clone(), source };
        let conv = Conv::new(spec, self.isa).map_err(fail)?;
        let finish = finish.map_err(fail)?;
        let (height, width) = self.sizes[input];
        let macs = conv.macs(height, width).map_err(fail)?;
        let size = conv.output_size(height, width).map_err(fail)?;
        self.push(vec![input], Operator::Conv(conv.into(), finish.into()), size);
        Ok(macs)
    }

    fn push(&mut self, inputs: Vec<usize>, operator: Operator, size: (usize, usize)) {
        self.nodes.push(Node { inputs, operator });
        self.sizes.push(size);
    }
}
