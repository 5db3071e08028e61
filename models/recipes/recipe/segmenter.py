"""The segmentation tail: a copy of the backbone's groups 4 to 7, and a small network that fuses features of three strides."""

from __future__ import annotations

import copy
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from . import checkpoint
from .backbone import SPLIT_GROUP, Backbone

CLASSES = 11  # of CamVid
UNLABELLED = 11  # value of pixels without a class
NAMES = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
COLOURS = ["#8080ff", "#803030", "#c0c080", "#804080", "#3c28de", "#808000", "#c08080", "#404080", "#400080", "#404000", "#0080c0"]


class Fusion(nn.Module):
    """Features at strides 8, 16 and 32 to class scores [N,11,2h,2w] at stride 4."""

    def __init__(self, channels: tuple[int, int, int] = (48, 120, 352), width: int = 96):
        super().__init__()
        self.from32 = nn.Conv2d(channels[2], 128, 1)
        self.context = nn.Conv2d(channels[2], 128, 1)
        self.from16 = nn.Conv2d(channels[1], 128, 1)
        self.mix16 = nn.Conv2d(128, 128, 3, padding=1)
        self.to8 = nn.Conv2d(128, width, 1)
        self.from8 = nn.Conv2d(channels[0], width, 1)
        self.mix8 = nn.Conv2d(width, width, 3, padding=1)
        self.last8 = nn.Conv2d(width, width, 3, padding=1)
        self.score = nn.Conv2d(width, 4 * CLASSES, 1)

    def forward(self, split: Tensor, stride16: Tensor, stride32: Tensor) -> Tensor:
        context = self.context(stride32.mean((2, 3), keepdim=True))
        x = F.relu(self.from32(stride32) + context)
        x = F.relu(self.from16(stride16) + resize(x, stride16))
        x = x + F.relu(self.mix16(x))
        x = F.relu(self.from8(split) + resize(self.to8(x), split))
        x = x + F.relu(self.mix8(x))
        x = x + F.relu(self.last8(x))
        return F.pixel_shuffle(self.score(x), 2)


class Segmenter(nn.Module):
    """Split features [N,48,h,w] to logits [N,11,8h,8w]; only the fusion is trained."""

    def __init__(self, net: Backbone):
        super().__init__()
        self.groups = copy.deepcopy(net.groups[SPLIT_GROUP:])
        self.fusion = Fusion()

    def deep(self, split: Tensor) -> tuple[Tensor, Tensor]:
        """Features at strides 16 and 32."""
        stride16 = self.groups[1](self.groups[0](split))
        return stride16, self.groups[3](self.groups[2](stride16))

    def coarse(self, split: Tensor) -> Tensor:
        """Class scores at stride 4."""
        return self.fusion(split, *self.deep(split))

    def forward(self, split: Tensor) -> Tensor:
        return F.interpolate(self.coarse(split), scale_factor=4, mode="bilinear", align_corners=False)


def load(config: dict, net: Backbone, work: Path, *names: str) -> Segmenter:
    """The first of these checkpoints that WORK has; without any, the segmentation tail of the shipped bundle."""
    segmenter = Segmenter(net)
    found = next((work / name for name in names if (work / name).is_file()), None)
    if found:
        segmenter.load_state_dict(checkpoint.load(found)["average"])
        return segmenter
    file = Path("../bundles") / config["backbone"]["name"] / "reference-segment.onnx"
    if not file.is_file():
        raise SystemExit(
            f"neither {work / names[-1]} nor {file} exists: train the segmentation tail with configs/lite2.toml in the same --work"
        )
    return of_bundle(file, net)


def of_bundle(file: Path, net: Backbone) -> Segmenter:
    """The segmentation tail whose fusion a bundle's `file` holds."""
    segmenter = Segmenter(net)
    stored = {tensor.name.removesuffix(".f16"): numpy_helper.to_array(tensor) for tensor in onnx.load(str(file)).graph.initializer}
    for name, weight in segmenter.fusion.state_dict().items():
        weight.copy_(torch.from_numpy(stored[f"fusion.{name}"].astype("f4")))
    return segmenter


def resize(x: Tensor, like: Tensor) -> Tensor:
    """`x` interpolated bilinearly to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class Confusion:
    """Confusion matrix of segmented images, and the intersection over union computed from it."""

    def __init__(self):
        self.counts = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)

    def add(self, found: Tensor, true: Tensor) -> None:
        """Count the pixels of two class maps of equal shape; unlabelled pixels are left out."""
        labelled = true < CLASSES
        pairs = true[labelled].long() * CLASSES + found[labelled].long()
        self.counts += torch.bincount(pairs, minlength=CLASSES**2).view(CLASSES, CLASSES)

    def each(self) -> Tensor:
        """Intersection over union of every class, f64 [11]."""
        hit = self.counts.diag().double()
        return hit / (self.counts.sum(0) + self.counts.sum(1) - hit).clamp_min(1)

    def mean(self) -> float:
        """Mean intersection over union."""
        return self.each().mean().item()
