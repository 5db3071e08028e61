"""A custom backbone, partitioned at its split point, with the interface of `backbone.Backbone`.

Feature maps are [N,C,H,W]. Tokens [N,T,D] are presented as maps [N,D,T,1], so that losses and statistics are per channel
for both.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx, nn

from ..backbone import Taps
from . import split_points

LARGE = 1024  # weights with at least this many values are stored as f16 in a bundle


class PartitionedBackbone(nn.Module):
    """A traced classifier cut into front, middle, deep part and answer; `settings` is the config's [backbone]."""

    def __init__(self, traced: fx.GraphModule, settings: dict):
        super().__init__()
        nodes = {node.name: node for node in traced.graph.nodes}
        places = [nodes[settings[key]] for key in ("split_node", "middle_node", "deep_node")]
        pooled = split_points.last_linear_input(traced)
        self.pieces = nn.ModuleList(split_points.partition(traced, places + ([pooled] if pooled is not None else [])))
        self.tokens = [len(node.meta["val"].shape) == 3 for node in places]
        self.split_channels = settings["channels"]
        self.register_buffer("mean", torch.tensor(settings["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(settings["std"]).view(1, 3, 1, 1))

    def as_map(self, x: Tensor, place: int) -> Tensor:
        """Tokens [N,T,D] as [N,D,T,1]; maps as they are."""
        return x.transpose(1, 2)[..., None] if self.tokens[place] else x

    def as_traced(self, x: Tensor, place: int) -> Tensor:
        """The inverse of `as_map`."""
        return x[..., 0].transpose(1, 2) if self.tokens[place] else x

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels 0..255 to the network's input range."""
        return (pixels - self.mean) / self.std

    def features(self, image: Tensor) -> Tensor:
        """Normalised image [N,3,H,W] to the split features."""
        return self.as_map(self.pieces[0](image), 0)

    def front(self, pixels: Tensor) -> Tensor:
        """Pixels [N,3,H,W] in 0..255 to the split features."""
        return self.features(self.normalise(pixels))

    def middle(self, split: Tensor) -> Tensor:
        """Split features to those of the middle place, where the loss compares them too."""
        return self.as_map(self.pieces[1](self.as_traced(split, 0)), 1)

    def deep(self, middle: Tensor) -> Tensor:
        """Middle features to those of the last place before the answer."""
        return self.as_map(self.pieces[2](self.as_traced(middle, 1)), 2)

    def answer(self, deep: Tensor) -> tuple[Tensor, Tensor]:
        """Input of the last linear layer and the logits; the logits twice if the network does not end in a linear layer."""
        pooled = self.pieces[3](self.as_traced(deep, 2))
        return pooled, self.pieces[4](pooled) if len(self.pieces) > 4 else pooled

    def back(self, split: Tensor) -> Taps:
        """Split features to everything behind them."""
        middle = self.middle(split)
        deep = self.deep(middle)
        return Taps(middle, deep, *self.answer(deep))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.back(self.front(pixels)).logits


def path(work: Path) -> Path:
    """Where `recipe custom` keeps the traced network."""
    return work / "backbone.pt2"


def load(settings: dict, work: Path) -> PartitionedBackbone:
    """The frozen network in WORK, partitioned as the config's [backbone] says."""
    if not path(work).is_file():
        raise SystemExit(f"{path(work)} is missing: run `python -m recipe custom` first")
    traced = torch.export.load(path(work)).module(check_guards=False)
    return PartitionedBackbone(traced, settings).eval().requires_grad_(False)
