//! Small networks as ONNX bytes, written field by field so that a test can break any of them.

#![allow(dead_code, reason = "each test file uses its share")]

/// A protobuf message under construction.
#[derive(Default, Clone)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn int(mut self, field: u64, value: i64) -> Message {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    pub(crate) fn bytes(mut self, field: u64, value: &[u8]) -> Message {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    pub(crate) fn text(self, field: u64, value: &str) -> Message {
        self.bytes(field, value.as_bytes())
    }

    pub(crate) fn nest(self, field: u64, value: &Message) -> Message {
        self.bytes(field, &value.0)
    }

    pub(crate) fn ints(self, field: u64, values: &[i64]) -> Message {
        values.iter().fold(self, |message, &value| message.int(field, value))
    }
}

pub(crate) const FLOAT: i64 = 1;
pub(crate) const UINT8: i64 = 2;
pub(crate) const INT8: i64 = 3;
pub(crate) const INT32: i64 = 6;

/// A constant tensor.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) kind: i64,
    pub(crate) dims: Vec<i64>,
    pub(crate) raw: Vec<u8>,
}

impl Tensor {
    pub(crate) fn f32(dims: &[i64], values: &[f32]) -> Tensor {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { kind: FLOAT, dims: dims.to_vec(), raw }
    }

    pub(crate) fn i32(values: &[i32]) -> Tensor {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { kind: INT32, dims: vec![values.len() as i64], raw }
    }

    pub(crate) fn i8(dims: &[i64], values: &[i8]) -> Tensor {
        Tensor { kind: INT8, dims: dims.to_vec(), raw: values.iter().map(|&value| value as u8).collect() }
    }

    pub(crate) fn u8(value: u8) -> Tensor {
        Tensor { kind: UINT8, dims: vec![], raw: vec![value] }
    }

    fn message(&self, name: &str) -> Message {
        let message = Message::default().ints(1, &self.dims).int(2, self.kind);
        message.text(8, name).bytes(9, &self.raw)
    }
}

/// A node: inputs that are constants carry them.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) op: String,
    pub(crate) domain: String,
    pub(crate) inputs: Vec<(String, Option<Tensor>)>,
    pub(crate) outputs: Vec<String>,
    pub(crate) ints: Vec<(String, Vec<i64>)>,
    pub(crate) int_attributes: Vec<(String, i64)>,
    pub(crate) group: i64,
    pub(crate) auto_pad: Option<String>,
}

impl Node {
    /// A node without attributes.
    pub(crate) fn plain(domain: &str, op: &str, inputs: Vec<(String, Option<Tensor>)>, output: &str) -> Node {
        Node {
            name: op.to_lowercase(),
            op: op.into(),
            domain: domain.into(),
            inputs,
            outputs: vec![output.into()],
            ints: Vec::new(),
            int_attributes: Vec::new(),
            group: 1,
            auto_pad: None,
        }
    }

    fn message(&self) -> Message {
        let mut message = Message::default();
        for (name, _) in &self.inputs {
            message = message.text(1, name);
        }
        for name in &self.outputs {
            message = message.text(2, name);
        }
        message = message.text(3, &self.name).text(4, &self.op).text(7, &self.domain);
        for (name, values) in &self.ints {
            message = message.nest(5, &Message::default().text(1, name).int(20, 7).ints(8, values));
        }
        for (name, value) in &self.int_attributes {
            message = message.nest(5, &Message::default().text(1, name).int(20, 2).int(3, *value));
        }
        if self.group != 1 {
            message = message.nest(5, &Message::default().text(1, "group").int(20, 2).int(3, self.group));
        }
        if let Some(value) = &self.auto_pad {
            message = message.nest(5, &Message::default().text(1, "auto_pad").int(20, 3).text(4, value));
        }
        message
    }
}

/// A whole model.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) opset: i64,
    pub(crate) input: (String, i64, Vec<i64>),
    pub(crate) output: (String, i64, Vec<i64>),
    pub(crate) nodes: Vec<Node>,
}

impl Model {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut graph = Message::default();
        for node in &self.nodes {
            graph = graph.nest(1, &node.message());
        }
        graph = graph.text(2, "head");
        for node in &self.nodes {
            for (name, constant) in &node.inputs {
                if let Some(constant) = constant {
                    graph = graph.nest(5, &constant.message(name));
                }
            }
        }
        graph = graph.nest(11, &value(&self.input)).nest(12, &value(&self.output));
        let opset = Message::default().int(2, self.opset);
        Message::default().int(1, 8).nest(7, &graph).nest(8, &opset).0
    }
}

/// A value description; a size of 0 is symbolic.
fn value((name, kind, dims): &(String, i64, Vec<i64>)) -> Message {
    let mut shape = Message::default();
    for &dim in dims {
        let dim = if dim == 0 { Message::default().text(2, "n") } else { Message::default().int(1, dim) };
        shape = shape.nest(1, &dim);
    }
    let tensor = Message::default().int(1, *kind).nest(2, &shape);
    Message::default().text(1, name).nest(2, &Message::default().nest(1, &tensor))
}

/// Numbers that look random and are the same everywhere.
pub(crate) fn noise(seed: u32) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    })
}

/// Shape and quantisation of one layer of [`head`].
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) outputs: usize,
    pub(crate) per_output: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) pads: [i64; 4],
    pub(crate) group: i64,
    pub(crate) x_scale: f32,
    pub(crate) x_zero: Tensor,
    pub(crate) w_scales: Vec<f32>,
    pub(crate) weights: Vec<i8>,
    pub(crate) bias: Vec<i32>,
    pub(crate) y_scale: f32,
    pub(crate) y_zero: Tensor,
}

/// Patchify to u8, depthwise with lopsided padding to s8, pointwise to s8.
pub(crate) fn layers() -> Vec<Layer> {
    let make = |seed, outputs: usize, per_output, kernel, stride, pads, group| {
        let count = outputs * per_output * kernel * kernel;
        Layer {
            outputs,
            per_output,
            kernel,
            stride,
            pads,
            group,
            x_scale: 0.02,
            x_zero: Tensor::u8(0),
            w_scales: (0..outputs).map(|o| 0.003 + 0.0007 * o as f32).collect(),
            weights: noise(seed).map(|b| b as i8).take(count).collect(),
            bias: noise(seed + 1).map(|b| i32::from(b as i8) * 300).take(outputs).collect(),
            y_scale: 0.09,
            y_zero: Tensor::u8(0),
        }
    };
    let s8 = |zero| Tensor::i8(&[], &[zero]);
    vec![
        Layer { x_zero: Tensor::u8(127), y_zero: Tensor::u8(3), ..make(1, 10, 3, 4, 4, [0; 4], 1) },
        Layer { x_zero: Tensor::u8(3), y_zero: s8(-128), ..make(2, 10, 1, 3, 1, [1, 2, 1, 0], 10) },
        Layer { x_zero: s8(-128), y_zero: s8(0), y_scale: 0.03, ..make(3, 5, 10, 1, 1, [0; 4], 1) },
    ]
}

/// The layers as a model of BUNDLE.md, section 4.
pub(crate) fn model(layers: &[Layer]) -> Model {
    let transpose = Node {
        name: "to_nchw".into(),
        op: "Transpose".into(),
        domain: String::new(),
        inputs: vec![("image".into(), None)],
        outputs: vec!["v0".into()],
        ints: vec![("perm".into(), vec![0, 3, 1, 2])],
        int_attributes: Vec::new(),
        group: 1,
        auto_pad: None,
    };
    let mut nodes = vec![transpose];
    for (i, layer) in layers.iter().enumerate() {
        let (kernel, stride) = (layer.kernel as i64, layer.stride as i64);
        let dims = [layer.outputs as i64, layer.per_output as i64, kernel, kernel];
        let constants = [
            ("x_scale", Tensor::f32(&[], &[layer.x_scale])),
            ("x_zero", layer.x_zero.clone()),
            ("w", Tensor::i8(&dims, &layer.weights)),
            ("w_scale", Tensor::f32(&[layer.w_scales.len() as i64], &layer.w_scales)),
            ("w_zero", Tensor::i8(&[1], &[0])),
            ("y_scale", Tensor::f32(&[], &[layer.y_scale])),
            ("y_zero", layer.y_zero.clone()),
            ("bias", Tensor::i32(&layer.bias)),
        ];
        let mut inputs = vec![(format!("v{i}"), None)];
        inputs.extend(constants.map(|(name, constant)| (format!("conv{i}.{name}"), Some(constant))));
        let output = if i + 1 == layers.len() { "latent".into() } else { format!("v{}", i + 1) };
        nodes.push(Node {
            name: format!("conv{i}"),
            op: "QLinearConv".into(),
            domain: String::new(),
            inputs,
            outputs: vec![output],
            ints: vec![
                ("kernel_shape".into(), vec![kernel; 2]),
                ("strides".into(), vec![stride; 2]),
                ("pads".into(), layer.pads.to_vec()),
                ("dilations".into(), vec![1, 1]),
            ],
            int_attributes: Vec::new(),
            group: layer.group,
            auto_pad: None,
        });
    }
    Model {
        opset: 13,
        input: ("image".into(), UINT8, vec![1, 0, 0, 3]),
        output: ("latent".into(), INT8, vec![1, 5, 0, 0]),
        nodes,
    }
}
