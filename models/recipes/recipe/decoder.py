"""The server's half of the bottleneck: latent values back to the features behind block group 3.

The latent becomes an image first, because an image is what the frozen front knows how to read:

    latent -> trunk at stride 8 -> sketch [N,3,8h,8w] -> frozen stem and groups 1..3 -> + correction -> split features

The head starts as a linear transform of the image's patches and the sketch as its inverse, so the
untrained pair is a plain transform codec; training bends both towards what the network feels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbone import Backbone
from .head import STRIDE

KEY_POOLING = 2  # places of a row or column that share a key


@dataclass(frozen=True)
class TokenGrid:
    """Where the patches of a transformer's tokens [N,D,T,1] lie: after `prefix` others, row by row."""

    prefix: int
    rows: int
    columns: int

    def map(self, tokens: Tensor) -> Tensor:
        """Tokens to [N,D,rows,columns], the prefix left out."""
        return tokens[:, :, self.prefix :, 0].unflatten(2, (self.rows, self.columns))

    def tokens(self, maps: Tensor) -> Tensor:
        """[N,D,rows,columns] to tokens, zero where the prefix is."""
        return F.pad(maps.flatten(2), (self.prefix, 0))[..., None]


class Decoder(nn.Module):
    """Latent f32 [N,C,h,w] (symbol * step) and step f32 [N] to split features [N,48,h,w].

    Dense 3x3 residual blocks; the level enters as a scale and a shift per block and channel, with `whole` also the mean of
    the map that reaches the block; with `attention` heads, one layer of self-attention stands before the sketch.
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
        """Split features and the sketch in the backbone's input range [N,3,8h,8w]."""
        level = self.level(torch.log(step)[:, None]).view(len(step), -1, 2, self.width, 1, 1)
        x = F.relu(modulate(self.enter(latent), level[:, 0]))
        for index, block in enumerate(self.before):
            x = block(x, level[:, index + 1])
        if self.attention is not None:
            x = self.attention(x)
        sketch = F.pixel_shuffle(self.sketch(x) + self.shortcut(latent), self.stride)
        seen = net.read(sketch)
        maps = self.grid.map(seen) if self.grid else seen
        x = x + fitted(self.seen(maps), x)
        for index, block in enumerate(self.after):
            x = block(x, level[:, len(self.before) + index + 1])
        found = fitted(self.leave(x), maps)
        return (self.grid.tokens(found) if self.grid else found) + seen, sketch

    def start_from(self, values: Tensor, image: Tensor) -> None:
        """Least-squares sketch of `image` [N,3,8h,8w] from latent values [N,C,h,w]."""
        known = F.unfold(values, 3, padding=1).transpose(1, 2).flatten(0, 1)
        known = torch.cat([known, torch.ones(len(known), 1)], 1).double()
        patches = F.unfold(image, self.stride, stride=self.stride).transpose(1, 2).flatten(0, 1).double()
        ridge = 1e-3 * torch.eye(known.shape[1], dtype=torch.float64)
        found = torch.linalg.solve(known.T @ known + ridge, known.T @ patches).T.float()
        with torch.no_grad():
            self.shortcut.weight.copy_(found[:, :-1].reshape(self.shortcut.weight.shape))
            self.shortcut.bias.copy_(found[:, -1])


class Block(nn.Module):
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
    """Multi-head self-attention over a map [N,C,h,w]; keys and values are means of 2x2 places, as in pyramid vision transformers."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise SystemExit(f"decoder.attention_heads is {heads}: decoder.width, {width}, is no multiple of it")
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        asked, known = (self.norm(part.flatten(2).transpose(1, 2)) for part in (x, F.avg_pool2d(x, KEY_POOLING)))
        q, k, v = (
            layer(part).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, part in ((self.query, asked), (self.key, known), (self.value, known))
        )
        found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(found).transpose(1, 2).reshape(x.shape)


def fitted(x: Tensor, like: Tensor) -> Tensor:
    """x at the height and width of `like`."""
    return x if x.shape[2:] == like.shape[2:] else F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def modulate(x: Tensor, level: Tensor) -> Tensor:
    """x [N,C,h,w] times 1 + level[:,0] plus level[:,1]."""
    return x * (1 + level[:, 0]) + level[:, 1]


def zeroed(layer: nn.Module) -> nn.Module:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
