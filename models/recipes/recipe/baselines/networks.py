"""Encoders and decoders as published, ending on the split of our backbone (stride 8, 48 channels).

What was adapted, and nothing else:

* both decoders end on 48 channels, not on ResNet's 512 or 256, and their inner width is a setting;
* the Entropic Student splits a ResNet at stride 4. Its encoder and prior are as published (latent 24 x 55 x 55 at
  224); the first convolution of its decoder has stride 2, so that the padding as published lands on 28 x 28;
* its decoder works in units of our features (`start_from`), which deviate by 8 where a ResNet's deviate by 1 and are not
  centred, and its untrained latent is scaled to a few symbols: otherwise the rate takes the latent to zero before the
  decoder, which has no biases, has learned anything.

Images enter as the backbone normalises them. Both run in float: the int8 head has no max pooling and no GDN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.layers import GDN1
from torch import Tensor, nn

from ..backbone import normalise

START = 2.0  # symbols that an untrained latent deviates by
HEADER = 12  # of a packet (codec/FORMAT.md, section 3): every row pays it


@dataclass(frozen=True)
class Sent:
    """One image on the wire: the symbols i8 [C,h,w] a coder would take, the bytes as published, the split features."""

    symbols: np.ndarray
    bytes: int
    split: Tensor


class BottleFit(nn.Module):
    """Version 2 of the published bottleneck; the latent is quantised to 8 bits when it is sent, never in training."""

    rated = False

    def __init__(self, channels: int, width: int, features: int):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, channels, 2, 2, 1, bias=False),
        )
        self.decoder = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, width, 2, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 2, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, features, 2, bias=False),
            nn.AvgPool2d(2, 1),
        )

    def device(self) -> list[nn.Module]:
        """What the device holds and stage 2 leaves alone."""
        return [self.encoder]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [N,3,H,W] to split features and bits per item (none: the size is fixed)."""
        return self.decoder(self.encoder(normalise(pixels))), torch.zeros(len(pixels))

    def decode_frozen(self, pixels: Tensor) -> Tensor:
        """Split features with the encoder as it is."""
        with torch.no_grad():
            latent = self.encoder(normalise(pixels))
        return self.decoder(latent)

    @torch.no_grad()
    def send(self, pixels: Tensor) -> Sent:
        """One image: 8-bit affine over the range of its own latent."""
        latent = self.encoder(normalise(pixels))
        low, high = latent.amin(), latent.amax()
        scale = (high - low).clamp_min(1e-8) / 255
        codes = torch.round((latent - low) / scale).clamp(0, 255)
        symbols = (codes[0] - 128).to(torch.int8).numpy()
        return Sent(symbols, HEADER + 8 + symbols.size, self.decoder(codes * scale + low))


class EntropicStudent(nn.Module):
    """Convolutions with GDN (or ReLU) and a factorised prior; integer rounding about the medians."""

    rated = True

    def __init__(self, channels: int, width: int, features: int, activation: str):
        super().__init__()
        gdn = activation == "gdn"

        def bent(size: int, inverse: bool = False) -> nn.Module:
            return GDN1(size, inverse=inverse) if gdn else nn.ReLU()

        self.encoder = nn.Sequential(
            nn.Conv2d(3, 4 * channels, 5, 2, 2, bias=False),
            bent(4 * channels),
            nn.Conv2d(4 * channels, 2 * channels, 5, 2, 2, bias=False),
            bent(2 * channels),
            nn.Conv2d(2 * channels, channels, 2, bias=False),
        )
        self.prior = EntropyBottleneck(channels)
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, 2 * width, 2, 2, 1, bias=False),
            bent(2 * width, inverse=True),
            nn.Conv2d(2 * width, width, 2, bias=False),
            bent(width, inverse=True),
            nn.Conv2d(width, features, 2, 1, 1, bias=False),
        )
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("unit", torch.ones(()))

    def device(self) -> list[nn.Module]:
        return [self.encoder, self.prior]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Split features and bits per item, both with uniform noise in place of rounding."""
        noisy, likelihood = self.prior(self.encoder(normalise(pixels)), training=True)
        return self.decoded(noisy), -likelihood.log2().sum((1, 2, 3))

    @torch.no_grad()
    def start_from(self, pixels: Tensor, features: Tensor) -> None:
        """Take the decoder's units from `features`, and scale the last layer of the encoder to `START` symbols on `pixels`."""
        self.mean.copy_(features.mean((0, 2, 3)))
        self.unit.copy_(features.std())
        self.encoder[-1].weight.mul_(START / self.encoder(normalise(pixels)).std())

    def decoded(self, latent: Tensor) -> Tensor:
        return self.decoder(latent) * self.unit + self.mean[:, None, None]

    def rounded(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols and the latent decoded from them."""
        latent = self.encoder(normalise(pixels))
        medians = self.prior.quantiles[:, 0, 1].view(1, -1, 1, 1)
        symbols = torch.round(latent - medians)
        return symbols, symbols + medians

    def decode_frozen(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            _, latent = self.rounded(pixels)
        return self.decoded(latent)

    @torch.no_grad()
    def send(self, pixels: Tensor) -> Sent:
        """One image: the strings of its own coder. `prior.update()` must have run."""
        symbols, latent = self.rounded(pixels)
        strings = self.prior.compress(latent)
        kept = symbols[0].clamp(-128, 127).to(torch.int8).numpy()
        return Sent(kept, HEADER + sum(map(len, strings)), self.decoded(latent))


def build(config: dict, setting: float, features: int) -> BottleFit | EntropicStudent:
    """One setting of the sweep: the channels of BottleFit, the rate weight (not of the net) of the Entropic Student."""
    baseline = config["baseline"]
    if baseline["kind"] == "bottlefit":
        return BottleFit(int(setting), baseline["width"], features)
    if baseline["kind"] == "entropic-student":
        return EntropicStudent(baseline["channels"], baseline["width"], features, baseline["activation"])
    raise SystemExit(f"baseline.kind is {baseline['kind']!r}: bottlefit or entropic-student")
