"""Everything that is trained for the split: head, rate levels and decoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .backbone import Backbone
from .decoder import Decoder, TokenGrid
from .head import STRIDE, Head
from .rate import Levels

SPLIT_CHANNELS = 48


def autocast(device: torch.device) -> torch.autocast:
    """On a GPU, the networks of the server compute in f16; head and rates never do."""
    return torch.autocast("cuda", torch.float16, enabled=device.type == "cuda")


class Student(nn.Module):
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
        """Pixels [N,3,H,W] and level i64 [N] to split features [N,48,H/8,W/8], sketch and bits per symbol [N]."""
        values, step, bits = self.levels(self.head(pixels), level, noise)
        with autocast(pixels.device):
            return *self.decoder(values, step, net), bits

    def start_from(self, pixels: Tensor, metric: Tensor, bits: float, default: int, net: Backbone) -> None:
        """A transform codec for the teacher's metric, priors that fit it, and its least-squares inverse."""
        self.head.start_from(pixels, metric, bits)
        with torch.no_grad():
            latent = self.head.train()(pixels)
            gain = self.levels.gains()[default]
        self.levels.fit(latent)
        self.decoder.start_from(torch.round(latent * gain) / gain, net.normalise(pixels))

    @torch.no_grad()
    def scale_gains(self, factors: list[float]) -> None:
        """Multiply each level's gain. The first stays 1: the latent is scaled in its place, and the decoder scales it back."""
        scale = factors[0]
        last, entry = self.head.layers[-1].conv, self.decoder.level[0]
        for weight in (last.weight, last.bias):
            weight.mul_(scale)
        for weight in (self.decoder.enter.weight, self.decoder.shortcut.weight):
            weight.div_(scale)
        entry.bias.sub_(entry.weight[:, 0] * math.log(scale))
        self.levels.log_gain.add_(torch.log(torch.tensor(factors[1:]) / scale))

    @torch.no_grad()
    def sent(self, pixels: Tensor, level: int, net: Backbone) -> tuple[Tensor, Tensor]:
        """Symbols [N,C,h,w] of one level and the features [N,48,h,w] decoded from them."""
        gain = self.levels.gains()[level]
        gains = self.levels.channel_gains(level, gain)
        symbols = torch.round(self.head(pixels) * gains).clamp(-128, 127)
        step = (1 / gain).expand(len(pixels))
        return symbols, self.decoder(symbols / gains, step, net)[0]
