"""The student of the distillation, i.e. everything that is trained for the split: head, rate levels and decoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .decoder import Decoder, TokenGrid
from .head import STRIDE, Head
from .rate import Levels

SPLIT_CHANNELS = 48  # of EfficientNet-Lite2


def autocast(device: torch.device) -> torch.autocast:
    """Mixed precision for the server's networks on a GPU; on a processor it does nothing. Head and rates always use f32."""
    return torch.autocast("cuda", torch.float16, enabled=device.type == "cuda")


class Student(nn.Module):
    """Head, rate levels and decoder of a config."""

    def __init__(self, config: dict):
        super().__init__()
        width, latent = config["head"]["width"], config["head"]["latent"]
        self.head = Head(
            width,
            latent,
            config["head"].get("stride", STRIDE),
            config["head"].get("layers"),
            config["head"].get("quantisation_aware", True),
        )
        self.levels = Levels(latent, config["levels"]["gains"], config["levels"].get("channel_gains", False))
        split = config["backbone"]
        grid = TokenGrid(**split["grid"]) if "grid" in split else None
        self.decoder = Decoder(latent, split.get("channels", SPLIT_CHANNELS), **config["decoder"], stride=self.head.stride, grid=grid)

    def forward(self, pixels: Tensor, level: Tensor, net: Backbone, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Encode and decode pixels [N,3,H,W] at levels i64 [N], for training.

        Returns split features [N,48,H/8,W/8], the sketch [N,3,H,W] and bits per symbol [N]. `noise` is the share of uniform
        noise in place of rounding.
        """
        values, step, bits = self.levels(self.head(pixels), level, noise)
        with autocast(pixels.device):
            return *self.decoder(values, step, net), bits

    def initialise(self, pixels: Tensor, metric: Tensor, bits: float, default: int, net: Backbone) -> None:
        """Set the weights to a transform codec of image patches: head, fitted priors, and the least-squares inverse as decoder."""
        self.head.initialise(pixels, metric, bits)
        with torch.no_grad():
            latent = self.head.train()(pixels)
            gain = self.levels.gains()[default]
        self.levels.fit(latent)
        self.decoder.initialise(torch.round(latent * gain) / gain, net.normalise(pixels))

    @torch.no_grad()
    def scale_gains(self, factors: list[float]) -> None:
        """Multiply the gain of every level by its factor.

        The gain of level 0 stays 1: the head's output is scaled in its place, and the decoder's input layers are scaled back.
        """
        scale = factors[0]
        last, entry = self.head.layers[-1].conv, self.decoder.level[0]
        for weight in (last.weight, last.bias):
            weight.mul_(scale)
        for weight in (self.decoder.enter.weight, self.decoder.shortcut.weight):
            weight.div_(scale)
        entry.bias.sub_(entry.weight[:, 0] * math.log(scale))
        self.levels.log_gain.add_(torch.log(torch.tensor(factors[1:]) / scale))

    @torch.no_grad()
    def transmit(self, pixels: Tensor, level: int, net: Backbone) -> tuple[Tensor, Tensor]:
        """Symbols [N,C,h,w] of one level, and the split features [N,48,h,w] decoded from them."""
        gain = self.levels.gains()[level]
        gains = self.levels.channel_gains(level, gain)
        symbols = torch.round(self.head(pixels) * gains).clamp(-128, 127)
        step = (1 / gain).expand(len(pixels))
        return symbols, self.decoder(symbols / gains, step, net)[0]
