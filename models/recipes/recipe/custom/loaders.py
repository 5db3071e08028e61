"""Loaders of custom backbones: `timm:NAME`, `torchvision:NAME` or `onnx:FILE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

IMAGENET = (  # mean and standard deviation of ImageNet's pixels, 0..255
    [123.675, 116.28, 103.53],
    [58.395, 57.12, 57.375],
)


@dataclass(frozen=True)
class LoadedBackbone:
    """A frozen classifier of normalised images [N,3,side,side] to logits [N,classes], and how to normalise for it."""

    name: str
    net: nn.Module
    side: int
    mean: list[float]  # of each channel, in units of pixels 0..255
    std: list[float]
    licence: str  # of the weights


def load(text: str, pretrained: bool, weights: Path | None, side: int | None) -> LoadedBackbone:
    """The network that `--backbone` names.

    `pretrained` fetches the library's weights; `weights` is a file with a state dict that replaces them; `side` replaces the
    network's own image size. Exits with a message where the network is unknown or cannot be read.
    """
    kind, _, name = text.partition(":")
    makers = {"timm": timm, "torchvision": torchvision, "onnx": onnx}
    if kind not in makers or not name:
        raise SystemExit(f"--backbone {text}: timm:NAME, torchvision:NAME or onnx:FILE")
    net, found, mean, std = makers[kind](name, pretrained)
    if weights:
        import torch

        net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    shown = Path(name).stem if kind == "onnx" else name
    return LoadedBackbone(shown, net.eval().requires_grad_(False), side or found, mean, std, "see the licence of its weights")


def timm(name: str, pretrained: bool) -> tuple[nn.Module, int, list[float], list[float]]:
    """Network, image side, mean and standard deviation of a timm model."""
    try:
        import timm as library
    except ModuleNotFoundError:
        raise SystemExit("timm is missing: pip install timm") from None
    if not library.is_model(name):
        near = ", ".join(library.list_models(f"*{name.split('_')[0]}*")[:8])
        raise SystemExit(f"timm has no model {name}; similar names: {near}")
    net = library.create_model(name, pretrained=pretrained)
    settings = library.data.resolve_model_data_config(net)
    mean, std = ([255 * value for value in settings[key]] for key in ("mean", "std"))
    return net, settings["input_size"][-1], mean, std


def torchvision(name: str, pretrained: bool) -> tuple[nn.Module, int, list[float], list[float]]:
    """The same of a torchvision classifier, which is normalised as ImageNet networks are."""
    from torchvision import models

    if name not in models.list_models(models):
        raise SystemExit(f"torchvision has no classifier {name}; it has {', '.join(models.list_models(models))}")
    net = models.get_model(name, weights="DEFAULT" if pretrained else None)
    return net, getattr(net, "image_size", 224), *IMAGENET


def onnx(path: str, pretrained: bool) -> tuple[nn.Module, int, list[float], list[float]]:
    """The same of an ONNX file with one image input and one output of logits; its weights are those in the file."""
    import onnx as library

    try:
        from onnx2torch import convert
    except ModuleNotFoundError:
        raise SystemExit("onnx2torch is missing: pip install onnx2torch") from None
    if not Path(path).is_file():
        raise SystemExit(f"{path} is missing")
    model = library.load(path)
    image = model.graph.input[0]
    shape = [d.dim_value for d in image.type.tensor_type.shape.dim]
    if len(shape) != 4 or shape[1] != 3 or len(model.graph.output) != 1:
        raise SystemExit(f"{path}: its input {image.name} has shape {shape}; [N,3,H,W] and exactly one output are needed")
    try:
        return convert(model), shape[2] or 224, *IMAGENET
    except NotImplementedError as error:
        raise SystemExit(f"{path} cannot be read: {error}") from None
