//! Writes f32 networks as ONNX files: convolutions, pooling and element-wise operators on u8 pixels.
//!
//! The protobuf messages are written by hand: eight operators do not warrant generated code for all of ONNX.

/// A protobuf message under construction; fields stand in the order they were added.
#[derive(Debug, Default, Clone)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(mut self, field: u64, value: i64) -> Message {
        self.varint(field << 3);
        self.varint(value.cast_unsigned());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Message {
        self.varint((field << 3) | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn text(self, field: u64, value: &str) -> Message {
        self.bytes(field, value.as_bytes())
    }

    fn nest(self, field: u64, value: &Message) -> Message {
        self.bytes(field, &value.0)
    }
}

/// Element types, as numbered by `TensorProto.DataType`.
const FLOAT: i64 = 1;
const UINT8: i64 = 2;

/// A tensor of the graph, of shape [1, channels, height, width].
#[derive(Debug, Clone)]
pub(super) struct Value {
    name: String,
    pub(super) channels: usize,
    /// Rows.
    pub(super) height: usize,
    /// Columns.
    pub(super) width: usize,
}

/// The shape of a convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conv {
    /// Output channels.
    pub(super) outputs: usize,
    /// Height and width of the kernel.
    pub(super) kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub(super) stride: [usize; 2],
    /// Zero padding at the top, left, bottom and right.
    pub(super) pads: [usize; 4],
    /// Whether each output channel reads only the input channel of its index.
    pub(super) depthwise: bool,
}

/// A network under construction.
#[derive(Debug)]
pub(super) struct Graph {
    nodes: Message,
    constants: Message,
    size: [usize; 2],
    values: usize,
    macs: u64,
}

/// Name of the network's input, u8 [1, height, width, 3].
pub(super) const INPUT: &str = "image";
/// Name of the network's output, f32 [1, channels, height, width].
pub(super) const OUTPUT: &str = "output";

impl Graph {
    /// A network that reads pixels, and the pixels as f32 [1, 3, height, width].
    pub(super) fn new(height: usize, width: usize) -> (Graph, Value) {
        let (nodes, constants) = (Message::default(), Message::default());
        let mut graph = Graph { nodes, constants, size: [height, width], values: 0, macs: 0 };
        let pixels = Value { name: INPUT.to_owned(), channels: 3, height, width };
        let planes = graph.node("Transpose", &[INPUT], &[ints("perm", &[0, 3, 1, 2])], pixels);
        let name = planes.name.clone();
        let cast = graph.node("Cast", &[&name], &[int("to", FLOAT)], planes);
        (graph, cast)
    }

    /// Multiply-accumulates of the convolutions so far.
    pub(super) fn macs(&self) -> u64 {
        self.macs
    }

    /// Adds a convolution with weights [outputs, inputs, rows, columns], where inputs is 1 if depthwise.
    pub(super) fn conv(&mut self, input: &Value, conv: Conv, weights: &[f32], bias: &[f32]) -> Value {
        let per_output = if conv.depthwise { 1 } else { input.channels };
        let [top, left, bottom, right] = conv.pads;
        let shape = Value {
            name: String::new(),
            channels: conv.outputs,
            height: (input.height + top + bottom - conv.kernel[0]) / conv.stride[0] + 1,
            width: (input.width + left + right - conv.kernel[1]) / conv.stride[1] + 1,
        };
        let positions = shape.height * shape.width * conv.outputs;
        self.macs += (positions * per_output * conv.kernel[0] * conv.kernel[1]) as u64;
        let weights = self.constant(&[conv.outputs, per_output, conv.kernel[0], conv.kernel[1]], weights);
        let bias = self.constant(&[conv.outputs], bias);
        let attributes = [
            ints("kernel_shape", &conv.kernel),
            ints("strides", &conv.stride),
            ints("pads", &conv.pads),
            int("group", if conv.depthwise { conv.outputs as i64 } else { 1 }),
        ];
        self.node("Conv", &[&input.name, &weights, &bias], &attributes, shape)
    }

    /// Adds max(x, 0).
    pub(super) fn relu(&mut self, input: &Value) -> Value {
        self.node("Relu", &[&input.name], &[], input.clone())
    }

    /// Adds min(max(x, low), high).
    pub(super) fn clip(&mut self, input: &Value, low: f32, high: f32) -> Value {
        let (low, high) = (self.constant(&[], &[low]), self.constant(&[], &[high]));
        self.node("Clip", &[&input.name, &low, &high], &[], input.clone())
    }

    /// Adds the operator `op` (Add, Sub or Mul) of a value and a scalar.
    pub(super) fn scalar(&mut self, op: &str, input: &Value, scalar: f32) -> Value {
        let scalar = self.constant(&[], &[scalar]);
        self.node(op, &[&input.name, &scalar], &[], input.clone())
    }

    /// Adds the sum of two values of the same shape.
    pub(super) fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Add", &[&a.name, &b.name], &[], a.clone())
    }

    /// Adds the mean over rows and columns.
    pub(super) fn pool(&mut self, input: &Value) -> Value {
        let shape = Value { height: 1, width: 1, ..input.clone() };
        self.node("GlobalAveragePool", &[&input.name], &[], shape)
    }

    /// The ONNX file of the network (IR version 8, opset 13) that returns `output` as [`OUTPUT`].
    pub(super) fn finish(mut self, output: &Value) -> Vec<u8> {
        let node =
            Message::default().text(1, &output.name).text(2, OUTPUT).text(3, OUTPUT).text(4, "Identity");
        self.nodes = self.nodes.nest(1, &node);
        let [height, width] = self.size;
        let input = describe(INPUT, UINT8, &[1, height, width, 3]);
        let output = describe(OUTPUT, FLOAT, &[1, output.channels, output.height, output.width]);
        let mut graph = self.nodes.text(2, "network");
        graph.0.extend(self.constants.0);
        let graph = graph.nest(11, &input).nest(12, &output);
        Message::default().int(1, 8).nest(7, &graph).nest(8, &Message::default().int(2, 13)).0
    }

    /// Adds a node with one output of the shape of `shape`.
    fn node(&mut self, op: &str, inputs: &[&str], attributes: &[Message], shape: Value) -> Value {
        let name = self.name();
        let node = inputs.iter().fold(Message::default(), |node, input| node.text(1, input));
        let node = node.text(2, &name).text(3, &name).text(4, op);
        let node = attributes.iter().fold(node, |node, attribute| node.nest(5, attribute));
        self.nodes = std::mem::take(&mut self.nodes).nest(1, &node);
        Value { name, ..shape }
    }

    fn constant(&mut self, dims: &[usize], values: &[f32]) -> String {
        let name = self.name();
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = dims.iter().fold(Message::default(), |tensor, &dim| tensor.int(1, dim as i64));
        let tensor = tensor.int(2, FLOAT).text(8, &name).bytes(9, &raw);
        self.constants = std::mem::take(&mut self.constants).nest(5, &tensor);
        name
    }

    fn name(&mut self) -> String {
        self.values += 1;
        format!("v{}", self.values)
    }
}

fn int(name: &str, value: i64) -> Message {
    Message::default().text(1, name).int(20, 2).int(3, value)
}

fn ints(name: &str, values: &[usize]) -> Message {
    let attribute = Message::default().text(1, name).int(20, 7);
    values.iter().fold(attribute, |attribute, &value| attribute.int(8, value as i64))
}

fn describe(name: &str, element: i64, dims: &[usize]) -> Message {
    let dim = |shape: Message, &dim: &usize| shape.nest(1, &Message::default().int(1, dim as i64));
    let shape = dims.iter().fold(Message::default(), dim);
    let tensor = Message::default().int(1, element).nest(2, &shape);
    Message::default().text(1, name).nest(2, &Message::default().nest(1, &tensor))
}
