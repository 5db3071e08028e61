"""The head, the network on the device: patchify 8x8, depthwise 3x3, two 1x1, trained on its int8 grid (QAT).

    pixels u8 [N,3,H,W] -> conv 8x8/8 -> ReLU -> depthwise 3x3 -> ReLU -> 1x1 -> ReLU -> 1x1 -> latent [N,C,H/8,W/8]

The latent is in symbols of level 0; level l transmits round(latent * gain[l]).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE_SCALE, IMAGE_ZERO = np.float32(1 / 128), 127  # (x - 127) / 128
STRIDE = 8
COVERAGE = 0.9999  # share of a channel's values inside its range after equalisation


def straight_through(x: Tensor, y: Tensor) -> Tensor:
    """The value of `y` with the gradient of `x` (straight-through estimator)."""
    return x + (y - x).detach()


def fake_weight(w: Tensor) -> Tensor:
    """Weights rounded to the int8 grid of their output channel, with a straight-through gradient."""
    scale = w.detach().abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-8) / 127
    return straight_through(w, torch.round(w / scale) * scale)


class Layer(nn.Module):
    """A convolution with int8 weights; all but the last layer end in a ReLU whose output is on a u8 grid."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, last: bool = False):
        super().__init__()
        pad = 0 if kernel == stride else kernel // 2
        self.conv = nn.Conv2d(cin, cout, kernel, stride, pad, groups=groups)
        self.last = last
        self.quantisation_aware = True  # whether training rounds too; evaluation always does
        self.register_buffer("peak", torch.zeros(()))  # largest activation, moving average over batches

    def forward(self, x: Tensor) -> Tensor:
        c = self.conv
        rounds = self.quantisation_aware or not self.training
        y = F.conv2d(x, fake_weight(c.weight) if rounds else c.weight, c.bias, c.stride, c.padding, 1, c.groups)
        if self.last:
            return y
        y = F.relu(y)
        if self.training:
            top = y.detach().amax()
            self.peak.copy_(torch.where(self.peak > 0, self.peak * 0.98 + top * 0.02, top))
        if not rounds:
            return y
        scale = self.peak / 255
        return straight_through(y.clamp(max=self.peak), torch.round(y / scale).clamp(max=255) * scale)


class Head(nn.Module):
    """The default layers, or the convolutions that `layers` lists (see `chain`), trained on the int8 grid if `quantisation_aware`."""

    def __init__(self, width: int, latent: int, stride: int = STRIDE, layers: list[dict] | None = None, quantisation_aware: bool = True):
        super().__init__()
        self.stride, self.listed = stride, layers is not None
        self.layers = nn.ModuleList(
            chain(layers, latent, stride)
            if layers
            else [
                Layer(3, width, stride, stride),
                Layer(width, width, 3, groups=width),
                Layer(width, width, 1),
                Layer(width, latent, 1, last=True),
            ]
        )
        for layer in self.layers:
            layer.quantisation_aware = quantisation_aware

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels - IMAGE_ZERO) * float(IMAGE_SCALE)
        for layer in self.layers:
            x = layer(x)
        return x

    def initialise(self, pixels: Tensor, metric: Tensor, bits: float) -> None:
        """Set the weights to the optimal linear transform of the patches of `pixels` [N,3,H,W] for a quadratic loss.

        `metric` [192,192] defines the loss of a patch's error e as e^T metric e. The axes are the principal components in
        that metric, so one quantiser step suits all of them; it is chosen so that a symbol takes `bits` on average.
        Component i is in channels 2i (positive part) and 2i+1 (negative part). A head with listed layers keeps its random
        weights, scaled so that the symbols have a standard deviation of two.
        """
        if self.listed:
            return self.scale_output(pixels)
        patches = F.unfold((pixels - IMAGE_ZERO) * float(IMAGE_SCALE), self.stride, stride=self.stride)
        patches = patches.transpose(1, 2).reshape(-1, patches.shape[1]).double()
        mean = patches.mean(0)
        values, vectors = torch.linalg.eigh(metric.double())
        root = vectors * values.clamp_min(0).sqrt() @ vectors.T
        values, vectors = torch.linalg.eigh(root @ torch.cov(patches.T, correction=0) @ root)
        first, depthwise, point, last = (layer.conv for layer in self.layers)
        pairs, width = first.out_channels // 2, first.out_channels
        axes = vectors.flip(1)[:, :pairs].T @ root
        step = step_for((patches - mean) @ axes[: last.out_channels].T, bits)
        spread = values.flip(0)[:pairs].clamp_min(1e-9) ** 0.25
        rows = (axes / spread[:, None]).float()
        with torch.no_grad():
            first.weight.copy_(torch.stack([rows, -rows], 1).reshape(first.weight.shape))
            first.bias.copy_(-first.weight.flatten(1) @ mean.float())
            depthwise.weight.mul_(0.1)[:, 0, 1, 1] += 1
            depthwise.bias.zero_()
            point.weight.mul_(0.1)[:, :, 0, 0] += torch.eye(width)
            point.bias.zero_()
            last.weight.mul_(0.1)
            for i in range(last.out_channels):
                last.weight[i, 2 * i, 0, 0] += spread[i] / step
                last.weight[i, 2 * i + 1, 0, 0] -= spread[i] / step
            last.bias.zero_()

    @torch.no_grad()
    def scale_output(self, pixels: Tensor) -> None:
        """Scale the last layer to a standard deviation of two symbols on `pixels`."""
        last = self.layers[-1].conv
        scale = 2 / self.train()(pixels).std().clamp_min(1e-6)
        last.weight.mul_(scale)
        last.bias.mul_(scale)

    @torch.no_grad()
    def equalise_ranges(self, pixels: Tensor) -> None:
        """Scale every inner channel to the full u8 range on `pixels` [N,3,H,W]; the function before rounding is unchanged.

        A layer has one step for all channels, set in training by the largest value of any channel, so most channels use a
        third of the range. The input of a ReLU can be scaled per channel if the weights behind it are divided by the same
        factor (cross-layer equalisation, arXiv 1906.04721).
        """
        x = (pixels - IMAGE_ZERO) * float(IMAGE_SCALE)
        for layer, behind in zip(self.layers, self.layers[1:], strict=False):
            c = layer.conv
            x = F.relu(F.conv2d(x, c.weight, c.bias, c.stride, c.padding, 1, c.groups))
            values = x.transpose(0, 1).flatten(1)
            top = values.kthvalue(max(1, round(COVERAGE * values.shape[1])), 1).values
            scale = torch.where(top > 0, top, torch.ones_like(top))
            c.weight.div_(scale[:, None, None, None])
            c.bias.div_(scale)
            shape = (-1, 1, 1, 1) if behind.conv.groups > 1 else (1, -1, 1, 1)
            behind.conv.weight.mul_(scale.view(shape))
            layer.peak.fill_(1.0)
            x = x / scale[:, None, None]

    def parameters_count(self) -> int:
        """Number of weights and biases."""
        return sum(p.numel() for p in self.parameters())

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of one image."""
        total, area = 0, height * width
        for layer in self.layers:
            area //= layer.conv.stride[0] ** 2
            total += layer.conv.weight.numel() * area
        return total


def chain(layers: list[dict], latent: int, stride: int) -> list[Layer]:
    """Layers from a config's list of {channels, kernel, stride = 1, depthwise = false, activation = "relu"}.

    The last one has the latent's channels and activation "none". Exits with the name of a layer that the integer head cannot
    compute exactly.
    """
    made, cin, reached = [], 3, 1
    for index, row in enumerate(layers):
        name, last = f"head.layers[{index}]", index == len(layers) - 1
        kernel, step, activation = row["kernel"], row.get("stride", 1), row.get("activation", "relu")
        name += f" ({'depthwise' if row.get('depthwise') else 'conv'} {kernel}x{kernel}/{step} {activation})"
        if activation != ("none" if last else "relu"):
            expected = "the last layer has no activation: none" if last else "only relu is a clamp at the zero point"
            raise SystemExit(f"{name} cannot be quantised exactly: {expected}")
        if kernel != step and kernel % 2 == 0:
            raise SystemExit(
                f"{name} cannot be quantised exactly: an even kernel needs uneven padding; make it odd or as wide as its stride"
            )
        cout = row["channels"]
        if row.get("depthwise") and cout != cin:
            raise SystemExit(f"{name} has {cout} channels behind {cin}: a depthwise layer keeps their number")
        if unknown := set(row) - {"kernel", "stride", "channels", "depthwise", "activation"}:
            raise SystemExit(f"{name} has {', '.join(sorted(unknown))}: not an operation of the integer head")
        made.append(Layer(cin, cout, kernel, step, cin if row.get("depthwise") else 1, last))
        cin, reached = cout, reached * step
    if cin != latent or reached != stride:
        raise SystemExit(f"head.layers end with {cin} channels at stride {reached}: the config says {latent} at {stride}")
    return made


def step_for(values: Tensor, bits: float) -> float:
    """Quantiser step at which values [M,C] have an empirical entropy of `bits` per symbol, by bisection."""
    low, high = 1e-6, 1e3
    for _ in range(40):
        step = (low * high) ** 0.5
        mean = sum(entropy(column) for column in torch.round(values / step).T) / values.shape[1]
        low, high = (step, high) if mean > bits else (low, step)
    return step


def entropy(symbols: Tensor) -> float:
    """Empirical entropy in bits per symbol."""
    _, counts = symbols.unique(return_counts=True)
    probability = counts / counts.sum()
    return float(-(probability * probability.log2()).sum())


@dataclass(frozen=True)
class IntLayer:
    """One QLinearConv with its exact arithmetic (models/BUNDLE.md, section 4)."""

    weight: np.ndarray  # i8 [out, in/group, k, k]
    weight_scale: np.ndarray  # f32 [out]
    bias: np.ndarray  # i32 [out], in units of x_scale * weight_scale
    x_scale: np.float32
    x_zero: int
    y_scale: np.float32
    stride: int
    pad: int
    group: int

    @property
    def mult(self) -> np.ndarray:
        """Multipliers f32 [out] of the accumulators, from one product and one quotient."""
        return (self.x_scale * self.weight_scale) / self.y_scale

    def accumulate(self, x: np.ndarray) -> np.ndarray:
        """Exact sums i32 [out,H',W'] of activations u8 [C,H,W]."""
        centred = np.pad(x.astype(np.int32) - self.x_zero, ((0, 0), (self.pad,) * 2, (self.pad,) * 2))
        out, _, k, _ = self.weight.shape
        height = (centred.shape[1] - k) // self.stride + 1
        width = (centred.shape[2] - k) // self.stride + 1
        acc = np.broadcast_to(self.bias[:, None, None], (out, height, width)).astype(np.int64)
        weight = self.weight.astype(np.int64)
        for dy in range(k):
            for dx in range(k):
                window = centred[:, dy : dy + self.stride * height : self.stride, dx : dx + self.stride * width : self.stride]
                if self.group == 1:
                    acc += np.tensordot(weight[:, :, dy, dx].astype(np.float64), window.astype(np.float64), 1).astype(np.int64)
                else:
                    acc += weight[:, 0, dy, dx][:, None, None] * window
        assert np.abs(acc).max() < 2**31, "an accumulator exceeds i32"
        return acc.astype(np.int32)


@dataclass(frozen=True)
class IntHead:
    """The head in exact integer arithmetic; requantisation is one f32 multiplication per value."""

    layers: list[IntLayer]

    def latent(self, pixels: np.ndarray) -> np.ndarray:
        """Accumulators i32 [C,H/8,W/8] of the last layer for pixels u8 [H,W,3]."""
        x = pixels.transpose(2, 0, 1)
        for layer in self.layers[:-1]:
            x = requantise(layer.accumulate(x), layer.mult, 0, 255).astype(np.uint8)
        return self.layers[-1].accumulate(x)

    def symbols(self, pixels: np.ndarray, gain: float) -> np.ndarray:
        """Symbols i8 [C,H/8,W/8] of pixels u8 [H,W,3] at the level with this gain."""
        return self.level(self.latent(pixels), gain)

    def level(self, latent: np.ndarray, gain: float) -> np.ndarray:
        """Symbols i8 of the accumulators that `latent` returned."""
        mult = (self.layers[-1].mult * np.float32(gain)).astype(np.float32)
        return requantise(latent, mult, -128, 127).astype(np.int8)


def requantise(acc: np.ndarray, mult: np.ndarray, low: int, high: int) -> np.ndarray:
    """clamp(round_half_even(f32(acc) * mult[c]), low, high) of accumulators [C,H,W]."""
    assert mult.dtype == np.float32
    return np.clip(np.rint(acc.astype(np.float32) * mult[:, None, None]), low, high)


def quantise_head(head: Head) -> IntHead:
    """The exact integer network of a trained head; the unit of its output is one symbol of level 0."""
    layers = []
    x_scale, x_zero = IMAGE_SCALE, IMAGE_ZERO
    for layer in head.layers:
        conv = layer.conv
        weight = conv.weight.detach().double()
        scale = (weight.abs().amax((1, 2, 3)).clamp_min(1e-8) / 127).float()
        quantised = torch.round(weight / scale.double()[:, None, None, None]).clamp(-127, 127)
        unit = float(x_scale) * scale.double()
        bias = torch.round(conv.bias.detach().double() / unit)
        y_scale = np.float32(1) if layer.last else np.float32(layer.peak.item()) / np.float32(255)
        layers.append(
            IntLayer(
                quantised.numpy().astype(np.int8),
                scale.numpy(),
                bias.numpy().astype(np.int32),
                np.float32(x_scale),
                x_zero,
                y_scale,
                conv.stride[0],
                conv.padding[0],
                conv.groups,
            )
        )
        x_scale, x_zero = y_scale, 0
    return IntHead(layers)
