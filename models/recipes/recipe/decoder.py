"""The decoder on the server: latent values to the features behind block group 3.

It first decodes an approximate image, the sketch, and lets the frozen front of the backbone compute features from it:

    latent -> residual blocks at stride 8 -> sketch [N,3,8h,8w] -> frozen stem and groups 1..3 -> + correction -> split features

The head is initialised as a linear transform of image patches and the sketch as its inverse, so the untrained pair is a
transform codec; training then minimises the error of the features instead of the image's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbone import Backbone
from .head import STRIDE

KEY_POOLING = 2  # positions per row and column that are averaged to one key and one value


@dataclass(frozen=True)
class TokenGrid:
    """Layout of a transformer's tokens [N,D,T,1]: `prefix` tokens without a position, then patches row by row."""

    prefix: int
    rows: int
    columns: int

    def map(self, tokens: Tensor) -> Tensor:
        """Tokens to a map [N,D,rows,columns], without the prefix."""
        return tokens[:, :, self.prefix :, 0].unflatten(2, (self.rows, self.columns))

    def tokens(self, maps: Tensor) -> Tensor:
        """A map [N,D,rows,columns] to tokens, with zeros for the prefix."""
        return F.pad(maps.flatten(2), (self.prefix, 0))[..., None]


class Decoder(nn.Module):
    """Latent f32 [N,C,h,w] (symbol * step) and step f32 [N] to split features [N,48,h,w].

    Residual blocks of 3x3 convolutions are modulated with a scale and a shift per channel, which depend on the step and, with
    `global_context`, on the mean of the block's features. With `attention_heads`, a layer of self-attention precedes the sketch.
    """

    def __init__(
        self,
        latent: int,
        features: int,
        width: int,
        blocks_before: int,
        blocks_after: int,
        hidden: int = 32,
        stride: int = STRIDE,
        grid: TokenGrid | None = None,
        global_context: bool = False,
        attention_heads: int = 0,
    ):
        super().__init__()
        self.width, self.stride, self.grid = width, stride, grid
        # The names of these layers are those of the weights in checkpoints and exported files.
        self.enter = nn.Conv2d(latent, width, 3, padding=1)
        self.before = nn.ModuleList(Block(width, global_context) for _ in range(blocks_before))
        self.attention = Attention(width, attention_heads) if attention_heads else None
        self.sketch = zeroed(nn.Conv2d(width, 3 * stride**2, 1))
        self.shortcut = nn.Conv2d(latent, 3 * stride**2, 3, padding=1)
        self.seen = nn.Conv2d(features, width, 1)
        self.after = nn.ModuleList(Block(width, global_context) for _ in range(blocks_after))
        self.leave = zeroed(nn.Conv2d(width, features, 1))
        self.level = nn.Sequential(
            nn.Linear(1, hidden), nn.ReLU(), zeroed(nn.Linear(hidden, 2 * width * (blocks_before + blocks_after + 1)))
        )

    def forward(self, latent: Tensor, step: Tensor, net: Backbone) -> tuple[Tensor, Tensor]:
        """Split features, and the sketch [N,3,8h,8w] in the backbone's input range."""
        level = self.level(torch.log(step)[:, None]).view(len(step), -1, 2, self.width, 1, 1)
        x = F.relu(modulate(self.enter(latent), level[:, 0]))
        for index, block in enumerate(self.before):
            x = block(x, level[:, index + 1])
        if self.attention is not None:
            x = self.attention(x)
        sketch = F.pixel_shuffle(self.sketch(x) + self.shortcut(latent), self.stride)
        features = net.features(sketch)
        maps = self.grid.map(features) if self.grid else features
        x = x + resize(self.seen(maps), x)
        for index, block in enumerate(self.after):
            x = block(x, level[:, len(self.before) + index + 1])
        correction = resize(self.leave(x), maps)
        return (self.grid.tokens(correction) if self.grid else correction) + features, sketch

    def initialise(self, values: Tensor, image: Tensor) -> None:
        """Set the linear part of the sketch to the least-squares estimate of `image` [N,3,8h,8w] from latent values [N,C,h,w]."""
        inputs = F.unfold(values, 3, padding=1).transpose(1, 2).flatten(0, 1)
        inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1).double()
        patches = F.unfold(image, self.stride, stride=self.stride).transpose(1, 2).flatten(0, 1).double()
        ridge = 1e-3 * torch.eye(inputs.shape[1], dtype=torch.float64)
        found = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ patches).T.float()
        with torch.no_grad():
            self.shortcut.weight.copy_(found[:, :-1].reshape(self.shortcut.weight.shape))
            self.shortcut.bias.copy_(found[:, -1])


class Block(nn.Module):
    """A residual block, modulated by `level` [N,2,C,1,1]: scale minus 1 and shift of each channel."""

    def __init__(self, width: int, global_context: bool = False):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.bias)
        with torch.no_grad():
            self.second.weight.mul_(0.3)
        self.global_context = zeroed(nn.Linear(width, 2 * width)) if global_context else None

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        if self.global_context is not None:
            level = level + self.global_context(x.mean((2, 3))).view_as(level)
        return x + self.second(F.relu(modulate(self.first(x), level)))


class Attention(nn.Module):
    """Multi-head self-attention over a map [N,C,h,w]; keys and values are of means over 2x2 positions (PVT, arXiv 2102.12122)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise SystemExit(f"decoder.attention_heads is {heads}: decoder.width, {width}, is no multiple of it")
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        queries, pooled = (self.norm(part.flatten(2).transpose(1, 2)) for part in (x, F.avg_pool2d(x, KEY_POOLING)))
        q, k, v = (
            layer(part).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, part in ((self.query, queries), (self.key, pooled), (self.value, pooled))
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(attended).transpose(1, 2).reshape(x.shape)


def resize(x: Tensor, like: Tensor) -> Tensor:
    """`x` interpolated bilinearly to the height and width of `like`."""
    return x if x.shape[2:] == like.shape[2:] else F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def modulate(x: Tensor, level: Tensor) -> Tensor:
    """x [N,C,h,w] * (1 + level[:, 0]) + level[:, 1]."""
    return x * (1 + level[:, 0]) + level[:, 1]


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with weights and bias set to 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
