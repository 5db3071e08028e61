//! Reads the nodes of an ONNX graph: inputs, constants and attributes. What cannot be run exactly is refused by name.

use std::collections::HashMap;

use tract_onnx::{
    pb::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto, type_proto},
    prelude::Framework,
};

use super::{
    constant::{Constant, INT8, UINT8},
    error::Error,
    layer::{self, Layer},
};

/// Smallest version of the operator set that BUNDLE.md allows.
const OPSET: i64 = 13;

/// The constants of a graph, by name.
pub(super) type Constants<'a> = HashMap<&'a str, Constant>;

/// Parses an ONNX file and checks the version of its operator set.
pub(super) fn model(onnx: &[u8]) -> Result<ModelProto, Error> {
    let model = tract_onnx::onnx().proto_model_for_read(&mut { onnx });
    let model = model.map_err(|source| Error::Parse(source.into()))?;
    check_opset(&model)?;
    Ok(model)
}

/// Returns the graph of a model.
pub(super) fn graph(model: &ModelProto) -> Result<&GraphProto, Error> {
    model.graph.as_ref().ok_or_else(|| Error::Parse("there is no graph in it".into()))
}

fn check_opset(model: &ModelProto) -> Result<(), Error> {
    let own = model.opset_import.iter().find(|set| is_onnx(&set.domain));
    match own.map(|set| set.version) {
        Some(version) if version >= OPSET => Ok(()),
        Some(version) => Err(Error::Graph(format!("operator set {version}, it must be {OPSET} or later"))),
        None => Err(Error::Graph("it names no ONNX operator set".to_owned())),
    }
}

/// Whether the domain is that of ONNX's own operators.
fn is_onnx(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Reads the initializers of the graph.
pub(super) fn constants(graph: &GraphProto) -> Result<Constants<'_>, Error> {
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

/// Returns the input and the output of the graph; it must have one each.
pub(super) fn input_and_output<'a>(
    graph: &'a GraphProto,
    constants: &Constants<'_>,
) -> Result<(&'a ValueInfoProto, &'a ValueInfoProto), Error> {
    let inputs = graph.input.iter().filter(|input| !constants.contains_key(input.name.as_str()));
    Ok((single("input", inputs)?, single("output", graph.output.iter())?))
}

/// Compares the names of input and output in the file with those in the manifest.
pub(super) fn check_names(file: [&str; 2], manifest: [&str; 2]) -> Result<(), Error> {
    for ((what, file), manifest) in ["input", "output"].into_iter().zip(file).zip(manifest) {
        if file != manifest {
            return Err(Error::Graph(format!("its {what} is `{file}`, the manifest says `{manifest}`")));
        }
    }
    Ok(())
}

/// Returns the first node and those after it.
pub(super) fn split_first(graph: &GraphProto) -> Result<(&NodeProto, &[NodeProto]), Error> {
    graph.node.split_first().ok_or_else(|| Error::Graph("there is no node in it".to_owned()))
}

/// Returns the only value of an iterator.
fn single<'a>(
    what: &str,
    mut values: impl Iterator<Item = &'a ValueInfoProto>,
) -> Result<&'a ValueInfoProto, Error> {
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(Error::Graph(format!("it must have one {what}"))),
    }
}

/// Checks the element type, the rank and the fixed sizes of the input or output. Heights and widths are compared with the
/// manifest elsewhere.
pub(super) fn check_value(info: &ValueInfoProto, what: &str, element: i32, rank: usize) -> Result<(), Error> {
    use tract_onnx::pb::tensor_shape_proto::dimension::Value::DimValue;
    let wrong = |problem: &str| Err(Error::Graph(format!("its {what} `{}` {problem}", info.name)));
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return wrong("has no tensor type");
    };
    if tensor.elem_type != element {
        return wrong(match element {
            UINT8 => "is not u8",
            INT8 => "is not s8",
            _ => "is not f32",
        });
    }
    let Some(shape) = &tensor.shape else { return Ok(()) };
    let fixed = |axis: usize| match shape.dim.get(axis).and_then(|dim| dim.value.as_ref()) {
        Some(DimValue(size)) => Some(*size),
        _ => None,
    };
    if shape.dim.len() != rank || fixed(0).is_some_and(|size| size != 1) {
        return wrong(if rank == 4 {
            "is not one image of four dimensions"
        } else {
            "is not one row of scores"
        });
    }
    if what == "input" && fixed(3).is_some_and(|size| size != 3) {
        return wrong("is not [1, height, width, 3]");
    }
    Ok(())
}

/// The name of a node in errors: its own, or that of its output.
pub(super) fn name(node: &NodeProto) -> String {
    let output = || node.output.first().cloned().unwrap_or_default();
    if node.name.is_empty() { output() } else { node.name.clone() }
}

pub(super) fn error(node: &NodeProto, problem: impl Into<String>) -> Error {
    Error::Node { node: name(node), op: node.op_type.clone(), problem: problem.into() }
}

/// Returns the output of a node; it must have one.
pub(super) fn only_output(node: &NodeProto) -> Result<&str, Error> {
    match node.output.as_slice() {
        [output] if !output.is_empty() => Ok(output),
        _ => Err(error(node, "it must have one output")),
    }
}

/// Reads the Transpose from height, width, channel to ONNX's order channel, height, width; returns its output.
pub(super) fn transpose<'a>(node: &'a NodeProto, input: &str) -> Result<&'a str, Error> {
    if node.op_type != "Transpose" || !is_onnx(&node.domain) {
        return Err(error(node, "the first node must be the Transpose from [1, H, W, 3] to [1, 3, H, W]"));
    }
    if node.input.len() != 1 || node.input[0] != input {
        return Err(error(node, format!("it does not read the input `{input}`")));
    }
    match node.attribute.as_slice() {
        [attribute] if attribute.name == "perm" && attribute.ints == [0, 3, 1, 2] => only_output(node),
        _ => Err(error(node, "perm must be [0, 3, 1, 2]")),
    }
}

/// Reads a QLinearConv whose input has this many channels and is s8 where `signed`.
pub(super) fn convolution(
    node: &NodeProto,
    channels: usize,
    signed: bool,
    constants: &Constants<'_>,
) -> Result<Layer, Error> {
    if !is(node, "QLinearConv") {
        return Err(unknown(node, "QLinearConv"));
    }
    if !(8..=9).contains(&node.input.len()) {
        return Err(error(node, "it must have eight or nine inputs"));
    }
    let constant = |i: usize, what: &str| constant(node, i, what, constants);
    let parts = layer::Parts {
        x_scale: constant(1, "the input scale")?,
        x_zero: constant(2, "the input zero point")?,
        w: constant(3, "the weight")?,
        w_scale: constant(4, "the weight scale")?,
        w_zero: constant(5, "the weight zero point")?,
        y_scale: constant(6, "the output scale")?,
        y_zero: constant(7, "the output zero point")?,
        bias: match node.input.get(8).filter(|name| !name.is_empty()) {
            Some(_) => Some(constant(8, "the bias")?),
            None => None,
        },
    };
    let attributes = attributes(node)?;
    layer::build(name(node), channels, signed, &parts, &attributes).map_err(|problem| error(node, problem))
}

/// Whether the node is ONNX's own operator of this name.
pub(super) fn is(node: &NodeProto, op: &str) -> bool {
    node.op_type == op && is_onnx(&node.domain)
}

/// Whether the node is the quantised operator of this name that ONNX itself does not have.
pub(super) fn is_contrib(node: &NodeProto, op: &str) -> bool {
    node.op_type == op && node.domain == "com.microsoft"
}

/// The error of an operator that is not one of `known`.
pub(super) fn unknown(node: &NodeProto, known: &str) -> Error {
    let hint = match node.op_type.as_str() {
        "DequantizeLinear" | "QuantizeLinear" => " (a QDQ graph must be exported in QOperator form)",
        _ => "",
    };
    error(node, format!("this operator cannot be run exactly, only {known} can{hint}"))
}

/// Returns the constant that input `i` names.
pub(super) fn constant<'a>(
    node: &NodeProto,
    i: usize,
    what: &str,
    constants: &'a Constants<'_>,
) -> Result<&'a Constant, Error> {
    let name = node.input.get(i).map(String::as_str).unwrap_or_default();
    constants.get(name).ok_or_else(|| error(node, format!("{what} `{name}` is not a constant")))
}

/// Reads a scale from input `i` and a zero point from the next: scale, zero point as stored, whether it is s8.
pub(super) fn quantization(
    node: &NodeProto,
    i: usize,
    what: &str,
    constants: &Constants<'_>,
) -> Result<(f32, u8, bool), Error> {
    let scale = layer::scale(constant(node, i, &format!("the {what} scale"), constants)?);
    let scale = scale.ok_or_else(|| error(node, format!("the {what} scale must be one f32")))?;
    let zero = layer::zero_point(constant(node, i + 1, &format!("the {what} zero point"), constants)?);
    let (zero, signed) =
        zero.ok_or_else(|| error(node, format!("the {what} zero point must be one u8 or i8")))?;
    Ok((scale, zero, signed))
}

/// Checks that a node has no attributes but these integers, each of which may be absent.
pub(super) fn check_attributes(node: &NodeProto, allowed: &[(&str, i64)]) -> Result<(), Error> {
    for attribute in &node.attribute {
        match allowed.iter().find(|(name, _)| attribute.name == *name) {
            Some((_, value)) if attribute.i == *value => {}
            Some((name, value)) => return Err(error(node, format!("{name} must be {value}"))),
            None => return Err(error(node, format!("attribute `{}` is unknown", attribute.name))),
        }
    }
    Ok(())
}

/// Reads the attributes of a convolution. An unknown one is an error, because it may change the result.
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
            "auto_pad" => return Err(error(node, "padding must be explicit, auto_pad is set")),
            other => return Err(error(node, format!("attribute `{other}` is unknown"))),
        }
    }
    Ok(found)
}

fn ints(node: &NodeProto, attribute: &AttributeProto) -> Result<Vec<usize>, Error> {
    let each = |&value: &i64| {
        usize::try_from(value).map_err(|_| error(node, format!("{} holds {value}", attribute.name)))
    };
    attribute.ints.iter().map(each).collect()
}
