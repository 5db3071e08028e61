//! The head's network: exact symbols on every implementation, and refusals that name the node.

#![allow(clippy::unwrap_used, reason = "a test helper fails by panicking")]

mod onnx;

use std::path::Path;

use narrows_codec::{GeometryId, LevelId};
use narrows_head::net::{Error, Interface, Net};
use narrows_int8::Isa;
use narrows_models::{Bundle, Parts};
use onnx::{Layer, Model, Tensor};

fn interface() -> Interface {
    Interface {
        input: "image".into(),
        output: "latent".into(),
        channels: 5,
        stride: 4,
        geometries: vec![(16, 24), (32, 8)],
        gains: vec![1.0, 0.37],
    }
}

fn supported() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_supported())
}

/// Stored zero point: s8 is 128 below.
fn zero(tensor: &Tensor) -> i64 {
    if tensor.kind == onnx::INT8 { i64::from(tensor.raw[0] as i8) } else { i64::from(tensor.raw[0]) }
}

/// Section 4 of BUNDLE.md in 64-bit integers, channel by channel.
fn reference(layers: &[Layer], height: usize, width: usize, pixels: &[u8], gain: f32) -> Vec<i16> {
    let mut planes: Vec<i64> =
        (0..3).flat_map(|c| pixels[c..].iter().step_by(3).map(|&p| i64::from(p))).collect();
    let (mut inputs, mut size) = (3, (height, width));
    for (i, layer) in layers.iter().enumerate() {
        let [top, left, bottom, right] = layer.pads.map(|pad| pad as usize);
        let rows = (size.0 + top + bottom - layer.kernel) / layer.stride + 1;
        let columns = (size.1 + left + right - layer.kernel) / layer.stride + 1;
        let signed = layer.y_zero.kind == onnx::INT8;
        let (low, high) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
        let mut next = Vec::new();
        for o in 0..layer.outputs {
            let mut mult = layer.x_scale * layer.w_scales[o] / layer.y_scale;
            if i + 1 == layers.len() {
                mult *= gain;
            }
            for y in 0..rows {
                for x in 0..columns {
                    let mut acc = i64::from(layer.bias[o]);
                    for c in 0..layer.per_output {
                        let plane = if layer.group == 1 { c } else { o };
                        for ky in 0..layer.kernel {
                            for kx in 0..layer.kernel {
                                let row = (y * layer.stride + ky).wrapping_sub(top);
                                let column = (x * layer.stride + kx).wrapping_sub(left);
                                if row >= size.0 || column >= size.1 {
                                    continue;
                                }
                                let value = planes[(plane * size.0 + row) * size.1 + column];
                                let tap = (o * layer.per_output + c) * layer.kernel + ky;
                                let w = i64::from(layer.weights[tap * layer.kernel + kx]);
                                acc += (value - zero(&layer.x_zero)) * w;
                            }
                        }
                    }
                    let value = (acc as f32 * mult).round_ties_even() + zero(&layer.y_zero) as f32;
                    next.push(value.clamp(low, high) as i64);
                }
            }
        }
        assert!(inputs == layer.per_output || inputs == layer.outputs);
        (planes, inputs, size) = (next, layer.outputs, (rows, columns));
    }
    planes.into_iter().map(|value| value as i16).collect()
}

#[test]
fn symbols_equal_the_formula_at_every_geometry_and_level() {
    let layers = onnx::layers();
    let bytes = onnx::model(&layers).bytes();
    let interface = interface();
    for isa in supported() {
        let net = Net::from_onnx(&bytes, &interface, isa).unwrap();
        assert_eq!(net.isa(), isa);
        for (geometry, &(height, width)) in interface.geometries.iter().enumerate() {
            let geometry_id = GeometryId(geometry as u8);
            let pixels: Vec<u8> = onnx::noise(geometry as u32 + 9).take(height * width * 3).collect();
            for (level, &gain) in interface.gains.iter().enumerate() {
                let feature = net.run(geometry_id, LevelId(level as u8), &pixels).unwrap();
                let expected = reference(&layers, height, width, &pixels, gain);
                assert_eq!(feature.symbols(), expected, "{isa}, geometry {geometry}, level {level}");
                let shape = feature.shape();
                assert_eq!((shape.channels(), shape.height(), shape.width()), (5, height / 4, width / 4));
                let spread = expected.iter().max().unwrap() - expected.iter().min().unwrap();
                assert!(spread > 40, "the vector says little: a spread of {spread}");
            }
            let positions = (height / 4 * width / 4) as u64;
            assert_eq!(net.macs(geometry_id).unwrap(), positions * (10 * 48 + 10 * 9 + 50));
        }
    }
}

#[test]
fn committed_bundles_reproduce_their_vectors() {
    let bundles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bundles");
    let Ok(entries) = std::fs::read_dir(bundles) else { return };
    for dir in entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("manifest.toml").exists()) {
        let bundle = Bundle::open(&dir, Parts::All).unwrap();
        for isa in supported() {
            let net = Net::with_isa(&bundle, isa).unwrap();
            assert_eq!(net.macs(GeometryId(0)).unwrap(), bundle.head().macs, "{}", dir.display());
            for vector in bundle.vectors() {
                let (geometry, level) = (GeometryId(vector.geometry as u8), LevelId(vector.level as u8));
                let pixels = image::open(bundle.path(&vector.image)).unwrap().into_rgb8();
                let feature = net.run(geometry, level, &pixels).unwrap();
                let expected = bundle.read(&vector.symbols).unwrap();
                let equal = feature.symbols().iter().zip(&expected).all(|(&a, &b)| a == i16::from(b as i8));
                assert!(equal && feature.symbols().len() == expected.len(), "{isa}, vector {}", vector.name);
            }
        }
    }
}

/// Breaks the small head and checks that the message holds every one of `words`.
fn refused(words: &[&str], change: impl FnOnce(&mut Model)) {
    let mut model = onnx::model(&onnx::layers());
    change(&mut model);
    let error = Net::from_onnx(&model.bytes(), &interface(), Isa::detect()).err().expect("it is refused");
    let text = match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    for word in words {
        assert!(text.contains(word), "`{text}` does not mention `{word}`");
    }
}

fn constant(model: &mut Model, node: usize, input: usize, tensor: Tensor) {
    model.nodes[node].inputs[input].1 = Some(tensor);
}

#[test]
fn foreign_operators_are_refused_by_node() {
    refused(&["conv1", "Relu"], |model| model.nodes[2].op = "Relu".into());
    refused(&["conv2", "QDQ"], |model| model.nodes[3].op = "DequantizeLinear".into());
    refused(&["conv0", "QLinearConv"], |model| model.nodes[1].domain = "com.microsoft".into());
    refused(&["to_nchw", "perm"], |model| model.nodes[0].ints[0].1 = vec![0, 1, 2, 3]);
    refused(&["conv0", "first node"], |model| drop(model.nodes.remove(0)));
    refused(&["no QLinearConv"], |model| model.nodes.truncate(1));
    refused(&["no node"], |model| model.nodes.clear());
    // A nameless node goes by its output.
    refused(&["latent", "Relu"], |model| {
        model.nodes[3].name.clear();
        model.nodes[3].op = "Relu".into();
    });
}

#[test]
fn inexact_quantisation_is_refused_by_node() {
    refused(&["conv1", "weight zero point"], |m| constant(m, 2, 5, Tensor::i8(&[1], &[1])));
    refused(&["conv1", "weight zero point"], |m| constant(m, 2, 5, Tensor::u8(0)));
    refused(&["conv0", "10 f32"], |m| constant(m, 1, 4, Tensor::f32(&[9], &[0.1; 9])));
    refused(&["conv0", "one f32"], |m| constant(m, 1, 1, Tensor::f32(&[2], &[0.1; 2])));
    refused(&["conv0", "multiplier"], |m| constant(m, 1, 1, Tensor::f32(&[], &[f32::NAN])));
    refused(&["conv0", "multiplier"], |m| constant(m, 1, 6, Tensor::f32(&[], &[0.0])));
    refused(&["conv2", "multiplier"], |m| constant(m, 3, 1, Tensor::f32(&[], &[-1.0])));
    refused(&["conv2", "type"], |m| constant(m, 3, 2, Tensor::u8(0)));
    refused(&["conv0", "i8"], |m| constant(m, 1, 3, Tensor::f32(&[10, 3, 4, 4], &[0.0; 480])));
    refused(&["conv0", "bias"], |m| constant(m, 1, 8, Tensor::i32(&[0; 3])));
    refused(&["conv0", "32 bits"], |m| constant(m, 1, 8, Tensor::i32(&[i32::MAX; 10])));
    refused(&["conv2", "zero point 0"], |m| constant(m, 3, 7, Tensor::i8(&[], &[1])));
    refused(&["conv1", "not a constant"], |m| m.nodes[2].inputs[1].1 = None);
}

#[test]
fn shapes_that_the_kernels_lack_are_refused_by_node() {
    refused(&["conv1", "dilations"], |m| m.nodes[2].ints[3].1 = vec![2, 1]);
    refused(&["conv1", "group 5"], |m| m.nodes[2].group = 5);
    refused(&["conv0", "auto_pad"], |m| m.nodes[1].auto_pad = Some("SAME_UPPER".into()));
    refused(&["conv0", "kernel_shape"], |m| m.nodes[1].ints[0].1 = vec![3, 4]);
    refused(&["conv0", "stride"], |m| m.nodes[1].ints[1].1 = vec![0, 4]);
    refused(&["conv0", "strides holds -4"], |m| m.nodes[1].ints[1].1 = vec![-4, 4]);
    refused(&["conv0", "padding"], |m| m.nodes[1].ints[2].1 = vec![4, 0, 0, 0]);
    refused(&["conv0", "`unheard`"], |m| m.nodes[1].ints[3].0 = "unheard".into());
    refused(&["geometry 0", "stride asks for 4x6"], |m| m.nodes[2].ints[2].1 = vec![1, 1, 1, 0]);
}

#[test]
fn graphs_that_are_no_chain_are_refused() {
    refused(&["conv1", "does not continue the chain"], |m| m.nodes[2].inputs[0].0 = "v0".into());
    refused(&["output `latent`"], |m| m.nodes[3].outputs = vec!["elsewhere".into()]);
    refused(&["conv0", "one output"], |m| m.nodes[1].outputs.push("more".into()));
    refused(&["conv0", "inputs"], |m| m.nodes[1].inputs.truncate(7));
    refused(&["operator set 12"], |m| m.opset = 12);
    refused(&["`image`", "not u8"], |m| m.input.1 = onnx::FLOAT);
    refused(&["`image`", "[1, height, width, 3]"], |m| m.input.2[3] = 4);
    refused(&["`latent`", "not s8"], |m| m.output.1 = onnx::UINT8);
    refused(&["initializer `conv0.bias`", "dimensions"], |m| {
        constant(m, 1, 8, Tensor { dims: vec![11], ..Tensor::i32(&[0; 10]) });
    });
    refused(&["initializer `conv0.bias`", "dimension -1"], |m| {
        constant(m, 1, 8, Tensor { dims: vec![-1], ..Tensor::i32(&[0; 10]) });
    });
}

#[test]
fn manifest_and_file_must_agree() {
    let bytes = onnx::model(&onnx::layers()).bytes();
    let error = |interface: Interface| match Net::from_onnx(&bytes, &interface, Isa::Portable) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    };
    assert!(error(Interface { input: "x".into(), ..interface() }).contains("`image`"));
    assert!(error(Interface { output: "y".into(), ..interface() }).contains("`latent`"));
    assert!(error(Interface { channels: 6, ..interface() }).contains("5 channels"));
    assert!(error(Interface { stride: 8, ..interface() }).contains("2x3"));
    assert!(error(Interface { geometries: vec![(16, 24), (2, 2)], ..interface() }).contains("geometry 1"));
}

#[test]
fn calls_are_checked() {
    let net = Net::from_onnx(&onnx::model(&onnx::layers()).bytes(), &interface(), Isa::detect()).unwrap();
    let pixels = vec![0; 16 * 24 * 3];
    assert!(matches!(
        net.run(GeometryId(2), LevelId(0), &pixels),
        Err(Error::Index { what: "geometry", index: 2, count: 2 })
    ));
    assert!(matches!(
        net.run(GeometryId(0), LevelId(2), &pixels),
        Err(Error::Index { what: "level", index: 2, count: 2 })
    ));
    assert!(matches!(
        net.run(GeometryId(0), LevelId(0), &pixels[1..]),
        Err(Error::Pixels { found: 1151, expected: 1152 })
    ));
    assert!(net.run(GeometryId(0), LevelId(0), &pixels).is_ok());
}

#[test]
fn broken_files_are_errors_and_never_a_panic() {
    let bytes = onnx::model(&onnx::layers()).bytes();
    for seed in 0..600 {
        let mut noise = onnx::noise(seed).map(usize::from);
        let mut next = || noise.next().unwrap();
        let mut broken = bytes.clone();
        for _ in 0..1 + next() % 4 {
            // Half of the flips go to the nodes, which come first, the others anywhere.
            let range = if next() % 2 == 0 { 1200 } else { bytes.len() };
            broken[(next() << 8 | next()) % range] = next() as u8;
        }
        // A flip among the weights leaves a head.
        let _ = Net::from_onnx(&broken, &interface(), Isa::detect());
        let noise: Vec<u8> = onnx::noise(seed).take(seed as usize).collect();
        assert!(Net::from_onnx(&noise, &interface(), Isa::detect()).is_err());
    }
    for length in 0..bytes.len() {
        assert!(Net::from_onnx(&bytes[..length], &interface(), Isa::Portable).is_err(), "{length} bytes");
    }
}
