"""Rate levels: a gain, a factorised prior (compressai) and a rate controller for each.

Level l transmits the symbols round(latent * gain[l]); the decoder receives symbol * step[l] with step = 1 / gain. With
`per_channel`, a level has a gain per channel: the level's gain times a factor that starts at 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor, nn

from .head import straight_through

LIMIT = 127  # largest magnitude of a latent in symbols, so that symbols fit i8
ROWS = 4  # in training the rate is estimated on one row in four


class Levels(nn.Module):
    """Gains and priors of all levels, finest first."""

    def __init__(self, channels: int, gains: list[float], per_channel: bool = False):
        super().__init__()
        self.log_ratio = nn.Parameter(torch.zeros(len(gains), channels)) if per_channel else None
        self.log_gain = nn.Parameter(torch.log(torch.tensor(gains[1:], dtype=torch.float32)))
        self.priors = nn.ModuleList(EntropyBottleneck(channels) for _ in gains)

    def gains(self) -> Tensor:
        """Gains f32 [levels]: the first is 1, the others at most 1."""
        return torch.cat([self.log_gain.new_ones(1), self.log_gain.clamp(max=0).exp()])

    def channel_gains(self, index: Tensor | int, gain: Tensor) -> Tensor:
        """Gains [..., 1 or C, 1, 1] of the channels at the levels `index`, whose common gain is `gain`."""
        ratio = gain.new_ones(1) if self.log_ratio is None else self.log_ratio[index].exp()
        return (gain[..., None] * ratio)[..., None, None]

    def export_gains(self) -> list[float]:
        """The gains as f32 values, one per level, for a manifest; exits with gains per channel, which a bundle cannot hold."""
        if self.log_ratio is not None:
            raise SystemExit("levels.channel_gains trains a gain per channel, a bundle holds one per level: it cannot be exported")
        return [float(np.float32(gain)) for gain in self.gains().tolist()]

    def forward(self, latent: Tensor, level: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Latent [N,C,h,w] and level i64 [N] (on the CPU) to decoder values [N,C,h,w], steps [N] and bits per symbol [N].

        Values are rounded with a straight-through gradient; `noise` is the share of uniform noise in place of rounding. The
        value of the bits is that of the rounded symbols on every fourth row; their gradient is that of noisy symbols, whose
        value would be too high at coarse levels, where nearly all symbols are 0.
        """
        gain = self.gains()[level.to(latent.device)]
        gains = self.channel_gains(level.to(latent.device), gain)
        scaled = (latent * gains).clamp(-LIMIT, LIMIT)
        error = (torch.round(scaled) - scaled).detach()
        if noise:
            error = error.lerp(torch.empty_like(error).uniform_(-0.5, 0.5), noise)
        symbols = scaled + error
        step = 1 / gain
        rows = scaled[:, :, int(torch.randint(ROWS, (1,))) :: ROWS]
        bits = self.bits(rows + torch.empty_like(rows).uniform_(-0.5, 0.5), level)
        with torch.no_grad():
            rounded = self.bits(torch.round(rows), level)
        return symbols / gains, step, straight_through(bits, rounded)

    def bits(self, symbols: Tensor, level: Tensor) -> Tensor:
        """Mean bits per symbol [N] of each item under the prior of its level."""
        order, parts = [], []
        for index in level.unique().tolist():
            order.append((level == index).nonzero()[:, 0])
            chosen = order[-1].to(symbols.device)
            parts.append(-self.likelihood(index, symbols[chosen]).log2().mean((1, 2, 3)))
        return torch.cat(parts)[torch.cat(order).argsort().to(symbols.device)]

    def likelihood(self, index: int, symbols: Tensor) -> Tensor:
        """Probability of symbols [N,C,h,w] under one level's prior, in the same shape."""
        n, c, h, w = symbols.shape
        flat = symbols.permute(1, 0, 2, 3).reshape(c, 1, -1)
        likelihood, _, _ = self.priors[index]._likelihood(flat)
        return likelihood.clamp_min(1e-9).reshape(c, n, h, w).permute(1, 0, 2, 3)

    def fit(self, latent: Tensor, only: list[int] | None = None, steps: int = 150, size: int = 512) -> None:
        """Fit all priors, or those of the levels `only`, to latents [N,C,h,w] by gradient descent."""
        gains = self.gains().detach()
        optimiser = torch.optim.Adam(self.priors.parameters(), 0.03)
        for _ in range(steps):
            place = torch.randint(latent.shape[3], (1,)).item()
            row = latent[:, :, :, place : place + 1][torch.randperm(len(latent))[: max(1, size // latent.shape[2])]]
            optimiser.zero_grad()
            for index in range(len(gains)) if only is None else only:
                scaled = row * gains[index]
                noisy = scaled + torch.empty_like(scaled).uniform_(-0.5, 0.5)
                (-self.likelihood(index, noisy).log2().mean()).backward()
            optimiser.step()

    def histogram(self, index: int) -> Tensor:
        """Probability f64 [C,256] of the symbols -128..127 under one level's prior."""
        channels = self.priors[index].channels
        grid = torch.arange(-128.0, 128.0).view(1, 1, 1, 256).expand(1, channels, 1, 256)
        with torch.no_grad():
            return self.likelihood(index, grid)[0, :, 0].double()


class Controller:
    """Integral controller of the rate weight of each level, towards its target size by the factorised prior."""

    def __init__(self, targets: list[int], symbols: int, start: float = 0.01, speed: float = 0.02):
        self.targets = [8 * t / symbols for t in targets]  # bits per symbol
        self.weights = [start * (targets[0] / t) ** 1.5 for t in targets]
        self.mean = list(self.targets)
        self.speed = speed

    def update(self, level: list[int], bits: list[float]) -> None:
        """Adjust the weights after a batch with these levels and bits per symbol."""
        for index, value in zip(level, bits, strict=True):
            error = math.log(max(value, 1e-3) / self.targets[index])
            self.weights[index] *= math.exp(self.speed * max(-0.5, min(0.5, error)))
            self.mean[index] += 0.05 * (value - self.mean[index])

    def state(self) -> dict:
        """Weights and moving means, for a checkpoint."""
        return {"weights": list(self.weights), "mean": list(self.mean)}

    def load(self, state: dict) -> None:
        """Restore what `state` returned."""
        self.weights, self.mean = list(state["weights"]), list(state["mean"])
