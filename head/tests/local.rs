//! The local network: exact scores on every implementation, and refusals that name the node.

#![allow(clippy::unwrap_used, reason = "a test helper fails by panicking")]

mod onnx;

use std::path::Path;

use narrows_head::net::{Error, LocalNet};
use narrows_int8::Isa;
use narrows_models::{Bundle, Parts};
use onnx::{Layer, Model, Node, Tensor};

/// Height and width of the input.
const SIZE: (usize, usize) = (9, 14);
const CLASSES: usize = 3;
const CONTRIB: &str = "com.microsoft";

/// A strided layer with asymmetric padding, a depthwise and a pointwise layer. The sum of the first and the last output is
/// averaged over all positions.
fn layers() -> Vec<Layer> {
    let noise = |seed, count| onnx::noise(seed).map(|b| b as i8).take(count).collect::<Vec<i8>>();
    let make = |seed, per_output: usize, kernel: usize, pads, group| Layer {
        outputs: 8,
        per_output,
        kernel,
        stride: 1,
        pads,
        group,
        x_scale: 0.05,
        x_zero: Tensor::u8(20),
        w_scales: (0..8).map(|o| 0.004 + 0.0005 * o as f32).collect(),
        weights: noise(seed, 8 * per_output * kernel * kernel),
        bias: noise(seed + 1, 8).into_iter().map(|b| i32::from(b) * 90).collect(),
        y_scale: 0.07,
        y_zero: Tensor::u8(100),
    };
    vec![
        Layer {
            stride: 2,
            x_scale: 0.02,
            x_zero: Tensor::u8(127),
            y_scale: 0.05,
            y_zero: Tensor::u8(20),
            ..make(21, 3, 3, [0, 0, 1, 1], 1)
        },
        make(23, 1, 5, [2; 4], 8),
        Layer { x_scale: 0.07, x_zero: Tensor::u8(100), ..make(25, 8, 1, [0; 4], 1) },
    ]
}

/// Scales and zero points of the sum (two inputs, output) and of the mean's output.
const SUM: [(f32, u8); 3] = [(0.05, 20), (0.07, 100), (0.09, 90)];
const MEAN: (f32, u8) = (0.021, 30);

fn gemm_weights() -> Vec<i8> {
    onnx::noise(31).map(|b| b as i8).take(CLASSES * 8).collect()
}

const GEMM_SCALES: [f32; CLASSES] = [0.01, 0.02, 0.005];
const GEMM_BIAS: [i32; CLASSES] = [100, -2000, 30];

fn grid(name: &str, (scale, zero): (f32, u8)) -> Vec<(String, Option<Tensor>)> {
    vec![
        (format!("{name}.scale"), Some(Tensor::f32(&[], &[scale]))),
        (format!("{name}.zero"), Some(Tensor::u8(zero))),
    ]
}

fn value(name: &str) -> Vec<(String, Option<Tensor>)> {
    vec![(name.to_owned(), None)]
}

/// The network as an ONNX model of BUNDLE.md, section 9: nodes 0 to 3 are the layers; sum, mean, flatten and scores follow.
fn model() -> Model {
    let mut model = onnx::model(&layers());
    model.nodes[3].outputs = vec!["v3".into()];
    let sum = [value("v1"), grid("a", SUM[0]), value("v3"), grid("b", SUM[1]), grid("sum", SUM[2])].concat();
    model.nodes.push(Node::plain(CONTRIB, "QLinearAdd", sum, "v4"));
    let mean = [value("v4"), grid("x", SUM[2]), grid("mean", MEAN)].concat();
    let mut mean = Node::plain(CONTRIB, "QLinearGlobalAveragePool", mean, "v5");
    mean.int_attributes = vec![("channels_last".into(), 0)];
    model.nodes.push(mean);
    let mut flatten = Node::plain("", "Flatten", value("v5"), "v6");
    flatten.int_attributes = vec![("axis".into(), 1)];
    model.nodes.push(flatten);
    let scores = [value("v6"), grid("flat", MEAN)].concat();
    let constants = [
        ("w", Tensor::i8(&[CLASSES as i64, 8], &gemm_weights())),
        ("w_scale", Tensor::f32(&[CLASSES as i64], &GEMM_SCALES)),
        ("w_zero", Tensor::i8(&[], &[0])),
        ("bias", Tensor::i32(&GEMM_BIAS)),
    ];
    let constants = constants.map(|(name, tensor)| (format!("gemm.{name}"), Some(tensor)));
    let mut gemm = Node::plain(CONTRIB, "QGemm", [scores, constants.to_vec()].concat(), "logits");
    gemm.int_attributes = vec![("transB".into(), 1)];
    model.nodes.push(gemm);
    model.output = ("logits".into(), onnx::FLOAT, vec![1, CLASSES as i64]);
    model.input.2 = vec![1, SIZE.0 as i64, SIZE.1 as i64, 3];
    model
}

fn open(model: &Model, isa: Isa) -> Result<LocalNet, Error> {
    LocalNet::from_onnx(&model.bytes(), ["image", "logits"], SIZE, isa)
}

/// Values of channel planes, one plane after the other, and their height and width.
struct Planes {
    values: Vec<i64>,
    size: (usize, usize),
}

fn narrow(value: f32, zero: u8) -> i64 {
    (value.round_ties_even() + f32::from(zero)).clamp(0.0, 255.0) as i64
}

fn layer(layer: &Layer, x: &Planes) -> Planes {
    let [top, left, bottom, right] = layer.pads.map(|pad| pad as usize);
    let rows = (x.size.0 + top + bottom - layer.kernel) / layer.stride + 1;
    let columns = (x.size.1 + left + right - layer.kernel) / layer.stride + 1;
    let mut values = Vec::new();
    for o in 0..layer.outputs {
        let mult = layer.x_scale * layer.w_scales[o] / layer.y_scale;
        for y in 0..rows * columns {
            let mut acc = i64::from(layer.bias[o]);
            for c in 0..layer.per_output {
                let plane = if layer.group == 1 { c } else { o };
                for tap in 0..layer.kernel * layer.kernel {
                    let row = (y / columns * layer.stride + tap / layer.kernel).wrapping_sub(top);
                    let column = (y % columns * layer.stride + tap % layer.kernel).wrapping_sub(left);
                    if row < x.size.0 && column < x.size.1 {
                        let value = x.values[(plane * x.size.0 + row) * x.size.1 + column];
                        let at = (o * layer.per_output + c) * layer.kernel * layer.kernel + tap;
                        acc += (value - i64::from(layer.x_zero.raw[0])) * i64::from(layer.weights[at]);
                    }
                }
            }
            values.push(narrow(acc as f32 * mult, layer.y_zero.raw[0]));
        }
    }
    Planes { values, size: (rows, columns) }
}

/// The scores by the formulas of BUNDLE.md, section 9, in 64-bit integers with one rounding for each step.
fn reference(pixels: &[u8]) -> Vec<f32> {
    let planes = (0..3).flat_map(|c| pixels[c..].iter().step_by(3).map(|&p| i64::from(p))).collect();
    let [first, depthwise, pointwise] = &layers()[..] else { panic!("three layers") };
    let kept = layer(first, &Planes { values: planes, size: SIZE });
    let made = layer(pointwise, &layer(depthwise, &kept));
    let scaled = |value: i64, (scale, zero): (f32, u8)| (value - i64::from(zero)) as f32 * (scale / SUM[2].0);
    let pairs = kept.values.iter().zip(&made.values);
    let sum: Vec<i64> =
        pairs.map(|(&a, &b)| narrow(scaled(a, SUM[0]) + scaled(b, SUM[1]), SUM[2].1)).collect();
    let pixels = kept.size.0 * kept.size.1;
    let mean = sum.chunks_exact(pixels).map(|plane| {
        let acc: i64 = plane.iter().map(|value| value - i64::from(SUM[2].1)).sum();
        narrow(acc as f32 * (SUM[2].0 / (MEAN.0 * pixels as f32)), MEAN.1)
    });
    let mean: Vec<i64> = mean.collect();
    let rows = gemm_weights();
    let scores = rows.chunks_exact(8).zip(GEMM_BIAS).zip(GEMM_SCALES).map(|((row, bias), scale)| {
        let products = row.iter().zip(&mean).map(|(&w, x)| i64::from(w) * (x - i64::from(MEAN.1)));
        (i64::from(bias) + products.sum::<i64>()) as f32 * (MEAN.0 * scale)
    });
    scores.collect()
}

#[test]
fn scores_equal_the_formula_bit_for_bit() {
    let model = model();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
        let net = open(&model, isa).unwrap();
        assert_eq!(net.isa(), isa);
        // Sums and means count as no multiply-accumulates.
        let output = 4 * 7;
        assert_eq!(net.macs(), (output * 8 * (27 + 25 + 8) + 8 * CLASSES) as u64);
        let mut seen = Vec::new();
        for seed in 0..20 {
            let pixels: Vec<u8> = onnx::noise(seed + 40).take(SIZE.0 * SIZE.1 * 3).collect();
            let found = net.run(&pixels).unwrap();
            let bits = |scores: &[f32]| scores.iter().map(|score| score.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&reference(&pixels)), "{isa}, seed {seed}");
            seen.push(bits(&found));
        }
        seen.dedup();
        assert!(seen.len() > 10, "the scores hardly differ");
    }
}

#[test]
fn committed_bundles_reproduce_their_local_vectors() {
    let bundles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bundles");
    let Ok(entries) = std::fs::read_dir(bundles) else { return };
    for dir in entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("manifest.toml").exists()) {
        let bundle = Bundle::open(&dir, Parts::All).unwrap();
        let Some(local) = bundle.local() else { continue };
        let net = LocalNet::open(&bundle, local).unwrap();
        assert_eq!(net.macs(), local.macs, "{}", dir.display());
        for vector in &local.vectors {
            let pixels = image::open(bundle.path(&vector.image)).unwrap().into_rgb8();
            let found: Vec<u8> =
                net.run(&pixels).unwrap().iter().flat_map(|logit| logit.to_le_bytes()).collect();
            assert!(found == bundle.read(&vector.logits).unwrap(), "vector {}", vector.name);
        }
    }
}

/// Changes the small network and checks that it is refused with a message that contains each of `words`.
fn refused(words: &[&str], change: impl FnOnce(&mut Model)) {
    let mut model = model();
    change(&mut model);
    let error = open(&model, Isa::detect()).err().expect("it is refused");
    let text = narrows_head::Chain(&error).to_string();
    for word in words {
        assert!(text.contains(word), "`{text}` does not mention `{word}`");
    }
}

fn constant(model: &mut Model, node: usize, input: usize, tensor: Tensor) {
    model.nodes[node].inputs[input].1 = Some(tensor);
}

#[test]
fn nodes_that_cannot_be_run_exactly_are_refused_by_name() {
    refused(&["qlinearadd", "Relu", "QGemm"], |m| m.nodes[4].op = "Relu".into());
    refused(&["qlinearadd", "cannot be run exactly"], |m| m.nodes[4].domain.clear());
    refused(&["qlinearadd", "`v9`"], |m| m.nodes[4].inputs[3].0 = "v9".into());
    refused(&["qlinearadd", "attribute `axis`"], |m| m.nodes[4].int_attributes = vec![("axis".into(), 1)]);
    refused(&["qlinearadd", "first input zero point", "type"], |m| constant(m, 4, 2, Tensor::i8(&[], &[0])));
    refused(&["qlinearadd", "output scale"], |m| constant(m, 4, 6, Tensor::f32(&[2], &[0.1; 2])));
    refused(&["qlinearadd", "term a"], |m| constant(m, 4, 1, Tensor::f32(&[], &[f32::NAN])));
    refused(&["qlinearadd", "term b"], |m| constant(m, 4, 4, Tensor::f32(&[], &[1e9])));
    refused(&["qlinearadd", "9, 14", "5, 7"], |m| {
        m.nodes[2].ints[2].1 = vec![2; 4];
        m.nodes[1].ints[1].1 = vec![1; 2];
        m.nodes[1].ints[2].1 = vec![1; 4];
        m.nodes[3].ints[1].1 = vec![2; 2];
    });
    refused(&["qlinearadd", "it adds 8 channels to 3"], |m| m.nodes[4].inputs[3].0 = "v0".into());
    refused(&["averagepool", "channels_last must be 0"], |m| m.nodes[5].int_attributes[0].1 = 1);
    refused(&["averagepool", "multiplier"], |m| constant(m, 5, 3, Tensor::f32(&[], &[0.0])));
    refused(&["flatten", "axis must be 1"], |m| m.nodes[6].int_attributes[0].1 = 2);
    refused(&["flatten", "not pooled"], |m| m.nodes[6].inputs[0].0 = "v4".into());
    refused(&["v4", "made twice"], |m| m.nodes[5].outputs = vec!["v4".into()]);
    refused(&["conv1", "weight zero point"], |m| constant(m, 2, 5, Tensor::u8(0)));
}

#[test]
fn scores_that_cannot_be_computed_exactly_are_refused() {
    refused(&["the last node must be a QGemm"], |m| drop(m.nodes.pop()));
    refused(&["no QGemm"], |m| m.nodes.truncate(1));
    refused(&["qgemm", "not flattened"], |m| m.nodes[7].inputs[0].0 = "v5".into());
    refused(&["qgemm", "transB must be 1"], |m| m.nodes[7].int_attributes.clear());
    refused(&["qgemm", "`transA`"], |m| m.nodes[7].int_attributes.push(("transA".into(), 1)));
    refused(&["qgemm", "alpha"], |m| m.nodes[7].int_attributes.push(("alpha".into(), 2)));
    refused(&["qgemm", "not be quantised"], |m| m.nodes[7].inputs.extend(grid("y", (0.1, 0))));
    refused(&["qgemm", "7 inputs, there are 8"], |m| {
        constant(m, 7, 3, Tensor::i8(&[3, 7], &[1; 21]));
    });
    refused(&["qgemm", "3 f32"], |m| constant(m, 7, 4, Tensor::f32(&[2], &[0.1; 2])));
    refused(&["qgemm", "weight zero point"], |m| constant(m, 7, 5, Tensor::i8(&[], &[1])));
    refused(&["qgemm", "bias must be 3 i32"], |m| constant(m, 7, 6, Tensor::i32(&[1; 4])));
    refused(&["qgemm", "score's scale"], |m| constant(m, 7, 4, Tensor::f32(&[], &[0.0])));
    refused(&["`logits`", "not f32"], |m| m.output.1 = onnx::UINT8);
    refused(&["`logits`", "row of scores"], |m| m.output.2 = vec![1, 3, 1, 1]);
    refused(&["output `logits`"], |m| m.nodes[7].outputs = vec!["elsewhere".into()]);
}

#[test]
fn calls_and_names_are_checked() {
    let bytes = model().bytes();
    let net = open(&model(), Isa::detect()).unwrap();
    assert!(matches!(net.run(&[0; 10]), Err(Error::Pixels { found: 10, expected: 378 })));
    let error = LocalNet::from_onnx(&bytes, ["image", "scores"], SIZE, Isa::Portable).err().unwrap();
    assert!(error.to_string().contains("`scores`"), "{error}");
}

#[test]
fn broken_files_are_errors_and_never_a_panic() {
    let bytes = model().bytes();
    let open = |bytes: &[u8]| LocalNet::from_onnx(bytes, ["image", "logits"], SIZE, Isa::detect());
    for seed in 0..400 {
        let mut noise = onnx::noise(seed).map(usize::from);
        let mut next = || noise.next().unwrap();
        let mut broken = bytes.clone();
        for _ in 0..1 + next() % 4 {
            broken[(next() << 8 | next()) % bytes.len()] = next() as u8;
        }
        // A changed weight still gives a valid network.
        let _ = open(&broken);
    }
    for length in 0..bytes.len() {
        assert!(open(&bytes[..length]).is_err(), "{length} bytes");
    }
}
