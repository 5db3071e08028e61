"""A network quantised from input to logits: its exact integer arithmetic and its ONNX file (models/BUNDLE.md, section 9).

Sums are computed in f64, which holds all integers that occur here exactly; requantisation is the document's f32 arithmetic.
The runtime's kernels must give equal results.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

from . import graph
from .graph import BYTE, FLOAT, Graph


def requantise(value: Tensor, zero: int) -> Tensor:
    """clamp(round_half_even(value) + zero, 0, 255) of f32 values, as u8."""
    assert value.dtype == torch.float32
    return (torch.round(value) + zero).clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Conv:
    """A QLinearConv."""

    name: str
    weight: np.ndarray  # i8 [out, in/group, k, k]
    weight_scale: np.ndarray  # f32 [out]
    bias: np.ndarray  # i32 [out]
    x_scale: np.float32
    x_zero: int
    y_scale: np.float32
    y_zero: int
    stride: int
    pads: tuple[int, int, int, int]  # top, left, bottom, right
    group: int

    def accumulate(self, x: Tensor, kind: torch.dtype = torch.float64) -> Tensor:
        """Sums of activations u8 [N,C,H,W]: exact if `kind` is f64; f32 is faster and exact only for small sums."""
        top, left, bottom, right = self.pads
        centred = F.pad(x.to(kind) - self.x_zero, (left, right, top, bottom))
        weight, bias = (torch.from_numpy(part).to(kind) for part in (self.weight, self.bias))
        return F.conv2d(centred, weight, bias, self.stride, 0, 1, self.group)

    def narrow(self, acc: Tensor) -> Tensor:
        """Output u8 of the sums."""
        mult = (self.x_scale * self.weight_scale) / self.y_scale
        return requantise(acc.float() * torch.from_numpy(mult)[:, None, None], self.y_zero)

    def __call__(self, x: Tensor, kind: torch.dtype = torch.float64) -> Tensor:
        return self.narrow(self.accumulate(x, kind))

    def macs(self, x: Tensor) -> int:
        """Multiply-accumulates for an input of this size."""
        top, left, bottom, right = self.pads
        k = self.weight.shape[2]
        height = (x.shape[2] + top + bottom - k) // self.stride + 1
        return self.weight.size * height * ((x.shape[3] + left + right - k) // self.stride + 1)


@dataclass(frozen=True)
class Add:
    """A QLinearAdd of a block's input and its output."""

    name: str
    a_scale: np.float32
    a_zero: int
    b_scale: np.float32
    b_zero: int
    y_scale: np.float32
    y_zero: int

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        parts = [
            (x.float() - zero) * torch.tensor(scale / self.y_scale)
            for x, zero, scale in ((a, self.a_zero, self.a_scale), (b, self.b_zero, self.b_scale))
        ]
        return requantise(parts[0] + parts[1], self.y_zero)


@dataclass(frozen=True)
class Pool:
    """A QLinearGlobalAveragePool."""

    name: str
    x_scale: np.float32
    x_zero: int
    y_scale: np.float32
    y_zero: int

    def __call__(self, x: Tensor) -> Tensor:
        count = np.float32(x.shape[2] * x.shape[3])
        acc = (x.double() - self.x_zero).sum((2, 3), keepdim=True)
        return requantise(acc.float() * torch.tensor(self.x_scale / (self.y_scale * count)), self.y_zero)


@dataclass(frozen=True)
class Dense:
    """A QGemm with a float output: logits."""

    name: str
    weight: np.ndarray  # i8 [classes, in]
    weight_scale: np.ndarray  # f32 [classes]
    bias: np.ndarray  # i32 [classes]
    x_scale: np.float32
    x_zero: int

    def __call__(self, x: Tensor) -> Tensor:
        centred = x.flatten(1).double() - self.x_zero
        acc = centred @ torch.from_numpy(self.weight.astype(np.float64)).T + torch.from_numpy(self.bias.astype(np.float64))
        return acc.float() * torch.from_numpy(self.x_scale * self.weight_scale)


@dataclass(frozen=True)
class Network:
    """Nodes in order; the first operand of an `Add` is the input of its block's first convolution."""

    nodes: list

    def walk(self, pixels: np.ndarray, kind: torch.dtype = torch.float64):
        """Iterate over (node, input, output) for pixels u8 [N,H,W,3]; convolutions sum in `kind`."""
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        start, block = x, None
        for node in self.nodes:
            owner = node.name.rpartition(".")[0]
            if owner != block:
                start, block = x, owner
            y = node(start, x) if isinstance(node, Add) else node(x, kind) if isinstance(node, Conv) else node(x)
            yield node, x, y
            x = y

    @torch.inference_mode()
    def logits(self, pixels: np.ndarray, kind: torch.dtype = torch.float64) -> np.ndarray:
        """Logits f32 [N,classes] of pixels u8 [N,H,W,3]; exact if `kind` is f64."""
        *_, (_, _, y) = self.walk(pixels, kind)
        return y.numpy()

    @torch.inference_mode()
    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of one image."""
        count = 0
        for node, x, _ in self.walk(np.zeros((1, height, width, 3), np.uint8)):
            count += node.macs(x) if isinstance(node, Conv) else node.weight.size if isinstance(node, Dense) else 0
        return count

    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(node.weight.size + node.bias.size for node in self.nodes if isinstance(node, (Conv, Dense)))

    def save(self, path: Path, height: int, width: int) -> None:
        """Write the network as ONNX with quantised operators (QOperator format)."""
        g = Graph()
        x = g.node("Transpose", ["image"], perm=[0, 3, 1, 2])
        start, block = x, None
        for node in self.nodes:
            owner = node.name.rpartition(".")[0]
            if owner != block:
                start, block = x, owner
            x = WRITERS[type(node)](g, node, start, x)
        classes = len(self.nodes[-1].bias)
        g.save(path, [graph.value("image", BYTE, [1, height, width, 3])], [graph.value("logits", FLOAT, [1, classes])], contrib=True)


def constants(g: Graph, name: str, values: dict) -> list[str]:
    """Store values under the node's name; scalars have no dimension, as ONNX Runtime requires."""
    for key, value in values.items():
        g.stored[f"{name}.{key}"] = numpy_helper.from_array(np.asarray(value), f"{name}.{key}")
    return [f"{name}.{key}" for key in values]


def write_conv(g: Graph, node: Conv, _: str, x: str) -> str:
    """Append a QLinearConv."""
    named = {
        "x_scale": node.x_scale,
        "x_zero": np.uint8(node.x_zero),
        "weight": node.weight,
        "w_scale": node.weight_scale,
        "w_zero": np.zeros(len(node.weight_scale), np.int8),
        "y_scale": node.y_scale,
        "y_zero": np.uint8(node.y_zero),
        "bias": node.bias,
    }
    k = node.weight.shape[2]
    attributes = {"group": node.group, "kernel_shape": [k, k], "strides": [node.stride] * 2, "pads": list(node.pads)}
    return g.node("QLinearConv", [x, *constants(g, node.name, named)], node.name, **attributes)


def write_add(g: Graph, node: Add, start: str, x: str) -> str:
    """Append a QLinearAdd of the block's input `start` and `x`."""
    a = constants(g, node.name, {"a_scale": node.a_scale, "a_zero": np.uint8(node.a_zero)})
    b = constants(g, node.name, {"b_scale": node.b_scale, "b_zero": np.uint8(node.b_zero)})
    y = constants(g, node.name, {"y_scale": node.y_scale, "y_zero": np.uint8(node.y_zero)})
    return g.node("QLinearAdd", [start, *a, x, *b, *y], node.name, domain="com.microsoft")


def write_pool(g: Graph, node: Pool, _: str, x: str) -> str:
    """Append a QLinearGlobalAveragePool."""
    x_named = {"x_scale": node.x_scale, "x_zero": np.uint8(node.x_zero)}
    y_named = {"y_scale": node.y_scale, "y_zero": np.uint8(node.y_zero)}
    inputs = [x, *constants(g, node.name, x_named), *constants(g, node.name, y_named)]
    return g.node("QLinearGlobalAveragePool", inputs, node.name, domain="com.microsoft", channels_last=0)


def write_dense(g: Graph, node: Dense, _: str, x: str) -> str:
    """Append Flatten and QGemm."""
    named = {
        "x_scale": node.x_scale,
        "x_zero": np.uint8(node.x_zero),
        "weight": node.weight,
        "w_scale": node.weight_scale,
        "w_zero": np.zeros(len(node.weight_scale), np.int8),
        "bias": node.bias,
    }
    x = g.node("Flatten", [x], axis=1)
    return g.node("QGemm", [x, *constants(g, node.name, named)], node.name, "logits", domain="com.microsoft", transB=1)


WRITERS = {Conv: write_conv, Add: write_add, Pool: write_pool, Dense: write_dense}
