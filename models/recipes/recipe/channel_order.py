"""The order in which channels are coded and where a packet may be truncated (codec/FORMAT.md, sections 2.2 and 4.1).

The importance of a channel is the increase of the KL divergence from the teacher's answer when the channel's median
symbol replaces its values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from . import loss
from .bundle_parts import BundleParts
from .features import FeatureCache
from .progress import Progress
from .tables import Table

BATCH = 8


@dataclass(frozen=True)
class ChannelOrder:
    """Channels from the most to the least important, and how many of them each group of a truncatable packet holds."""

    channels: list[int]
    groups: list[int]


@torch.inference_mode()
def divergence(parts: BundleParts, symbols: np.ndarray, level: int, teacher: torch.Tensor) -> float:
    """Mean KL divergence of the tail's answer to symbols i8 [N,C,h,w] from the teacher's logits f32 [N,classes]."""
    total = 0.0
    for first in range(0, len(symbols), BATCH):
        batch, logits = symbols[first : first + BATCH], teacher[first : first + BATCH]
        step = torch.full((len(batch),), parts.steps()[level])
        latent = torch.from_numpy(batch.astype(np.float32)) * step[:, None, None, None]
        split, _ = parts.student.decoder(latent, step, parts.net)
        total += loss.divergence(parts.tail.back(split).logits, logits).sum().item()
    return total / len(symbols)


def without(symbols: np.ndarray, tables: list[Table], channels: list[int]) -> np.ndarray:
    """A copy of the symbols with the median of its table in every one of `channels`, as a decoder fills missing channels."""
    out = symbols.copy()
    for channel in channels:
        out[:, channel] = tables[channel].median
    return out


def choose(parts: BundleParts, tables: list[Table], cache: FeatureCache, crops: int, level: int, groups: int) -> ChannelOrder:
    """The order and the groups, measured on `crops` training crops at one level with its static tables."""
    chosen = np.random.default_rng(parts.config["seed"] + 2).permutation(cache.count)[:crops]
    pixels, target = cache.batch(chosen, ("logits",))
    with torch.inference_mode():
        latents = parts.student.head(pixels) * parts.gains[level]
    symbols, teacher = torch.round(latents).clamp(-128, 127).to(torch.int8).numpy(), target["logits"]
    channels = range(len(tables))
    progress = Progress("channel order", 2 * len(tables))
    importance = []
    for channel in channels:
        importance.append(divergence(parts, without(symbols, tables, [channel]), level, teacher))
        progress.step(channel + 1)
    order = sorted(channels, key=lambda channel: -importance[channel])
    truncated = []
    for sent in channels:
        truncated.append(divergence(parts, without(symbols, tables, order[sent:]), level, teacher))
        progress.step(len(tables) + sent + 1)
    flat = symbols.reshape(len(symbols), len(tables), -1).astype(np.int64) + 128
    sizes = [tables[channel].bits(np.bincount(flat[:, channel].reshape(-1), minlength=256)) for channel in order]
    return ChannelOrder(order, group_sizes(sizes, truncated, groups))


def group_sizes(sizes: list[float], truncated: list[float], groups: int) -> list[int]:
    """Channels per group that minimise the mean divergence when every length of a truncated packet is equally likely.

    `sizes` are the bits of each channel in coding order, `truncated` the divergence with the first 0, 1, … channels.
    Solved exactly by dynamic programming over the positions of the group ends.
    """
    n = len(sizes)
    reach = np.concatenate([[0.0], np.cumsum(sizes)])
    # cost[a, b]: the packet ends inside the group of channels a..b-1, so only the first a channels are decoded.
    cost = np.array([[truncated[a] * (reach[b] - reach[a]) if a < b else np.inf for b in range(n + 1)] for a in range(n)])
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
