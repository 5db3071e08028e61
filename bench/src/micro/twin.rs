//! The f32 network that the int8 head is the quantised form of: weights are dequantised, and the clamp at the zero point
//! becomes a ReLU.

use anyhow::{Result, ensure};
use narrows_head::net::HeadGraph;
use narrows_int8::ConvKind;

use super::onnx::{Conv, Graph};

/// The f32 network of `head` at one input size, as an ONNX file.
pub(super) fn onnx(head: &HeadGraph, height: usize, width: usize) -> Result<Vec<u8>> {
    let (mut graph, mut value) = Graph::new(height, width);
    for (i, layer) in head.layers.iter().enumerate() {
        let spec = &layer.spec;
        let per_output = spec.weights.len() / spec.out_channels;
        let rows = spec.weights.chunks_exact(per_output).zip(&layer.w_scales);
        // The first layer reads pixels: their scale and zero point are folded into its weights and bias.
        let (x_scale, x_zero) = if i == 0 { (layer.x_scale, f32::from(spec.input_zero)) } else { (1.0, 0.0) };
        let (mut weights, mut bias) = (Vec::new(), Vec::new());
        for ((row, &w_scale), &b) in rows.zip(&spec.bias) {
            let sum: f32 = row.iter().map(|&w| f32::from(w)).sum();
            weights.extend(row.iter().map(|&w| f32::from(w) * w_scale * x_scale));
            bias.push(b as f32 * layer.x_scale * w_scale - x_zero * sum * w_scale * x_scale);
        }
        let pads = spec.pads;
        let pads = [pads.top, pads.left, pads.bottom, pads.right];
        ensure!(
            i > 0 || pads == [0; 4] || spec.input_zero == 0,
            "the first layer pads with a value that is not 0"
        );
        let depthwise = spec.kind == ConvKind::Depthwise;
        let conv =
            Conv { outputs: spec.out_channels, kernel: spec.kernel, stride: spec.stride, pads, depthwise };
        value = graph.conv(&value, conv, &weights, &bias);
        if i + 1 < head.layers.len() && layer.zero == 0 {
            value = graph.relu(&value);
        }
    }
    Ok(graph.finish(&value))
}
