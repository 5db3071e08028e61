"""Post-training quantisation of an EfficientNet-Lite: u8 activations, i8 weights, exact integer arithmetic.

Nothing is trained. Two methods make eight bits sufficient:

* Every channel has its own step. ONNX gives a tensor one scale, but the ratio of a channel's step to it can be moved into
  the weights on both sides: the steps of a layer's input are multiplied into its weights, the steps of its output are
  divided out of its weight scales. The tensors that a residual connection adds have the same ratios.
* Rounding depends on the input. The weights are first changed to the least-squares fit of the float layer's output, given
  the quantised input that the layer really receives (GPTAQ, arXiv 2504.02692). Then they are rounded one after the other,
  and each rounding error is compensated by the weights that follow, in the metric of that input (GPTQ, arXiv 2210.17323).
  The bias is corrected by the remaining mean error.

Ranges are measured on many photos, because deep channels respond to few of them; rounding and biases use a part of these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import backbone
from .backbone import Backbone, same_pad
from .head import IMAGE_SCALE, IMAGE_ZERO
from .int8_network import Add, Conv, Dense, Network, Pool

SIGNED_ZERO = 128  # zero point of tensors with values of both signs
SAMPLES = 64  # positions of each photo that rounding uses
CLIPS = np.linspace(0.5, 1.0, 26)  # candidates for the largest representable weight, relative to the largest weight
OUTLIERS = 0.02  # share of photos whose values may exceed the range of a linear layer's output
MIN_RANGE = 0.3  # smallest range of a channel, relative to the median channel's
DAMPING = 0.05  # of the mean squared input, added to the diagonal when weights are rounded (as in GPTQ)
BATCH = 8
BIAS_MAX = 1 << 26  # largest bias, reached only by channels whose weights are nearly 0


@dataclass
class Grid:
    """The values of a u8 tensor: real = step[c] * (q - zero[c]); its zero point in ONNX is `stored`."""

    step: np.ndarray  # f64 [C]
    zero: np.ndarray  # f64 [C], not necessarily an integer
    stored: int
    scale: float  # of the tensor in ONNX; step[c] / scale is part of the weights


def tensors(net: Backbone, pixels: Tensor):
    """Iterate over (node name, output) of every float operation for pixels f32 [N,3,H,W]."""
    x = net.stem(backbone.normalise(pixels))
    yield "stem", x
    for index, group in enumerate(net.groups):
        for number, block in enumerate(group):
            name, y = f"group{index + 1}.{number}", x
            for part in ("expand", "depthwise", "project"):
                layer = getattr(block, part)
                if layer is not None:
                    y = layer(y)
                    yield f"{name}.{part}", y
            x = x + y if block.residual else y
            if block.residual:
                yield f"{name}.add", x
    x = net.top(x)
    yield "top", x
    yield "pool", x.mean((2, 3), keepdim=True)


class Ranges:
    """Smallest and largest value of every channel of every tensor, for each photo."""

    def __init__(self, net: Backbone, batches):
        lows, highs = {}, {}
        for pixels in batches:
            for name, x in tensors(net, torch.from_numpy(pixels).permute(0, 3, 1, 2).float()):
                lows.setdefault(name, []).append(x.amin((2, 3)))
                highs.setdefault(name, []).append(x.amax((2, 3)))
        self.low = {name: torch.cat(parts).double().numpy() for name, parts in lows.items()}
        self.high = {name: torch.cat(parts).double().numpy() for name, parts in highs.items()}

    def top(self, name: str) -> np.ndarray:
        """Upper ends f64 [C] of a ReLU6's output: the maxima, because later layers are sensitive to clipping."""
        top = self.high[name].max(0)
        return np.maximum(top, MIN_RANGE * np.median(top))

    def ends(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends f64 [C] of a linear layer's output, without the extremes of few photos, which would coarsen the step."""
        return np.quantile(self.low[name], OUTLIERS, 0), np.quantile(self.high[name], 1 - OUTLIERS, 0)

    def centre(self, name: str) -> np.ndarray:
        """Middle f64 [C] between the ends."""
        low, high = self.ends(name)
        return (low + high) / 2

    def half(self, name: str, centre: np.ndarray) -> np.ndarray:
        """Largest distance f64 [C] of the ends from a centre."""
        low, high = self.ends(name)
        half = np.maximum(high - centre, centre - low)
        return np.maximum(half, MIN_RANGE * np.median(half))


class Calibration:
    """Quantises the network layer by layer, with the photos' float and quantised activations in parallel."""

    def __init__(self, net: Backbone, ranges: Ranges, pixels: np.ndarray, seed: int):
        self.net, self.ranges, self.rng = net, ranges, np.random.default_rng(seed)
        image = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        self.real = backbone.normalise(image.float())
        self.stored = image
        image_step = np.full(3, float(IMAGE_SCALE))
        self.grid = Grid(image_step, np.full(3, float(IMAGE_ZERO)), IMAGE_ZERO, float(IMAGE_SCALE))

    def run(self) -> Network:
        """The quantised network."""
        net, nodes = self.net, []
        nodes.append(self.convolution("stem", net.stem, self.relu_grid("stem")))
        for index, group in enumerate(net.groups):
            name = f"group{index + 1}"
            plan = self.plan(name, group)
            for number, block in enumerate(group):
                self.block(nodes, f"{name}.{number}", block, plan)
        nodes.append(self.convolution("top", net.top, self.relu_grid("top")))
        nodes.append(self.pool())
        nodes.append(self.dense(net.classifier))
        return Network(nodes)

    def block(self, nodes: list, name: str, block: backbone.Block, plan: dict[str, Grid]) -> None:
        """Quantise the layers of one block and append them to `nodes`."""
        before = (self.real, self.stored, self.grid)
        if block.expand is not None:
            nodes.append(self.convolution(f"{name}.expand", block.expand, self.relu_grid(f"{name}.expand")))
        nodes.append(self.convolution(f"{name}.depthwise", block.depthwise, self.relu_grid(f"{name}.depthwise")))
        nodes.append(self.convolution(f"{name}.project", block.project, plan[f"{name}.project"]))
        if block.residual:
            nodes.append(self.add(f"{name}.add", before, plan[f"{name}.add"]))

    # Grids

    def relu_grid(self, name: str) -> Grid:
        """The grid of a ReLU6's output: every channel from 0 to its maximum."""
        top = self.ranges.top(name)
        return Grid(top / 255, np.zeros(len(top)), 0, float(np.median(top)) / 255)

    def plan(self, name: str, group: nn.Sequential) -> dict[str, Grid]:
        """The grids of the linear outputs of a group.

        Tensors that are added need the same ratios of channel steps, so every channel gets the largest relative range that it
        has in any of them; the centre of a sum is the sum of the centres.
        """
        centres, halves, last = {}, {}, np.zeros(0)
        for number, block in enumerate(group):
            project, add = f"{name}.{number}.project", f"{name}.{number}.add"
            centres[project] = self.ranges.centre(project)
            if block.residual:
                centres[add] = last + centres[project]
            last = centres[add if block.residual else project]
        for tensor, centre in centres.items():
            halves[tensor] = self.ranges.half(tensor, centre)
        ratios = [half / np.exp(np.log(half).mean()) for half in halves.values()]
        ratio = np.max(ratios, 0)
        grids = {}
        for tensor, half in halves.items():
            scale = float((half / ratio).max()) / 127
            grids[tensor] = Grid(scale * ratio, SIGNED_ZERO - centres[tensor] / (scale * ratio), SIGNED_ZERO, scale)
        return grids

    # Layers

    def convolution(self, name: str, conv: backbone.Conv, grid: Grid) -> Conv:
        """Quantise one layer given its quantised input, and advance the activations to its output."""
        source, depthwise = self.grid, conv.groups > 1
        k, stride = conv.kernel_size[0], conv.stride[0]
        (top, bottom), (left, right) = (same_pad(edge, k, stride) for edge in self.real.shape[2:])
        samples = self.patches(k, stride, (left, right, top, bottom))
        sums = [
            F.conv2d(F.pad(x, (left, right, top, bottom)), conv.weight, conv.bias, stride, 0, 1, conv.groups)
            for x in self.real.split(BATCH)
        ]
        expected = torch.stack([y.mean((0, 2, 3)) for y in sums]).double().mean(0).numpy()
        self.real = torch.cat([F.relu6(y) if conv.relu6 else y for y in sums])

        steps = source.step[:, None, None, None] if depthwise else source.step[None, :, None, None]
        weight = conv.weight.double().numpy() * steps
        bias = conv.bias.double().numpy()
        # The difference between the true and the stored zero point is a constant of each output, unless the input is padded;
        # padded layers read a ReLU6's output, where the two are equal.
        shift = source.stored - source.zero
        assert k == 1 or not shift.any(), name
        bias = bias + (weight.sum((2, 3)) * shift).sum(1) if k == 1 else bias
        offset = grid.step * (grid.zero - grid.stored)
        scale = np.maximum(weight_scales(weight), (np.abs(bias) + np.abs(offset)) / BIAS_MAX)
        integers = round_weights(weight, scale, *samples, depthwise)

        def layer(bias: np.ndarray) -> Conv:
            return Conv(
                name,
                weight=integers.astype(np.int8),
                weight_scale=(scale / grid.step * (grid.scale / source.scale)).astype(np.float32),
                bias=np.rint((bias + offset) / scale).astype(np.int32),
                x_scale=np.float32(source.scale),
                x_zero=source.stored,
                y_scale=np.float32(grid.scale),
                y_zero=grid.stored,
                stride=stride,
                pads=(top, left, bottom, right),
                group=conv.groups,
            )

        # The bias corrects the difference of the mean outputs, float minus quantised.
        first = layer(bias)
        sums = [first.accumulate(q, torch.float32) for q in self.stored.split(BATCH)]
        found = torch.stack([y.mean((0, 2, 3)) for y in sums]).double().mean(0).numpy() * scale - offset
        final = layer(bias + expected - found)
        moved = torch.from_numpy((final.bias - first.bias).astype(np.float32))[:, None, None]
        self.stored = torch.cat([final.narrow(y + moved) for y in sums])
        self.grid = grid
        return final

    def patches(self, k: int, stride: int, pad: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Quantised and float inputs of sampled outputs in steps, both f32 [C, samples, k, k] with mean 0."""
        stored = self.stored.float() - self.grid.stored
        step, zero = (torch.from_numpy(part).float()[:, None, None] for part in (self.grid.step, self.grid.zero))
        expected = self.real / step + (zero - self.grid.stored)
        found = []
        views = [F.pad(x, pad).unfold(2, k, stride).unfold(3, k, stride) for x in (stored, expected)]
        height, width = views[0].shape[2:4]
        for photo in range(len(stored)):
            places = np.sort(self.rng.choice(height * width, min(SAMPLES, height * width), replace=False))
            rows, columns = np.unravel_index(places, (height, width))
            found.append([view[photo][:, rows, columns] for view in views])
        quantised, exact = (torch.cat(parts, 1).numpy() for parts in zip(*found, strict=True))
        return quantised - quantised.mean(1, keepdims=True), exact - exact.mean(1, keepdims=True)

    def add(self, name: str, before: tuple[Tensor, Tensor, Grid], grid: Grid) -> Add:
        """Add the block's input `before` to its output."""
        real, stored, a = before
        b = self.grid
        node = Add(name, np.float32(a.scale), a.stored, np.float32(b.scale), b.stored, np.float32(grid.scale), grid.stored)
        self.real, self.stored, self.grid = self.real + real, node(stored, self.stored), grid
        return node

    def pool(self) -> Pool:
        """The mean of each channel keeps the ratios of the channels' steps; its scale is fitted to its own range."""
        share = self.grid.step / self.grid.scale
        scale = float((self.ranges.top("pool") / share).max()) / 255
        node = Pool("pool", np.float32(self.grid.scale), 0, np.float32(scale), 0)
        self.real, self.stored = self.real.mean((2, 3), keepdim=True), node(self.stored)
        self.grid = Grid(share * scale, np.zeros(len(share)), 0, scale)
        return node

    def dense(self, linear: nn.Linear) -> Dense:
        """Quantise the classifier, with weights rounded to nearest and corrected biases."""
        source = self.grid
        weight = linear.weight.double().numpy() * source.step[None]
        inputs = self.stored[:, :, 0, 0].numpy().astype(np.float64).T
        scale = weight_scales(weight)
        # The photos are fewer than the inputs, too few to choose the rounding by.
        integers = np.clip(np.rint(weight / scale[:, None]), -127, 127)
        bias = linear.bias.double().numpy()
        expected = (linear.weight.double() @ self.real[:, :, 0, 0].double().T + linear.bias.double()[:, None]).mean(1).numpy()
        error = expected - ((integers * scale[:, None]) @ inputs.mean(1) + bias)
        return Dense(
            "classifier",
            weight=integers.astype(np.int8),
            weight_scale=(scale / source.scale).astype(np.float32),
            bias=np.rint((bias + error) / scale).astype(np.int32),
            x_scale=np.float32(source.scale),
            x_zero=0,
        )


def weight_scales(weight: np.ndarray) -> np.ndarray:
    """For each output f64 [out], the weight scale with the smallest squared rounding error."""
    flat = weight.reshape(len(weight), -1)
    full = np.abs(flat).max(1)
    best, least = full.copy(), np.full(len(full), np.inf)
    for clip in CLIPS:
        step = np.maximum(full * clip, 1e-12)[:, None] / 127
        error = ((np.clip(np.rint(flat / step), -127, 127) * step - flat) ** 2).mean(1)
        best, least = np.where(error < least, full * clip, best), np.minimum(error, least)
    return np.maximum(best, 1e-12) / 127


def round_weights(weight: np.ndarray, scale: np.ndarray, quantised: np.ndarray, exact: np.ndarray, depthwise: bool) -> np.ndarray:
    """Integer weights [out,in,k,k] with scales [out] whose output for `quantised` [C,M,k,k] is that of `weight` for `exact`."""
    channels, count = quantised.shape[:2]
    if depthwise:
        quantised, exact = (part.reshape(channels, count, -1) for part in (quantised, exact))
        remaining = weight.reshape(channels, 1, -1)
    else:
        quantised, exact = (part.transpose(1, 0, 2, 3).reshape(1, count, -1) for part in (quantised, exact))
        remaining = weight.reshape(1, len(weight), -1)
    gram = (quantised.transpose(0, 2, 1) @ quantised).astype(np.float64) / count
    cross = ((exact - quantised).transpose(0, 2, 1) @ quantised).astype(np.float64) / count
    size = gram.shape[1]
    mean = np.trace(gram, axis1=1, axis2=2)[:, None, None] / size
    inverse = np.linalg.inv(gram + (DAMPING * mean + 1e-6) * np.eye(size))
    remaining = remaining + remaining @ cross @ inverse
    upper = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    integers, scale = np.zeros_like(remaining), scale.reshape(remaining.shape[:2])
    for k in range(size):
        integers[..., k] = np.clip(np.rint(remaining[..., k] / scale), -127, 127)
        error = (remaining[..., k] - integers[..., k] * scale) / upper[:, k, k][:, None]
        remaining[..., k + 1 :] -= error[..., None] * upper[:, None, k, k + 1 :]
    return integers.reshape(weight.shape)
