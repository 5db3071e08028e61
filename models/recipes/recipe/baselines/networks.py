"""Encoders and decoders of the baselines as published, with the split features of our backbone as output (stride 8, 48 channels).

Only this was adapted:

* Both decoders have 48 output channels instead of ResNet's 512 or 256, and their inner width is a setting.
* The Entropic Student splits a ResNet at stride 4. Its encoder and prior are as published (latent 24x55x55 for a 224x224
  image). The first convolution of its decoder has stride 2, so that the published padding gives 28x28 features.
* The output of its decoder is scaled and shifted to our features (`initialise`), whose standard deviation is 8 and whose mean
  is not zero, unlike a ResNet's; and the untrained latent is scaled to a few symbols. Otherwise the rate loss drives the
  latent to zero before the decoder, which has no biases, has learned anything.

Images are normalised as for the backbone. Both systems compute in float: the int8 head has no max pooling and no GDN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.layers import GDN1
from torch import Tensor, nn

from ..backbone import normalise

INITIAL_STD = 2.0  # standard deviation of an untrained latent, in symbols
HEADER = 12  # bytes added to the published payload for the header and checksum that a packet needs


@dataclass(frozen=True)
class Transmission:
    """One encoded image."""

    symbols: np.ndarray  # i8 [C,h,w]
    bytes: int  # of the packet, with the published coder
    split: Tensor  # decoded features [1,48,h,w]


class BottleFit(nn.Module):
    """Version 2 of the published bottleneck; the latent is quantised to 8 bits for transmission, but not in training."""

    has_prior = False

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
        """The modules that run on the device; stage 2 keeps them fixed."""
        return [self.encoder]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [N,3,H,W] to split features and bits per item (0: the size is fixed)."""
        return self.decoder(self.encoder(normalise(pixels))), torch.zeros(len(pixels))

    def decode_frozen(self, pixels: Tensor) -> Tensor:
        """Split features without gradients through the encoder."""
        with torch.no_grad():
            latent = self.encoder(normalise(pixels))
        return self.decoder(latent)

    @torch.no_grad()
    def transmit(self, pixels: Tensor) -> Transmission:
        """Encode one image: 8-bit affine quantisation over the range of its latent."""
        latent = self.encoder(normalise(pixels))
        low, high = latent.amin(), latent.amax()
        scale = (high - low).clamp_min(1e-8) / 255
        codes = torch.round((latent - low) / scale).clamp(0, 255)
        symbols = (codes[0] - 128).to(torch.int8).numpy()
        return Transmission(symbols, HEADER + 8 + symbols.size, self.decoder(codes * scale + low))


class EntropicStudent(nn.Module):
    """Convolutions with GDN or ReLU, and a factorised prior; symbols are the latent minus the prior's medians, rounded."""

    has_prior = True

    def __init__(self, channels: int, width: int, features: int, activation: str):
        super().__init__()
        gdn = activation == "gdn"

        def nonlinearity(size: int, inverse: bool = False) -> nn.Module:
            return GDN1(size, inverse=inverse) if gdn else nn.ReLU()

        self.encoder = nn.Sequential(
            nn.Conv2d(3, 4 * channels, 5, 2, 2, bias=False),
            nonlinearity(4 * channels),
            nn.Conv2d(4 * channels, 2 * channels, 5, 2, 2, bias=False),
            nonlinearity(2 * channels),
            nn.Conv2d(2 * channels, channels, 2, bias=False),
        )
        self.prior = EntropyBottleneck(channels)
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, 2 * width, 2, 2, 1, bias=False),
            nonlinearity(2 * width, inverse=True),
            nn.Conv2d(2 * width, width, 2, bias=False),
            nonlinearity(width, inverse=True),
            nn.Conv2d(width, features, 2, 1, 1, bias=False),
        )
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("unit", torch.ones(()))

    def device(self) -> list[nn.Module]:
        """The modules that run on the device; stage 2 keeps them fixed."""
        return [self.encoder, self.prior]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [N,3,H,W] to split features and bits per item, with uniform noise in place of rounding."""
        noisy, likelihood = self.prior(self.encoder(normalise(pixels)), training=True)
        return self.decode(noisy), -likelihood.log2().sum((1, 2, 3))

    @torch.no_grad()
    def initialise(self, pixels: Tensor, features: Tensor) -> None:
        """Take mean and scale of the decoder's output from `features`, and scale the encoder's output to `INITIAL_STD`."""
        self.mean.copy_(features.mean((0, 2, 3)))
        self.unit.copy_(features.std())
        self.encoder[-1].weight.mul_(INITIAL_STD / self.encoder(normalise(pixels)).std())

    def decode(self, latent: Tensor) -> Tensor:
        """Split features of a latent."""
        return self.decoder(latent) * self.unit + self.mean[:, None, None]

    def quantise(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols and the latent that they stand for."""
        latent = self.encoder(normalise(pixels))
        medians = self.prior.quantiles[:, 0, 1].view(1, -1, 1, 1)
        symbols = torch.round(latent - medians)
        return symbols, symbols + medians

    def decode_frozen(self, pixels: Tensor) -> Tensor:
        """Split features without gradients through the encoder."""
        with torch.no_grad():
            _, latent = self.quantise(pixels)
        return self.decode(latent)

    @torch.no_grad()
    def transmit(self, pixels: Tensor) -> Transmission:
        """Encode one image with compressai's coder; `prior.update()` must have been called."""
        symbols, latent = self.quantise(pixels)
        strings = self.prior.compress(latent)
        clamped = symbols[0].clamp(-128, 127).to(torch.int8).numpy()
        return Transmission(clamped, HEADER + sum(map(len, strings)), self.decode(latent))


def build(config: dict, setting: float, features: int) -> BottleFit | EntropicStudent:
    """The networks of one setting: BottleFit's number of channels; the Entropic Student's networks do not depend on it."""
    baseline = config["baseline"]
    if baseline["kind"] == "bottlefit":
        return BottleFit(int(setting), baseline["width"], features)
    if baseline["kind"] == "entropic-student":
        return EntropicStudent(baseline["channels"], baseline["width"], features, baseline["activation"])
    raise SystemExit(f"baseline.kind is {baseline['kind']!r}: bottlefit or entropic-student")
