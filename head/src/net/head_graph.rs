//! Reads `head.onnx`: a chain of quantised convolutions (BUNDLE.md, section 4). Anything else is refused by the name of
//! its node.

use super::{
    constant::{INT8, UINT8},
    error::Error,
    layer::Layer,
    node,
};

/// The graph of a head: layers of which each reads the one before.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HeadGraph {
    /// Name of the input, u8 [1, height, width, 3].
    pub input: String,
    /// Name of the output, s8 [1, channels, rows, columns].
    pub output: String,
    /// The layers from the first to the last; there is at least one.
    pub layers: Vec<Layer>,
}

impl HeadGraph {
    /// Parses the bytes of `head.onnx`.
    ///
    /// # Errors
    /// [`Error::Parse`], [`Error::Graph`] or [`Error::Node`] for a file that section 4 of BUNDLE.md does not allow.
    pub fn parse(onnx: &[u8]) -> Result<HeadGraph, Error> {
        let model = node::model(onnx)?;
        let graph = node::graph(&model)?;
        let constants = node::constants(graph)?;
        let (input, output) = node::input_and_output(graph, &constants)?;
        node::check_value(input, "input", UINT8, 4)?;
        node::check_value(output, "output", INT8, 4)?;

        let (first, nodes) = node::split_first(graph)?;
        let mut value = node::transpose(first, &input.name)?;
        let mut layers: Vec<Layer> = Vec::new();
        for node in nodes {
            let before = layers.last();
            let (channels, signed) =
                before.map_or((3, false), |layer| (layer.spec.out_channels, layer.signed));
            layers.push(node::convolution(node, channels, signed, &constants)?);
            let read = &node.input[0];
            if read != value {
                let problem = format!("it does not continue the chain: it reads `{read}`, not `{value}`");
                return Err(node::error(node, problem));
            }
            value = node::only_output(node)?;
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
        Ok(HeadGraph { input: input.name.clone(), output: output.name.clone(), layers })
    }
}

fn refuse(layer: &Layer, problem: &str) -> Error {
    Error::Node { node: layer.name.clone(), op: "QLinearConv".to_owned(), problem: problem.to_owned() }
}
