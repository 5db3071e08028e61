"""A cut network with the face of `backbone.Backbone`: front, middle, deep, answer.

Maps are [N,C,H,W]. Tokens [N,T,D] are shown as maps [N,D,T,1], so that every loss and statistic is per channel.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx, nn

from ..backbone import Taps
from . import split_points


class PartitionedBackbone(nn.Module):
    def __init__(self, whole: fx.GraphModule, config: dict):
        super().__init__()
        split = config["backbone"]
        nodes = {node.name: node for node in whole.graph.nodes}
        places = [nodes[split[key]] for key in ("split_node", "middle_node", "deep_node")]
        pooled = split_points.last_linear(whole)
        self.pieces = nn.ModuleList(split_points.pieces(whole, places + ([pooled] if pooled is not None else [])))
        self.flat = [len(node.meta["val"].shape) == 3 for node in places]
        self.split_channels = split["channels"]
        self.register_buffer("mean", torch.tensor(split["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(split["std"]).view(1, 3, 1, 1))

    def shown(self, x: Tensor, place: int) -> Tensor:
        return x.transpose(1, 2)[..., None] if self.flat[place] else x

    def taken(self, x: Tensor, place: int) -> Tensor:
        return x[..., 0].transpose(1, 2) if self.flat[place] else x

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels 0..255 to the network's input range."""
        return (pixels - self.mean) / self.std

    def read(self, image: Tensor) -> Tensor:
        """Normalised image to the split features."""
        return self.shown(self.pieces[0](image), 0)

    def front(self, pixels: Tensor) -> Tensor:
        return self.read(self.normalise(pixels))

    def middle(self, split: Tensor) -> Tensor:
        return self.shown(self.pieces[1](self.taken(split, 0)), 1)

    def deep(self, middle: Tensor) -> Tensor:
        return self.shown(self.pieces[2](self.taken(middle, 1)), 2)

    def answer(self, deep: Tensor) -> tuple[Tensor, Tensor]:
        """What the last linear layer reads, and the logits; the logits twice where there is no such layer."""
        found = self.pieces[3](self.taken(deep, 2))
        return found, self.pieces[4](found) if len(self.pieces) > 4 else found

    def back(self, split: Tensor) -> Taps:
        middle = self.middle(split)
        deep = self.deep(middle)
        return Taps(middle, deep, *self.answer(deep))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.back(self.front(pixels)).logits


def path(work: Path) -> Path:
    return work / "backbone.pt2"


def load(config: dict, work: Path) -> PartitionedBackbone:
    """The network that `new` left in WORK, cut as the config says, frozen."""
    if not path(work).is_file():
        raise SystemExit(f"{path(work)} is missing: run `python -m recipe new` first")
    whole = torch.export.load(path(work)).module(check_guards=False)
    return PartitionedBackbone(whole, config).eval().requires_grad_(False)
