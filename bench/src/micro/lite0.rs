//! EfficientNet-Lite0 as an ONNX file with random weights: the time that it takes does not depend on them.

use super::onnx::{Conv, Graph, Value};

/// Its name in a bundle's manifest.
pub(super) const NAME: &str = "EfficientNet-Lite0";

/// Repeats, kernel, stride, expansion and output channels of the seven groups of blocks.
const GROUPS: [[usize; 5]; 7] = [
    [1, 3, 1, 1, 16],
    [2, 3, 2, 6, 24],
    [2, 5, 2, 6, 40],
    [3, 3, 2, 6, 80],
    [3, 5, 1, 6, 112],
    [4, 5, 2, 6, 192],
    [1, 3, 1, 6, 320],
];

/// Height and width of the input in pixels.
pub(super) const SIDE: u32 = 224;

/// The ONNX file, and the network's multiply-accumulates.
#[must_use]
pub(super) fn onnx() -> (Vec<u8>, u64) {
    let (mut graph, value) = Graph::new(SIDE as usize, SIDE as usize);
    let value = graph.scalar("Sub", &value, 127.0);
    let value = graph.scalar("Mul", &value, 1.0 / 128.0);
    let mut value = conv(&mut graph, &value, 32, 3, 2, false, true);
    for [repeats, kernel, stride, expansion, outputs] in GROUPS {
        for repeat in 0..repeats {
            let stride = if repeat == 0 { stride } else { 1 };
            let input = value.clone();
            if expansion > 1 {
                value = conv(&mut graph, &value, input.channels * expansion, 1, 1, false, true);
            }
            let channels = value.channels;
            value = conv(&mut graph, &value, channels, kernel, stride, true, true);
            value = conv(&mut graph, &value, outputs, 1, 1, false, false);
            if stride == 1 && input.channels == outputs {
                value = graph.add(&input, &value);
            }
        }
    }
    let value = conv(&mut graph, &value, 1280, 1, 1, false, true);
    let value = graph.pool(&value);
    let value = conv(&mut graph, &value, 1000, 1, 1, false, false);
    let macs = graph.macs();
    (graph.finish(&value), macs)
}

/// Adds a convolution padded as TensorFlow's SAME and, if `relu6`, a ReLU6.
fn conv(
    graph: &mut Graph,
    input: &Value,
    outputs: usize,
    kernel: usize,
    stride: usize,
    depthwise: bool,
    relu6: bool,
) -> Value {
    let pad = |size: usize| {
        let total = ((size.div_ceil(stride) - 1) * stride + kernel).saturating_sub(size);
        (total / 2, total - total / 2)
    };
    let ((top, bottom), (left, right)) = (pad(input.height), pad(input.width));
    let fan_in = kernel * kernel * if depthwise { 1 } else { input.channels };
    let mut state = 0x9e37_79b9_u32 ^ (graph.macs() as u32);
    let scale = (6.0 / fan_in as f32).sqrt();
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale
    });
    let weights: Vec<f32> = noise.take(outputs * fan_in).collect();
    let conv = Conv {
        outputs,
        kernel: [kernel; 2],
        stride: [stride; 2],
        pads: [top, left, bottom, right],
        depthwise,
    };
    let value = graph.conv(input, conv, &weights, &vec![0.1; outputs]);
    if relu6 { graph.clip(&value, 0.0, 6.0) } else { value }
}

#[cfg(test)]
mod tests {
    #[test]
    fn has_the_published_cost() {
        let (bytes, macs) = super::onnx();
        assert_eq!(macs / 1_000_000, 385);
        assert!(bytes.len() > 18_000_000);
    }
}
