"""The order in which channels are coded and where a packet may be cut (codec/FORMAT.md, sections 2.2 and 4.1).

A channel's importance is what the teacher's answer loses when the median stands in for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import loss
from .progress import Progress
from .tables import Table

if TYPE_CHECKING:
    from .export import BundleParts
    from .features import FeatureCache

BATCH = 8


@dataclass(frozen=True)
class ChannelOrder:
    order: list[int]
    groups: list[int]


@torch.inference_mode()
def divergence(parts: BundleParts, symbols: np.ndarray, level: int, wanted: torch.Tensor) -> float:
    """Mean KL divergence from the teacher's logits f32 [N,1000] of what the server makes of symbols i8 [N,C,h,w]."""
    total = 0.0
    for first in range(0, len(symbols), BATCH):
        part, teacher = symbols[first : first + BATCH], wanted[first : first + BATCH]
        step = torch.full((len(part),), parts.steps()[level])
        latent = torch.from_numpy(part.astype(np.float32)) * step[:, None, None, None]
        split, _ = parts.student.decoder(latent, step, parts.net)
        total += loss.divergence(parts.tail.back(split).logits, teacher).sum().item()
    return total / len(symbols)


def without(symbols: np.ndarray, tables: list[Table], channels: list[int]) -> np.ndarray:
    """What a decoder has when these channels are missing."""
    out = symbols.copy()
    for channel in channels:
        out[:, channel] = tables[channel].median
    return out


def choose(parts: BundleParts, tables: list[Table], cache: FeatureCache, crops: int, level: int, groups: int) -> ChannelOrder:
    """From training crops, at a level with its tables."""
    chosen = np.random.default_rng(parts.config["seed"] + 2).permutation(cache.count)[:crops]
    pixels, target = cache.batch(chosen, ("logits",))
    with torch.inference_mode():
        latents = parts.student.head(pixels) * parts.gains[level]
    symbols, wanted = torch.round(latents).clamp(-128, 127).to(torch.int8).numpy(), target["logits"]
    channels = range(len(tables))
    progress = Progress("layers", 2 * len(tables))
    loses = []
    for channel in channels:
        loses.append(divergence(parts, without(symbols, tables, [channel]), level, wanted))
        progress.step(channel + 1)
    order = sorted(channels, key=lambda channel: -loses[channel])
    left = []
    for sent in channels:
        left.append(divergence(parts, without(symbols, tables, order[sent:]), level, wanted))
        progress.step(len(tables) + sent + 1)
    flat = symbols.reshape(len(symbols), len(tables), -1).astype(np.int64) + 128
    sizes = [tables[channel].bits(np.bincount(flat[:, channel].reshape(-1), minlength=256)) for channel in order]
    return ChannelOrder(order, borders(sizes, left, groups))


def borders(sizes: list[float], left: list[float], groups: int) -> list[int]:
    """Channels in each group, for the least mean divergence when every size of the cut packet is equally likely.

    `sizes` are the bits of each channel in order, `left` the divergence with 0, 1, … channels.
    """
    n = len(sizes)
    reach = np.concatenate([[0.0], np.cumsum(sizes)])
    # cost[a, b]: a cut falls between the border after a channels and the next, after b: a channels are left.
    cost = np.array([[left[a] * (reach[b] - reach[a]) if a < b else np.inf for b in range(n + 1)] for a in range(n)])
    cost = np.vstack([cost, np.full(n + 1, np.inf)])
    best, steps = cost[0], []
    for _ in range(min(groups, n) - 1):
        through = best[:, None] + cost
        steps.append(through.argmin(0))
        best = through.min(0)
    ends, at = [n], n
    for step in reversed(steps):
        at = int(step[at])
        ends.append(at)
    return np.diff([0, *reversed(ends)]).tolist()
