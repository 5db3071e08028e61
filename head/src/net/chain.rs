//! From an ONNX file to a chain of quantised convolutions (BUNDLE.md, section 4). Everything else is refused by
//! the name of its node.

use std::collections::HashMap;

use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::Framework;

use super::Error;
use super::constant::{Constant, INT8, UINT8};
use super::layer::{self, Layer};

/// Smallest operator set that BUNDLE.md allows.
const OPSET: i64 = 13;

/// A head as its file describes it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Chain {
    /// Name of the input, u8 [1, height, width, 3].
    pub input: String,
    /// Name of the output, s8 [1, channels, rows, columns].
    pub output: String,
    /// The layers, first to last; there is at least one.
    pub layers: Vec<Layer>,
}

impl Chain {
    /// Reads `head.onnx`.
    pub fn parse(onnx: &[u8]) -> Result<Chain, Error> {
        let model = tract_onnx::onnx()
            .proto_model_for_read(&mut { onnx })
            .map_err(|source| Error::Parse(format!("{source:#}")))?;
        opset(&model)?;
        let graph = model.graph.as_ref().ok_or_else(|| Error::Parse("there is no graph in it".to_owned()))?;
        let constants = constants(graph)?;
        let input = single("input", graph.input.iter().filter(|i| !constants.contains_key(i.name.as_str())))?;
        let output = single("output", graph.output.iter())?;
        describe(input, "input", UINT8)?;
        describe(output, "output", INT8)?;

        let mut nodes = graph.node.iter();
        let first = nodes.next().ok_or_else(|| Error::Graph("there is no node in it".to_owned()))?;
        let mut value = transpose(first, &input.name)?;
        let mut layers: Vec<Layer> = Vec::new();
        for node in nodes {
            layers.push(convolution(node, value, layers.last(), &constants)?);
            value = only_output(node)?;
        }
        let last = layers.last().ok_or_else(|| Error::Graph("there is no QLinearConv in it".to_owned()))?;
        if value != output.name {
            return Err(Error::Graph(format!(
                "its output `{}` is not what the last node makes, `{value}`",
                output.name
            )));
        }
        if !last.signed || last.zero != 128 {
            return Err(refuse(last, "the output must be s8 with zero point 0"));
        }
        Ok(Chain { input: input.name.clone(), output: output.name.clone(), layers })
    }
}

fn refuse(layer: &Layer, problem: &str) -> Error {
    Error::Node { node: layer.name.clone(), op: "QLinearConv".to_owned(), problem: problem.to_owned() }
}

fn opset(model: &ModelProto) -> Result<(), Error> {
    let own = model.opset_import.iter().find(|set| is_onnx(&set.domain));
    match own.map(|set| set.version) {
        Some(version) if version >= OPSET => Ok(()),
        Some(version) => Err(Error::Graph(format!("operator set {version}, it must be {OPSET} or later"))),
        None => Err(Error::Graph("it names no ONNX operator set".to_owned())),
    }
}

fn is_onnx(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn constants(graph: &GraphProto) -> Result<HashMap<&str, Constant>, Error> {
    if !graph.sparse_initializer.is_empty() {
        return Err(Error::Graph("sparse initializers".to_owned()));
    }
    let mut constants = HashMap::new();
    for proto in &graph.initializer {
        let wrong = |problem| Error::Graph(format!("initializer `{}`: {problem}", proto.name));
        let constant = Constant::read(proto).map_err(wrong)?;
        if constants.insert(proto.name.as_str(), constant).is_some() {
            return Err(wrong("there are two".to_owned()));
        }
    }
    Ok(constants)
}

fn single<'a>(
    what: &str,
    mut values: impl Iterator<Item = &'a ValueInfoProto>,
) -> Result<&'a ValueInfoProto, Error> {
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(Error::Graph(format!("it must have one {what}"))),
    }
}

/// Tests the element type, rank and fixed sizes of the input or output; heights and widths are the bundle's affair.
fn describe(info: &ValueInfoProto, what: &str, element: i32) -> Result<(), Error> {
    use tract_onnx::pb::tensor_shape_proto::dimension::Value::DimValue;
    let wrong = |problem: &str| Err(Error::Graph(format!("its {what} `{}` {problem}", info.name)));
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return wrong("has no tensor type");
    };
    if tensor.elem_type != element {
        return wrong(if element == UINT8 { "is not u8" } else { "is not s8" });
    }
    let Some(shape) = &tensor.shape else { return Ok(()) };
    let fixed = |axis: usize| match shape.dim.get(axis).and_then(|dim| dim.value.as_ref()) {
        Some(DimValue(size)) => Some(*size),
        _ => None,
    };
    if shape.dim.len() != 4 || fixed(0).is_some_and(|size| size != 1) {
        return wrong("is not one image of four dimensions");
    }
    if what == "input" && fixed(3).is_some_and(|size| size != 3) {
        return wrong("is not [1, height, width, 3]");
    }
    Ok(())
}

/// The name that messages use.
fn name(node: &NodeProto) -> String {
    let output = || node.output.first().cloned().unwrap_or_default();
    if node.name.is_empty() { output() } else { node.name.clone() }
}

fn wrong(node: &NodeProto, problem: impl Into<String>) -> Error {
    Error::Node { node: name(node), op: node.op_type.clone(), problem: problem.into() }
}

fn only_output(node: &NodeProto) -> Result<&str, Error> {
    match node.output.as_slice() {
        [output] if !output.is_empty() => Ok(output),
        _ => Err(wrong(node, "it must have one output")),
    }
}

/// The node from height, width, channel to ONNX's order: channel, height, width.
fn transpose<'a>(node: &'a NodeProto, input: &str) -> Result<&'a str, Error> {
    if node.op_type != "Transpose" || !is_onnx(&node.domain) {
        return Err(wrong(node, "the first node must be the Transpose from [1, H, W, 3] to [1, 3, H, W]"));
    }
    if node.input.len() != 1 || node.input[0] != input {
        return Err(wrong(node, format!("it does not read the input `{input}`")));
    }
    match node.attribute.as_slice() {
        [attribute] if attribute.name == "perm" && attribute.ints == [0, 3, 1, 2] => only_output(node),
        _ => Err(wrong(node, "perm must be [0, 3, 1, 2]")),
    }
}

fn convolution(
    node: &NodeProto,
    value: &str,
    previous: Option<&Layer>,
    constants: &HashMap<&str, Constant>,
) -> Result<Layer, Error> {
    if node.op_type != "QLinearConv" || !is_onnx(&node.domain) {
        let hint = match node.op_type.as_str() {
            "DequantizeLinear" | "QuantizeLinear" => " (a QDQ graph must be exported in QOperator form)",
            _ => "",
        };
        return Err(wrong(node, format!("this operator cannot be run exactly, only QLinearConv can{hint}")));
    }
    let inputs = &node.input;
    if !(8..=9).contains(&inputs.len()) {
        return Err(wrong(node, "it must have eight or nine inputs"));
    }
    if inputs[0] != value {
        return Err(wrong(
            node,
            format!("it does not continue the chain: it reads `{}`, not `{value}`", inputs[0]),
        ));
    }
    let constant = |i: usize, what: &str| {
        let found = constants.get(inputs[i].as_str());
        found.ok_or_else(|| wrong(node, format!("{what} `{}` is not a constant", inputs[i])))
    };
    let parts = layer::Parts {
        x_scale: constant(1, "the input scale")?,
        x_zero: constant(2, "the input zero point")?,
        w: constant(3, "the weight")?,
        w_scale: constant(4, "the weight scale")?,
        w_zero: constant(5, "the weight zero point")?,
        y_scale: constant(6, "the output scale")?,
        y_zero: constant(7, "the output zero point")?,
        bias: match inputs.get(8).filter(|name| !name.is_empty()) {
            Some(_) => Some(constant(8, "the bias")?),
            None => None,
        },
    };
    let attributes = attributes(node)?;
    let (channels, signed) = previous.map_or((3, false), |layer| (layer.spec.out_channels, layer.signed));
    layer::build(name(node), channels, signed, &parts, &attributes).map_err(|problem| wrong(node, problem))
}

/// The attributes of a convolution; one that is not known here changes what the node means.
fn attributes(node: &NodeProto) -> Result<layer::Attributes, Error> {
    let mut found = layer::Attributes::default();
    for attribute in &node.attribute {
        let ints = || ints(node, attribute);
        match attribute.name.as_str() {
            "kernel_shape" => found.kernel = Some(ints()?),
            "strides" => found.strides = Some(ints()?),
            "pads" => found.pads = Some(ints()?),
            "dilations" => found.dilations = Some(ints()?),
            "group" => found.group = usize::try_from(attribute.i).ok(),
            "auto_pad" if attribute.s == b"NOTSET" || attribute.s == b"VALID" => {}
            "auto_pad" => return Err(wrong(node, "padding must be explicit, auto_pad is set")),
            other => return Err(wrong(node, format!("attribute `{other}` is unknown"))),
        }
    }
    Ok(found)
}

fn ints(node: &NodeProto, attribute: &AttributeProto) -> Result<Vec<usize>, Error> {
    let each = |&value: &i64| {
        usize::try_from(value).map_err(|_| wrong(node, format!("{} holds {value}", attribute.name)))
    };
    attribute.ints.iter().map(each).collect()
}
