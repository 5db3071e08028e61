"""Post-training quantisation of a whole EfficientNet-Lite: u8 activations, i8 weights, exact integers in between.

Nothing is trained. Two things make eight bits enough:

* Every channel has its own step. ONNX gives a tensor one scale, but a channel's share of it can go into the weights on
  either side: the steps of what a depthwise or pointwise layer reads are multiplied into its weights, the steps of what
  it writes are divided out of its multipliers. Tensors that a residual adds up share their channels' proportions.
* Rounding knows its input. Weights first move to where they answer best to what the layer really gets, errors of the
  layers before it included (least squares against the float layer, as in GPTAQ, arXiv 2504.02692). Then they are rounded
  one at a time, each making up for the errors of those before it in the metric of that input (optimal brain
  quantisation in the form of GPTQ, arXiv 2210.17323). The bias takes the mean error that is left.

Ranges come from many photos, because deep channels answer to few things; rounding and biases from some of them.
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

MIDDLE = 128  # zero point of tensors that have both signs
SAMPLES = 64  # positions of each photo that rounding looks at
CLIPS = np.linspace(0.5, 1.0, 26)  # of an output's largest weight, tried
FEW = 0.02  # share of photos that may have values beyond the range of a linear output
LEAST = 0.3  # of the median range: the least that any channel is given
DAMP = 0.05  # of the mean square of a layer's inputs, added to each when weights are rounded
BATCH = 8
BIAS_MAX = 1 << 26  # of a layer whose weights are next to nothing


@dataclass
class Grid:
    """What a u8 tensor stands for: real = step[c] * (q - zero[c]); the stored zero point is `stored`."""

    step: np.ndarray  # f64 [C]
    zero: np.ndarray  # f64 [C], need not be whole
    stored: int
    scale: float  # of the tensor, as ONNX has it; step[c] over it is in the weights


def tensors(net: Backbone, pixels: Tensor):
    """Every float tensor of the network in order, by the name of the node that makes it; pixels f32 [N,3,H,W]."""
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
    """Least and largest value of every channel of every tensor, photo by photo."""

    def __init__(self, net: Backbone, batches):
        lows, highs = {}, {}
        for pixels in batches:
            for name, x in tensors(net, torch.from_numpy(pixels).permute(0, 3, 1, 2).float()):
                lows.setdefault(name, []).append(x.amin((2, 3)))
                highs.setdefault(name, []).append(x.amax((2, 3)))
        self.low = {name: torch.cat(parts).double().numpy() for name, parts in lows.items()}
        self.high = {name: torch.cat(parts).double().numpy() for name, parts in highs.items()}

    def top(self, name: str) -> np.ndarray:
        """The largest values of what a ReLU6 leaves: what layers behind it subtract must not be clipped."""
        top = self.high[name].max(0)
        return np.maximum(top, LEAST * np.median(top))

    def ends(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The values of a linear layer's output, without what few photos have: long tails would cost everyone else."""
        return np.quantile(self.low[name], FEW, 0), np.quantile(self.high[name], 1 - FEW, 0)

    def centre(self, name: str) -> np.ndarray:
        low, high = self.ends(name)
        return (low + high) / 2

    def half(self, name: str, centre: np.ndarray) -> np.ndarray:
        """How far values go from the centre."""
        low, high = self.ends(name)
        half = np.maximum(high - centre, centre - low)
        return np.maximum(half, LEAST * np.median(half))


class Calibration:
    """Walks the network layer by layer with the photos' float and quantised activations side by side."""

    def __init__(self, net: Backbone, ranges: Ranges, pixels: np.ndarray, seed: int):
        self.net, self.ranges, self.rng = net, ranges, np.random.default_rng(seed)
        image = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        self.real = backbone.normalise(image.float())
        self.stored = image
        image_step = np.full(3, float(IMAGE_SCALE))
        self.grid = Grid(image_step, np.full(3, float(IMAGE_ZERO)), IMAGE_ZERO, float(IMAGE_SCALE))

    def run(self) -> Network:
        net, nodes = self.net, []
        nodes.append(self.convolution("stem", net.stem, self.ranged("stem")))
        for index, group in enumerate(net.groups):
            name = f"group{index + 1}"
            plan = self.plan(name, group)
            for number, block in enumerate(group):
                self.block(nodes, f"{name}.{number}", block, plan)
        nodes.append(self.convolution("top", net.top, self.ranged("top")))
        nodes.append(self.pool())
        nodes.append(self.dense(net.classifier))
        return Network(nodes)

    def block(self, nodes: list, name: str, block: backbone.Block, plan: dict[str, Grid]) -> None:
        before = (self.real, self.stored, self.grid)
        if block.expand is not None:
            nodes.append(self.convolution(f"{name}.expand", block.expand, self.ranged(f"{name}.expand")))
        nodes.append(self.convolution(f"{name}.depthwise", block.depthwise, self.ranged(f"{name}.depthwise")))
        nodes.append(self.convolution(f"{name}.project", block.project, plan[f"{name}.project"]))
        if block.residual:
            nodes.append(self.add(f"{name}.add", before, plan[f"{name}.add"]))

    # Grids

    def ranged(self, name: str) -> Grid:
        """The grid of what a ReLU6 leaves: every channel from 0 to its own top."""
        top = self.ranges.top(name)
        return Grid(top / 255, np.zeros(len(top)), 0, float(np.median(top)) / 255)

    def plan(self, name: str, group: nn.Sequential) -> dict[str, Grid]:
        """The grids of a group's outputs. What residuals add up must share the proportions of its channels, so a
        channel is given the largest share that it needs in any; the centre of a sum is the sum of the centres."""
        centres, halves, last = {}, {}, np.zeros(0)
        for number, block in enumerate(group):
            project, add = f"{name}.{number}.project", f"{name}.{number}.add"
            centres[project] = self.ranges.centre(project)
            if block.residual:
                centres[add] = last + centres[project]
            last = centres[add if block.residual else project]
        for tensor, centre in centres.items():
            halves[tensor] = self.ranges.half(tensor, centre)
        shares = [half / np.exp(np.log(half).mean()) for half in halves.values()]
        share = np.max(shares, 0)
        grids = {}
        for tensor, half in halves.items():
            scale = float((half / share).max()) / 127
            grids[tensor] = Grid(scale * share, MIDDLE - centres[tensor] / (scale * share), MIDDLE, scale)
        return grids

    # Layers

    def convolution(self, name: str, conv: backbone.Conv, grid: Grid) -> Conv:
        """Quantises one layer for the input that it really gets, and moves on behind it."""
        own, depthwise = self.grid, conv.groups > 1
        k, stride = conv.kernel_size[0], conv.stride[0]
        (top, bottom), (left, right) = (same_pad(edge, k, stride) for edge in self.real.shape[2:])
        seen = self.patches(k, stride, (left, right, top, bottom))
        sums = [
            F.conv2d(F.pad(x, (left, right, top, bottom)), conv.weight, conv.bias, stride, 0, 1, conv.groups)
            for x in self.real.split(BATCH)
        ]
        wanted = torch.stack([y.mean((0, 2, 3)) for y in sums]).double().mean(0).numpy()
        self.real = torch.cat([F.relu6(y) if conv.relu6 else y for y in sums])

        steps = own.step[:, None, None, None] if depthwise else own.step[None, :, None, None]
        weight = conv.weight.double().numpy() * steps
        bias = conv.bias.double().numpy()
        # What a zero point that is not the stored one adds; there is none where anything is padded.
        shift = own.stored - own.zero
        assert k == 1 or not shift.any(), name
        bias = bias + (weight.sum((2, 3)) * shift).sum(1) if k == 1 else bias
        offset = grid.step * (grid.zero - grid.stored)
        scale = np.maximum(plain_scales(weight), (np.abs(bias) + np.abs(offset)) / BIAS_MAX)
        whole = rounded(weight, scale, *seen, depthwise)

        def layer(bias: np.ndarray) -> Conv:
            return Conv(
                name,
                weight=whole.astype(np.int8),
                weight_scale=(scale / grid.step * (grid.scale / own.scale)).astype(np.float32),
                bias=np.rint((bias + offset) / scale).astype(np.int32),
                x_scale=np.float32(own.scale),
                x_zero=own.stored,
                y_scale=np.float32(grid.scale),
                y_zero=grid.stored,
                stride=stride,
                pads=(top, left, bottom, right),
                group=conv.groups,
            )

        # The mean of the sums over the photos, float against quantised, is the bias's to correct.
        first = layer(bias)
        sums = [first.accumulate(q, torch.float32) for q in self.stored.split(BATCH)]
        found = torch.stack([y.mean((0, 2, 3)) for y in sums]).double().mean(0).numpy() * scale - offset
        final = layer(bias + wanted - found)
        moved = torch.from_numpy((final.bias - first.bias).astype(np.float32))[:, None, None]
        self.stored = torch.cat([final.narrow(y + moved) for y in sums])
        self.grid = grid
        return final

    def patches(self, k: int, stride: int, pad: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """What some outputs see and what they should see, in steps: f32 [C, samples, k, k] each, their means taken away."""
        stored = self.stored.float() - self.grid.stored
        step, zero = (torch.from_numpy(part).float()[:, None, None] for part in (self.grid.step, self.grid.zero))
        wanted = self.real / step + (zero - self.grid.stored)
        found = []
        views = [F.pad(x, pad).unfold(2, k, stride).unfold(3, k, stride) for x in (stored, wanted)]
        height, width = views[0].shape[2:4]
        for photo in range(len(stored)):
            places = np.sort(self.rng.choice(height * width, min(SAMPLES, height * width), replace=False))
            rows, columns = np.unravel_index(places, (height, width))
            found.append([view[photo][:, rows, columns] for view in views])
        seen, wanted = (torch.cat(parts, 1).numpy() for parts in zip(*found, strict=True))
        return seen - seen.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True)

    def add(self, name: str, before: tuple[Tensor, Tensor, Grid], grid: Grid) -> Add:
        real, stored, a = before
        b = self.grid
        node = Add(name, np.float32(a.scale), a.stored, np.float32(b.scale), b.stored, np.float32(grid.scale), grid.stored)
        self.real, self.stored, self.grid = self.real + real, node(stored, self.stored), grid
        return node

    def pool(self) -> Pool:
        """The mean per channel keeps the channels' proportions; its own range is a share of theirs."""
        share = self.grid.step / self.grid.scale
        scale = float((self.ranges.top("pool") / share).max()) / 255
        node = Pool("pool", np.float32(self.grid.scale), 0, np.float32(scale), 0)
        self.real, self.stored = self.real.mean((2, 3), keepdim=True), node(self.stored)
        self.grid = Grid(share * scale, np.zeros(len(share)), 0, scale)
        return node

    def dense(self, linear: nn.Linear) -> Dense:
        own = self.grid
        weight = linear.weight.double().numpy() * own.step[None]
        inputs = self.stored[:, :, 0, 0].numpy().astype(np.float64).T
        scale = plain_scales(weight)
        # As many photos as there are would not tell how to round so many inputs.
        whole = np.clip(np.rint(weight / scale[:, None]), -127, 127)
        bias = linear.bias.double().numpy()
        wanted = (linear.weight.double() @ self.real[:, :, 0, 0].double().T + linear.bias.double()[:, None]).mean(1).numpy()
        error = wanted - ((whole * scale[:, None]) @ inputs.mean(1) + bias)
        return Dense(
            "classifier",
            weight=whole.astype(np.int8),
            weight_scale=(scale / own.scale).astype(np.float32),
            bias=np.rint((bias + error) / scale).astype(np.int32),
            x_scale=np.float32(own.scale),
            x_zero=0,
        )


def plain_scales(weight: np.ndarray) -> np.ndarray:
    """Per output, the step with the least squared error."""
    flat = weight.reshape(len(weight), -1)
    full = np.abs(flat).max(1)
    best, least = full.copy(), np.full(len(full), np.inf)
    for clip in CLIPS:
        step = np.maximum(full * clip, 1e-12)[:, None] / 127
        error = ((np.clip(np.rint(flat / step), -127, 127) * step - flat) ** 2).mean(1)
        best, least = np.where(error < least, full * clip, best), np.minimum(error, least)
    return np.maximum(best, 1e-12) / 127


def rounded(weight: np.ndarray, scale: np.ndarray, seen: np.ndarray, wanted: np.ndarray, depthwise: bool) -> np.ndarray:
    """Whole weights [out,in,k,k] of steps [out] that make of `seen` [C,M,k,k] what `weight` makes of `wanted`."""
    channels, count = seen.shape[:2]
    if depthwise:
        seen, wanted = (part.reshape(channels, count, -1) for part in (seen, wanted))
        left = weight.reshape(channels, 1, -1)
    else:
        seen, wanted = (part.transpose(1, 0, 2, 3).reshape(1, count, -1) for part in (seen, wanted))
        left = weight.reshape(1, len(weight), -1)
    gram = (seen.transpose(0, 2, 1) @ seen).astype(np.float64) / count
    missed = ((wanted - seen).transpose(0, 2, 1) @ seen).astype(np.float64) / count
    size = gram.shape[1]
    mean = np.trace(gram, axis1=1, axis2=2)[:, None, None] / size
    inverse = np.linalg.inv(gram + (DAMP * mean + 1e-6) * np.eye(size))
    left = left + left @ missed @ inverse
    upper = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    whole, scale = np.zeros_like(left), scale.reshape(left.shape[:2])
    for k in range(size):
        whole[..., k] = np.clip(np.rint(left[..., k] / scale), -127, 127)
        error = (left[..., k] - whole[..., k] * scale) / upper[:, k, k][:, None]
        left[..., k + 1 :] -= error[..., None] * upper[:, None, k, k + 1 :]
    return whole.reshape(weight.shape)
