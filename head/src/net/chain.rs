//! From an ONNX file to a chain of quantised convolutions (BUNDLE.md, section 4). Everything else is refused by
//! the name of its node.

use super::{
    Error,
    constant::{INT8, UINT8},
    layer::Layer,
    node,
};

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
        let model = node::model(onnx)?;
        let graph = node::graph(&model)?;
        let constants = node::constants(graph)?;
        let (input, output) = node::ends(graph, &constants)?;
        node::describe(input, "input", UINT8, 4)?;
        node::describe(output, "output", INT8, 4)?;

        let (first, nodes) = node::first(graph)?;
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
                return Err(node::wrong(node, problem));
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
        Ok(Chain { input: input.name.clone(), output: output.name.clone(), layers })
    }
}

fn refuse(layer: &Layer, problem: &str) -> Error {
    Error::Node { node: layer.name.clone(), op: "QLinearConv".to_owned(), problem: problem.to_owned() }
}
