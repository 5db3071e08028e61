"""The trained networks that a bundle is made of, with weights rounded as the bundle stores them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import backbone, checkpoint, teacher
from .backbone import Backbone
from .custom import partitioned
from .custom.partitioned import PartitionedBackbone
from .head import IntHead, quantise_head
from .segmenter import Segmenter
from .student import Student


@dataclass
class BundleParts:
    """Networks and rate levels of one bundle. Large weights of the server's networks are rounded to f16."""

    config: dict
    student: Student
    head: IntHead
    net: Backbone | PartitionedBackbone  # unsplit network, the teacher of the distillation
    tail: Backbone | PartitionedBackbone  # classifies decoded features: `net`, or a copy of it that was fine-tuned
    segmenter: Segmenter | None  # None: the bundle has no segmentation task
    gains: list[float]  # of each level, f32 values

    def steps(self) -> list[float]:
        """Quantiser step 1 / gain of each level, computed in f32."""
        return [float(np.float32(1) / np.float32(gain)) for gain in self.gains]

    def decode(self, symbols: np.ndarray, level: int) -> torch.Tensor:
        """Split features f32 [1,C,h,w] that the server decodes from the symbols i8 [latent,h,w] of one packet."""
        step = torch.tensor([self.steps()[level]])
        return self.student.decoder(torch.from_numpy(symbols.astype(np.float32))[None] * step, step, self.net)[0]

    @torch.inference_mode()
    def outputs(self, split: torch.Tensor) -> dict[str, np.ndarray]:
        """Output f32 of every task's tail for split features."""
        found = {"classify": self.tail.back(split).logits.numpy()}
        return found if self.segmenter is None else found | {"segment": self.segmenter(split).numpy()}

    @torch.inference_mode()
    def unsplit_outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Output f32 of every task's unsplit network for pixels u8 [H,W,3]."""
        split = self.net.front(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
        found = {"classify": self.net.back(split).logits.numpy()}
        return found if self.segmenter is None else found | {"segment": self.segmenter(split).numpy()}


def load(config: dict, work: Path) -> BundleParts:
    """The averaged weights of WORK/student.pt and those of the tails."""
    state = checkpoint.load(work / "student.pt")
    student = Student(config)
    student.load_state_dict(state["average"])
    student.eval().requires_grad_(False)
    return custom(config, work, student) if teacher.is_custom(config) else default(config, work, student, state)


def default(config: dict, work: Path, student: Student, state: dict) -> BundleParts:
    """Parts with an EfficientNet-Lite backbone, which graph.py writes as ONNX node by node."""
    net = tail = backbone.load(config["backbone"]["name"])
    finetuned = work / "classify.pt"
    tail_weights = state.get("tail_average")
    if "classify" in config and finetuned.is_file():
        tail_weights = checkpoint.load(finetuned)["average"]
    if tail_weights is not None:
        tail = backbone.load(config["backbone"]["name"])
        tail.load_state_dict(tail_weights)
    segmenter = Segmenter(net)
    trained = work / "segment.pt"
    if trained.is_file():
        segmenter.load_state_dict(checkpoint.load(trained)["average"])
    else:
        print(f"{trained} is missing: the segmentation tail is untrained (run `python -m recipe train`)")
    rounded = [round_to_f16(part) for part in (student.decoder, net, tail, segmenter)]
    student.decoder = rounded[0]
    return BundleParts(config, student, quantise_head(student.head), *rounded[1:], student.levels.export_gains())


def custom(config: dict, work: Path, student: Student) -> BundleParts:
    """Parts with a custom backbone, which PyTorch's exporter writes as ONNX; it has no segmentation task."""
    net = teacher.load(config, work)
    for module in (student.decoder, net):
        for weight in module.parameters():
            if weight.numel() >= partitioned.LARGE:
                weight.data = weight.data.half().float()
    return BundleParts(config, student, quantise_head(student.head), net, net, None, student.levels.export_gains())


def round_to_f16(module: nn.Module) -> nn.Module:
    """A copy whose convolution and linear weights are rounded to f16, as the bundle stores them; the level network keeps f32."""
    module = copy.deepcopy(module).eval().requires_grad_(False)
    for name, part in module.named_modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)) and not name.startswith("level"):
            part.weight.data = part.weight.data.half().float()
    return module
