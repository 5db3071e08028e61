"""A decoder without a sketch: latent values straight to the split features, at a fraction of the sketch decoder's work.

    latent -> residual blocks at stride 8 -> + linear estimate from 3x3 latents -> (last blocks of group 3) -> split features

The last blocks of group 3 are already at stride 8 and can be kept as they are; everything in front of them, which the backbone
computes at strides 2 and 4, is replaced. The linear estimate starts as the least-squares solution, so the untrained decoder is the
best linear one.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbone import SPLIT_GROUP, Backbone
from .decoder import Block, modulate, zeroed

KINDS = ("dense", "separable")  # of residual blocks


class DirectDecoder(nn.Module):
    """Latent f32 [N,C,h,w] (symbol * step) and step f32 [N] to split features [N,48,h,w].

    Blocks are modulated with a scale and a shift per channel, which depend on the step and, with `global_context`, on the mean of
    the block's features. `finish` is the number of the backbone's last blocks in front of the split that are kept.
    """

    def __init__(
        self,
        latent: int,
        net: Backbone,
        width: int,
        blocks: int,
        kind: str = "dense",
        finish: int = 0,
        expansion: int = 4,
        kernel: int = 5,
        hidden: int = 32,
        global_context: bool = True,
    ):
        super().__init__()
        if kind not in KINDS:
            raise SystemExit(f"direct.kind is {kind}: known are {', '.join(KINDS)}")
        group = net.groups[SPLIT_GROUP - 1]
        if not 0 <= finish < len(group):
            raise SystemExit(f"direct.finish is {finish}: group {SPLIT_GROUP} has {len(group) - 1} blocks at the stride of the split")
        self.width = width
        self.enter = nn.Conv2d(latent, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            Dense(width, global_context) if kind == "dense" else Separable(width, expansion, kernel, global_context) for _ in range(blocks)
        )
        self.leave = zeroed(nn.Conv2d(width, net.split_channels, 1))
        self.shortcut = nn.Conv2d(latent, net.split_channels, 3, padding=1)
        self.finish = nn.Sequential(*(copy.deepcopy(block) for block in list(group)[len(group) - finish :]))
        self.level = nn.Sequential(nn.Linear(1, hidden), nn.ReLU(), zeroed(nn.Linear(hidden, 2 * width * (blocks + 1))))

    def forward(self, latent: Tensor, step: Tensor) -> Tensor:
        level = self.level(torch.log(step)[:, None]).view(len(step), -1, 2, self.width, 1, 1)
        x = F.relu(modulate(self.enter(latent), level[:, 0]))
        for index, block in enumerate(self.blocks):
            x = block(x, level[:, index + 1])
        return self.finish(self.leave(x) + self.shortcut(latent))

    @torch.no_grad()
    def initialise(self, latent: Tensor, target: Tensor) -> None:
        """Set the linear part to the least-squares estimate of `target` [N,48,h,w], the input of the kept blocks.

        The first layer is scaled so that its channels have unit variance on `latent` [N,C,h,w].
        """
        inputs = F.unfold(latent, 3, padding=1).transpose(1, 2).flatten(0, 1)
        inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1).double()
        wanted = target.permute(0, 2, 3, 1).flatten(0, 2).double()
        gram = inputs.T @ inputs
        ridge = 1e-4 * gram.diag().mean() * torch.eye(len(gram), dtype=torch.float64)
        found = torch.linalg.solve(gram + ridge, inputs.T @ wanted).T.float()
        self.shortcut.weight.copy_(found[:, :-1].reshape(self.shortcut.weight.shape))
        self.shortcut.bias.copy_(found[:, -1])
        deviation = latent.std((0, 2, 3)).clamp_min(1e-3)
        self.enter.weight.div_(deviation.sqrt()[None, :, None, None])
        spread = self.enter(latent).std((0, 2, 3)).clamp_min(1e-6)
        self.enter.weight.div_(spread[:, None, None, None])
        self.enter.bias.zero_()


class Dense(Block):
    """A residual block of two 3x3 convolutions, the first one modulated, with a ReLU between them."""

    def kernels(self) -> list[nn.Parameter]:
        """The matrices that Muon trains."""
        return [self.first.weight, self.second.weight]


class Separable(nn.Module):
    """A residual block of a modulated depthwise convolution and two 1x1 convolutions with a ReLU between them."""

    def __init__(self, width: int, expansion: int, kernel: int, global_context: bool):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.expand = nn.Conv2d(width, width * expansion, 1)
        self.project = nn.Conv2d(width * expansion, width, 1)
        with torch.no_grad():
            self.project.weight.mul_(0.3)
            self.project.bias.zero_()
        self.global_context = zeroed(nn.Linear(width, 2 * width)) if global_context else None

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        if self.global_context is not None:
            level = level + self.global_context(x.mean((2, 3))).view_as(level)
        return x + self.project(F.relu(self.expand(modulate(self.depthwise(x), level))))

    def kernels(self) -> list[nn.Parameter]:
        """The matrices that Muon trains."""
        return [self.expand.weight, self.project.weight]
