"""ONNX files of the default backbone, written node by node for exact control over padding, names and stored types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from . import backbone
from .backbone import Backbone
from .decoder import KEY_POOLING, Attention, Decoder
from .decoder import Block as DecoderBlock
from .direct import DirectDecoder, Separable
from .head import IMAGE_ZERO, STRIDE, IntHead
from .segmenter import Fusion, Segmenter

OPSET = 17
FLOAT, BYTE = TensorProto.FLOAT, TensorProto.UINT8
GLOBAL_CONTEXT = "whole"  # the name of a block's global context layer in exported files, part of their bytes


class Graph:
    """A list of nodes to which methods append; each returns the name of its output tensor."""

    def __init__(self):
        self.nodes: list = []
        self.stored: dict[str, onnx.TensorProto] = {}

    def name(self, hint: str) -> str:
        """A unique name that contains `hint`."""
        return f"{hint}_{len(self.nodes)}"

    def node(self, op: str, inputs: list[str], hint: str | None = None, output: str | None = None, **attributes) -> str:
        """Append an operator; `output` fixes the name of its output."""
        name = self.name(hint or op.lower())
        self.nodes.append(helper.make_node(op, inputs, [output or name], name=name, **attributes))
        return output or name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Store an initialiser."""
        self.stored[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def weight(self, name: str, value: Tensor) -> str:
        """Store a weight as f16 and cast it to f32."""
        half = value.detach().numpy().astype(np.float16)
        return self.node("Cast", [self.constant(name + ".f16", half)], name, to=FLOAT)

    def convolution(self, name: str, conv: nn.Conv2d, x: str) -> str:
        """A convolution with SAME padding."""
        stored = [self.weight(f"{name}.weight", conv.weight), self.constant(f"{name}.bias", conv.bias.detach().numpy())]
        return self.node(
            "Conv",
            [x, *stored],
            name,
            auto_pad="SAME_UPPER",
            group=conv.groups,
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
        )

    def relu(self, x: str) -> str:
        """max(x, 0)."""
        return self.node("Relu", [x])

    def relu6(self, x: str) -> str:
        """x limited to 0..6."""
        return self.node("Clip", [x, self.constant("zero", np.float32(0)), self.constant("six", np.float32(6))])

    def add(self, x: str, y: str) -> str:
        """x + y."""
        return self.node("Add", [x, y])

    def save(self, path: Path, inputs: list, outputs: list, contrib: bool = False) -> None:
        """Check and write the file; `contrib` declares the operator set of ONNX Runtime's quantised operators."""
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, list(self.stored.values()))
        sets = [helper.make_opsetid("", OPSET), *([helper.make_opsetid("com.microsoft", 1)] if contrib else [])]
        model = helper.make_model(graph, opset_imports=sets, producer_name="narrows recipe")
        model.ir_version = 9
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


def value(name: str, kind: int, shape: list) -> onnx.ValueInfoProto:
    """Declaration of an input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def block(g: Graph, name: str, part: backbone.Block, x: str) -> str:
    """An inverted bottleneck."""
    y = g.relu6(g.convolution(f"{name}.expand", part.expand, x)) if part.expand is not None else x
    y = g.relu6(g.convolution(f"{name}.depthwise", part.depthwise, y))
    y = g.convolution(f"{name}.project", part.project, y)
    return g.add(x, y) if part.residual else y


def groups(g: Graph, parts: nn.ModuleList, first: int, x: str) -> list[str]:
    """Block groups in order, numbered from `first`; returns the output of each."""
    outputs = []
    for index, group in enumerate(parts):
        for number, part in enumerate(group):
            x = block(g, f"group{first + index}.{number}", part, x)
        outputs.append(x)
    return outputs


def pixels(g: Graph, image: str) -> str:
    """Pixels u8 [N,H,W,3] to the backbone's normalised input f32 [N,3,H,W]."""
    x = g.node("Cast", [g.node("Transpose", [image], perm=[0, 3, 1, 2])], to=FLOAT)
    x = g.node("Sub", [x, g.constant("image.zero", np.float32(127))])
    return g.node("Mul", [x, g.constant("image.scale", np.float32(1 / 128))])


def front(g: Graph, net: Backbone, image: str) -> str:
    """Normalised image to split features."""
    x = g.relu6(g.convolution("stem", net.stem, image))
    return groups(g, net.groups[: backbone.SPLIT_GROUP], 1, x)[-1]


def classify(g: Graph, net: Backbone, split: str) -> str:
    """Split features to logits [N,1000]."""
    return answer(g, net, groups(g, net.groups[backbone.SPLIT_GROUP :], backbone.SPLIT_GROUP + 1, split)[-1])


def answer(g: Graph, net: Backbone, stride32: str) -> str:
    """Features at stride 32 to logits [N,1000]."""
    x = g.relu6(g.convolution("top", net.top, stride32))
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x])])
    weights = [g.weight("classifier.weight", net.classifier.weight), g.constant("classifier.bias", net.classifier.bias.detach().numpy())]
    return g.node("Gemm", [x, *weights], output="logits", transB=1)


def attend(g: Graph, name: str, layer: Attention, x: str) -> str:
    """Multi-head self-attention over a map [N,C,h,w]."""
    width, each = layer.out.in_features, layer.out.in_features // layer.heads
    norm = [g.constant(f"{name}.norm.{key}", getattr(layer.norm, key).detach().numpy()) for key in ("weight", "bias")]
    flat = g.constant("attention.flat", np.array([0, width, -1], np.int64))
    split = g.constant("attention.split", np.array([0, -1, layer.heads, each], np.int64))

    def tokens(y: str) -> str:
        y = g.node("Transpose", [g.node("Reshape", [y, flat])], perm=[0, 2, 1])
        return g.node("LayerNormalization", [y, *norm], axis=-1, epsilon=layer.norm.eps)

    def linear(part: str, y: str) -> str:
        weight = g.weight(f"{name}.{part}.weight", getattr(layer, part).weight)
        return g.node("MatMul", [y, g.node("Transpose", [weight], perm=[1, 0])])

    def heads(part: str, y: str, perm: list[int]) -> str:
        return g.node("Transpose", [g.node("Reshape", [linear(part, y), split])], perm=perm)

    queries = tokens(x)
    pooled = tokens(g.node("AveragePool", [x], kernel_shape=[KEY_POOLING] * 2, strides=[KEY_POOLING] * 2))
    scores = g.node("MatMul", [heads("query", queries, [0, 2, 1, 3]), heads("key", pooled, [0, 2, 3, 1])])
    scores = g.node("Softmax", [g.node("Mul", [scores, g.constant("attention.scale", np.float32(each**-0.5))])], axis=-1)
    found = g.node("Transpose", [g.node("MatMul", [scores, heads("value", pooled, [0, 2, 1, 3])])], perm=[0, 2, 1, 3])
    found = linear("out", g.node("Reshape", [found, g.constant("attention.joined", np.array([0, -1, width], np.int64))]))
    found = g.add(found, g.constant(f"{name}.out.bias", layer.out.bias.detach().numpy()))
    found = g.node("Reshape", [g.node("Transpose", [found], perm=[0, 2, 1]), g.node("Shape", [x])])
    return g.add(x, found)


class Modulation:
    """The scales and shifts of a decoder's blocks: slices of one perceptron's output for the step."""

    def __init__(self, g: Graph, level: nn.Sequential, blocks: int, width: int, step: str):
        self.g, self.width = g, width
        axis = g.constant("level.axis", np.array([1], np.int64))
        x = g.node("Unsqueeze", [g.node("Log", [step]), axis])
        for index in (0, 2):
            layer = level[index]
            stored = [g.constant(f"level.{index}.{key}", getattr(layer, key).detach().numpy()) for key in ("weight", "bias")]
            x = g.node("Gemm", [x, *stored], transB=1)
            x = g.relu(x) if index == 0 else x
        rows = (blocks + 1) * 2
        x = g.node("Reshape", [x, g.constant("level.shape", np.array([0, rows * width, 1, 1], np.int64))])
        self.parts = [f"level.part{row}" for row in range(rows)]
        sizes = g.constant("level.parts", np.array([width] * rows, np.int64))
        g.nodes.append(helper.make_node("Split", [x, sizes], self.parts, name="level", axis=1))
        self.one = g.constant("one", np.float32(1))

    def apply(self, y: str, index: int, context: list[str] | None = None) -> str:
        """`y` modulated for block `index`, 0 being the first layer; `context` are the summands of `global_context`."""
        g = self.g
        scale, shift = self.parts[2 * index : 2 * index + 2]
        if context:
            scale, shift = g.add(scale, context[0]), g.add(shift, context[1])
        return g.add(g.node("Mul", [y, g.add(scale, self.one)]), shift)

    def global_context(self, y: str, name: str, layer: nn.Linear | None) -> list[str] | None:
        """Summands of scale and shift from the mean of the map, None without a layer."""
        if layer is None:
            return None
        g, name = self.g, f"{name}.{GLOBAL_CONTEXT}"
        stored = [g.constant(f"{name}.{key}", getattr(layer, key).detach().numpy()) for key in ("weight", "bias")]
        mean = g.node("Gemm", [g.node("Flatten", [g.node("GlobalAveragePool", [y])]), *stored], transB=1)
        mean = g.node("Reshape", [mean, g.constant(f"{GLOBAL_CONTEXT}.shape", np.array([0, 2 * self.width, 1, 1], np.int64))])
        found = [f"{name}.scale", f"{name}.shift"]
        sizes = g.constant(f"{GLOBAL_CONTEXT}.parts", np.array([self.width] * 2, np.int64))
        g.nodes.append(helper.make_node("Split", [mean, sizes], found, name=name, axis=1))
        return found

    def dense(self, y: str, number: int, part: DecoderBlock) -> str:
        """A residual block of two 3x3 convolutions; `number` counts from 1."""
        g, name = self.g, f"decoder.{number}"
        context = self.global_context(y, name, part.global_context)
        z = g.relu(self.apply(g.convolution(f"{name}.first", part.first, y), number, context))
        return g.add(y, g.convolution(f"{name}.second", part.second, z))

    def separable(self, y: str, number: int, part: Separable) -> str:
        """A residual block of a depthwise convolution and two 1x1 convolutions."""
        g, name = self.g, f"decoder.{number}"
        context = self.global_context(y, name, part.global_context)
        z = self.apply(g.convolution(f"{name}.depthwise", part.depthwise, y), number, context)
        return g.add(y, g.convolution(f"{name}.project", part.project, g.relu(g.convolution(f"{name}.expand", part.expand, z))))


def decode(g: Graph, decoder: Decoder, net: Backbone, latent: str, step: str) -> str:
    """Latent and step to split features by way of the sketch."""
    levels = Modulation(g, decoder.level, len(decoder.before) + len(decoder.after), decoder.width, step)
    y = g.relu(levels.apply(g.convolution("decoder.enter", decoder.enter, latent), 0))
    for index, part in enumerate(decoder.before):
        y = levels.dense(y, index + 1, part)
    if decoder.attention is not None:
        y = attend(g, "decoder.attention", decoder.attention, y)
    sketch = g.add(g.convolution("decoder.sketch", decoder.sketch, y), g.convolution("decoder.shortcut", decoder.shortcut, latent))
    features = front(g, net, g.node("DepthToSpace", [sketch], blocksize=STRIDE, mode="CRD"))
    y = g.add(y, g.convolution("decoder.seen", decoder.seen, features))
    for index, part in enumerate(decoder.after):
        y = levels.dense(y, len(decoder.before) + index + 1, part)
    return g.add(g.convolution("decoder.leave", decoder.leave, y), features)


def decode_directly(g: Graph, decoder: DirectDecoder, latent: str, step: str) -> str:
    """Latent and step to split features without a sketch."""
    levels = Modulation(g, decoder.level, len(decoder.blocks), decoder.width, step)
    y = g.relu(levels.apply(g.convolution("decoder.enter", decoder.enter, latent), 0))
    for index, part in enumerate(decoder.blocks):
        y = levels.separable(y, index + 1, part) if isinstance(part, Separable) else levels.dense(y, index + 1, part)
    y = g.add(g.convolution("decoder.leave", decoder.leave, y), g.convolution("decoder.shortcut", decoder.shortcut, latent))
    for index, part in enumerate(decoder.finish):
        y = block(g, f"decoder.finish{index}", part, y)
    return y


def segment(g: Graph, net: Segmenter, split: str) -> str:
    """Split features to class logits [N,11,8h,8w]."""
    outputs = groups(g, net.groups, backbone.SPLIT_GROUP + 1, split)
    return fuse(g, net, split, outputs[1], outputs[3])


def fuse(g: Graph, net: Segmenter, split: str, stride16: str, stride32: str) -> str:
    """Features of three strides to class logits [N,11,8h,8w]."""
    f: Fusion = net.fusion

    def conv(name: str, x: str) -> str:
        return g.convolution(f"fusion.{name}", getattr(f, name), x)

    def residual(name: str, x: str) -> str:
        return g.add(x, g.relu(conv(name, x)))

    pooled = conv("context", g.node("GlobalAveragePool", [stride32]))
    x = g.relu(g.add(conv("from32", stride32), pooled))
    x = residual("mix16", g.relu(g.add(conv("from16", stride16), resize(g, x, stride16))))
    x = g.relu(g.add(conv("from8", split), resize(g, conv("to8", x), split)))
    x = conv("score", residual("last8", residual("mix8", x)))
    x = g.node("DepthToSpace", [x], blocksize=2, mode="CRD")
    scales = g.constant("up.scales", np.array([1, 1, 4, 4], np.float32))
    return g.node("Resize", [x, "", scales], output="mask", mode="linear", coordinate_transformation_mode="half_pixel")


def resize(g: Graph, x: str, like: str) -> str:
    """`x` interpolated bilinearly to the height and width of `like`."""
    start, middle, end = (g.constant(f"at{n}", np.array([n], np.int64)) for n in (0, 2, 4))
    batch = g.node("Slice", [g.node("Shape", [x]), start, middle])
    size = g.node("Slice", [g.node("Shape", [like]), middle, end])
    sizes = g.node("Concat", [batch, size], axis=0)
    return g.node("Resize", [x, "", "", sizes], mode="linear", coordinate_transformation_mode="half_pixel")


def tail(path: Path, decoder: Decoder | DirectDecoder, net: Backbone, finish, output: tuple[str, list]) -> None:
    """Write a tail: the decoder and `finish(graph, split)`, with the inputs of models/BUNDLE.md, section 5."""
    g = Graph()
    direct = isinstance(decoder, DirectDecoder)
    finish(g, decode_directly(g, decoder, "latent", "step") if direct else decode(g, decoder, net, "latent", "step"))
    channels = decoder.enter.in_channels
    inputs = [value("latent", FLOAT, ["n", channels, "h", "w"]), value("step", FLOAT, ["n"])]
    g.save(path, inputs, [value(output[0], FLOAT, output[1])])


def reference(path: Path, net: Backbone, finish, output: tuple[str, list]) -> None:
    """Write an unsplit network: the front and `finish(graph, split)`, input u8 [N,H,W,3]."""
    g = Graph()
    finish(g, front(g, net, pixels(g, "image")))
    g.save(path, [value("image", BYTE, ["n", "height", "width", 3])], [value(output[0], FLOAT, output[1])])


def head(path: Path, net: IntHead, latent: int) -> None:
    """Write head.onnx: a Transpose and one QLinearConv per layer; the output is s8 with zero point 0."""
    g = Graph()
    x = g.node("Transpose", ["image"], perm=[0, 3, 1, 2])
    zero = IMAGE_ZERO
    for index, layer in enumerate(net.layers):
        last = index == len(net.layers) - 1
        y_zero = np.int8(0) if last else np.uint8(0)
        named = {
            "x_scale": layer.x_scale,
            "x_zero": np.uint8(zero),
            "weight": layer.weight,
            "w_scale": layer.weight_scale,
            "w_zero": np.zeros(len(layer.weight_scale), np.int8),
            "y_scale": layer.y_scale,
            "y_zero": y_zero,
            "bias": layer.bias,
        }
        inputs = [x, *(g.constant(f"layer{index}.{key}", np.asarray(v)) for key, v in named.items())]
        k = layer.weight.shape[2]
        x = g.node(
            "QLinearConv",
            inputs,
            f"layer{index}",
            "latent" if last else None,
            group=layer.group,
            kernel_shape=[k, k],
            strides=[layer.stride] * 2,
            pads=[layer.pad] * 4,
        )
        zero = 0
    g.save(
        path,
        [value("image", BYTE, [1, "height", "width", 3])],
        [value("latent", TensorProto.INT8, [1, latent, "rows", "columns"])],
    )
