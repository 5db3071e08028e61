//! Reads `local.onnx`: the steps of a local network (BUNDLE.md, section 9). Anything else is refused by the name of its
//! node.

use std::collections::HashMap;

use narrows_int8::{ConvKind, ConvSpec, Pads};
use tract_onnx::pb::NodeProto;

use super::{
    constant::{Data, FLOAT, UINT8},
    error::Error,
    layer::{self, Layer},
    node::{self, Constants},
};

/// The graph of a local network.
pub(super) struct LocalGraph {
    /// Name of the input, u8 [1, height, width, 3].
    pub(super) input: String,
    /// Name of the output, f32 [1, classes].
    pub(super) output: String,
    /// Step i computes value i + 1; value 0 is the image.
    pub(super) steps: Vec<Step>,
    /// The last layer.
    pub(super) scores: Scores,
}

/// A node and the values that it reads.
pub(super) struct Step {
    pub(super) name: String,
    pub(super) inputs: Vec<usize>,
    pub(super) work: Work,
}

/// The operation of a node.
pub(super) enum Work {
    Conv(Layer),
    Add {
        a: Quantization,
        b: Quantization,
        y: Quantization,
    },
    /// The mean over the image, channel by channel.
    Pool {
        channels: usize,
        x: Quantization,
        y: Quantization,
    },
}

/// Quantisation of a value: scale and zero point as stored.
#[derive(Clone, Copy)]
pub(super) struct Quantization {
    pub(super) scale: f32,
    pub(super) zero: u8,
}

/// The last layer: a pointwise convolution of one pixel, whose accumulators are scaled to scores.
pub(super) struct Scores {
    pub(super) name: String,
    pub(super) input: usize,
    pub(super) spec: ConvSpec,
    /// Factor of the accumulator, one per class.
    pub(super) scales: Vec<f32>,
}

/// A value of the graph that is being read.
#[derive(Clone, Copy)]
struct Value {
    index: usize,
    channels: usize,
    signed: bool,
    form: Form,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Image,
    Pooled,
    Flat,
}

/// The operators that may follow the first node.
const KNOWN: &str = "QLinearConv, QLinearAdd, QLinearGlobalAveragePool, Flatten and QGemm";

impl LocalGraph {
    /// Parses the bytes of `local.onnx`.
    pub(super) fn parse(onnx: &[u8]) -> Result<LocalGraph, Error> {
        let model = node::model(onnx)?;
        let graph = node::graph(&model)?;
        let constants = node::constants(graph)?;
        let (input, output) = node::input_and_output(graph, &constants)?;
        node::check_value(input, "input", UINT8, 4)?;
        node::check_value(output, "output", FLOAT, 2)?;

        let (first, nodes) = node::split_first(graph)?;
        let image = Value { index: 0, channels: 3, signed: false, form: Form::Image };
        let mut reader = Reader { constants, values: HashMap::new(), steps: Vec::new() };
        reader.values.insert(node::transpose(first, &input.name)?, image);
        let (last, nodes) =
            nodes.split_last().ok_or_else(|| Error::Graph("there is no QGemm in it".to_owned()))?;
        for node in nodes {
            reader.step(node)?;
        }
        let scores = reader.scores(last)?;
        let made = node::only_output(last)?;
        if made != output.name {
            let problem = format!("its output `{}` is not what the last node makes, `{made}`", output.name);
            return Err(Error::Graph(problem));
        }
        Ok(LocalGraph { input: input.name.clone(), output: output.name.clone(), steps: reader.steps, scores })
    }
}

struct Reader<'a> {
    constants: Constants<'a>,
    values: HashMap<&'a str, Value>,
    steps: Vec<Step>,
}

impl<'a> Reader<'a> {
    /// Reads any node but the first and the last.
    fn step(&mut self, node: &'a NodeProto) -> Result<(), Error> {
        let made = node::only_output(node)?;
        let value = if node::is(node, "QLinearConv") {
            self.convolution(node)?
        } else if node::is_contrib(node, "QLinearAdd") {
            self.sum(node)?
        } else if node::is_contrib(node, "QLinearGlobalAveragePool") {
            self.pool(node)?
        } else if node::is(node, "Flatten") {
            node::check_attributes(node, &[("axis", 1)])?;
            Value { form: Form::Flat, ..self.value(node, 0, Form::Pooled)? }
        } else {
            return Err(node::unknown(node, KNOWN));
        };
        match self.values.insert(made, value) {
            None => Ok(()),
            Some(_) => Err(node::error(node, format!("`{made}` is made twice"))),
        }
    }

    /// Returns the value that input `i` names, which must have the form that the node reads.
    fn value(&self, node: &NodeProto, i: usize, form: Form) -> Result<Value, Error> {
        let name = node.input.get(i).map(String::as_str).unwrap_or_default();
        let value = self.values.get(name);
        let value = value
            .ok_or_else(|| node::error(node, format!("it reads `{name}`, which no node before it makes")))?;
        match (value.form == form, form) {
            (true, _) => Ok(*value),
            (false, Form::Image) => {
                Err(node::error(node, format!("it reads `{name}`, which is pooled already")))
            }
            (false, Form::Pooled) => {
                Err(node::error(node, format!("it reads `{name}`, which is not pooled")))
            }
            (false, Form::Flat) => {
                Err(node::error(node, format!("it reads `{name}`, which is not flattened")))
            }
        }
    }

    /// Returns the quantisation of an operand, from inputs `i` and `i + 1`. It must be of the operand's type.
    fn operand(&self, node: &NodeProto, i: usize, what: &str, value: Value) -> Result<Quantization, Error> {
        let (scale, zero, signed) = node::quantization(node, i, what, &self.constants)?;
        match signed == value.signed {
            true => Ok(Quantization { scale, zero }),
            false => Err(node::error(node, format!("the {what} zero point is not of the {what}'s type"))),
        }
    }

    fn push(&mut self, node: &NodeProto, inputs: Vec<usize>, work: Work) -> usize {
        self.steps.push(Step { name: node::name(node), inputs, work });
        self.steps.len()
    }

    fn convolution(&mut self, node: &NodeProto) -> Result<Value, Error> {
        let x = self.value(node, 0, Form::Image)?;
        let layer = node::convolution(node, x.channels, x.signed, &self.constants)?;
        let (channels, signed) = (layer.spec.out_channels, layer.signed);
        let index = self.push(node, vec![x.index], Work::Conv(layer));
        Ok(Value { index, channels, signed, form: Form::Image })
    }

    fn sum(&mut self, node: &NodeProto) -> Result<Value, Error> {
        node::check_attributes(node, &[])?;
        let (a, b) = (self.value(node, 0, Form::Image)?, self.value(node, 3, Form::Image)?);
        if a.channels != b.channels {
            return Err(node::error(node, format!("it adds {} channels to {}", a.channels, b.channels)));
        }
        let (scale, zero, signed) = node::quantization(node, 6, "output", &self.constants)?;
        let work = Work::Add {
            a: self.operand(node, 1, "first input", a)?,
            b: self.operand(node, 4, "second input", b)?,
            y: Quantization { scale, zero },
        };
        let index = self.push(node, vec![a.index, b.index], work);
        Ok(Value { index, channels: a.channels, signed, form: Form::Image })
    }

    fn pool(&mut self, node: &NodeProto) -> Result<Value, Error> {
        node::check_attributes(node, &[("channels_last", 0)])?;
        let x = self.value(node, 0, Form::Image)?;
        let (scale, zero, signed) = node::quantization(node, 3, "output", &self.constants)?;
        let work = Work::Pool {
            channels: x.channels,
            x: self.operand(node, 1, "input", x)?,
            y: Quantization { scale, zero },
        };
        let index = self.push(node, vec![x.index], work);
        Ok(Value { index, channels: x.channels, signed, form: Form::Pooled })
    }

    /// Reads the last node.
    fn scores(&self, node: &NodeProto) -> Result<Scores, Error> {
        if !node::is_contrib(node, "QGemm") {
            return Err(node::error(node, "the last node must be a QGemm"));
        }
        for attribute in node.attribute.iter().filter(|attribute| attribute.name == "alpha") {
            if attribute.f != 1.0 {
                return Err(node::error(node, "alpha must be 1"));
            }
        }
        // Absent, transB is 0.
        let transposed =
            node.attribute.iter().any(|attribute| attribute.name == "transB" && attribute.i == 1);
        let known = ["alpha", "transA", "transB"];
        let other = node.attribute.iter().find(|attribute| {
            !known.contains(&attribute.name.as_str()) || attribute.name == "transA" && attribute.i != 0
        });
        match other {
            None if transposed => {}
            None => return Err(node::error(node, "transB must be 1")),
            Some(attribute) => {
                return Err(node::error(node, format!("attribute `{}` is not used here", attribute.name)));
            }
        }
        if node.input.iter().skip(7).any(|name| !name.is_empty()) {
            return Err(node::error(node, "the output must not be quantised"));
        }
        let x = self.value(node, 0, Form::Flat)?;
        let quantization = self.operand(node, 1, "input", x)?;
        let constant = |i: usize, what: &str| node::constant(node, i, what, &self.constants);
        let weight = constant(3, "the weight")?;
        let (Data::I8(weights), &[classes, inputs]) = (&weight.data, weight.dims.as_slice()) else {
            return Err(node::error(node, "the weight must be i8 of two dimensions"));
        };
        if inputs != x.channels {
            return Err(node::error(
                node,
                format!("the weight is for {inputs} inputs, there are {}", x.channels),
            ));
        }
        let no = |problem: String| node::error(node, problem);
        layer::check_weight_zero(constant(5, "the weight zero point")?).map_err(no)?;
        let bias = match node.input.get(6).filter(|name| !name.is_empty()) {
            Some(_) => Some(constant(6, "the bias")?),
            None => None,
        };
        let w_scales = layer::scales(constant(4, "the weight scale")?, classes).map_err(no)?;
        let scales: Vec<f32> = w_scales.iter().map(|w_scale| quantization.scale * w_scale).collect();
        if let Some(scale) = scales.iter().find(|scale| !(scale.is_normal() && **scale > 0.0)) {
            return Err(node::error(
                node,
                format!("a score's scale is {scale}, not a positive normal number"),
            ));
        }
        let spec = ConvSpec {
            kind: ConvKind::Dense,
            in_channels: inputs,
            out_channels: classes,
            kernel: [1, 1],
            stride: [1, 1],
            pads: Pads::default(),
            input_zero: quantization.zero,
            weights: weights.clone(),
            bias: layer::bias(bias, classes).map_err(no)?,
        };
        Ok(Scores { name: node::name(node), input: x.index, spec, scales })
    }
}
