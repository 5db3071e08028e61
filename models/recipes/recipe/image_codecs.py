"""The plain alternative: send the picture itself. JPEG and WebP by Pillow, answered by the unsplit networks.

The picture is coded at the network's own size, after the resize: smaller than any camera's file. Every quality's row
is kept when it is measured; a second call measures what is missing.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import backbone, data, loss, rows, segmenter
from .progress import Progress
from .measure import fitted, tensor
from .rows import Row
from .segmenter import Confusion, Segmenter

QUALITIES = {"jpeg": (5, 10, 25, 50, 80), "webp": (1, 10, 30, 60, 85)}
OPTIONS = {"jpeg": {"optimize": True}, "webp": {"method": 6}}


def coded(pixels: np.ndarray, kind: str, quality: int) -> tuple[int, np.ndarray]:
    """Bytes of the file and the pixels u8 [H,W,3] it decodes to."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=quality, **OPTIONS[kind])
    size = file.tell()
    file.seek(0)
    return size, np.asarray(Image.open(file).convert("RGB"), np.uint8)


@torch.inference_mode()
def run(config: dict, work: Path, source: Path, of: str) -> None:
    torch.set_num_threads(1)
    net = backbone.load(config["backbone"]["name"]).to(memory_format=torch.channels_last)
    settings = [(kind, quality) for kind, qualities in QUALITIES.items() for quality in qualities]
    if of != "frames":
        photos(config, work, source, net, [pair for pair in settings if kept(work, *pair).bytes is None])
    if of != "photos":
        frames(config, work, source, net, [pair for pair in settings if kept(work, *pair).frame_bytes is None])


def kept(work: Path, kind: str, quality: int) -> Row:
    """The row of one quality as far as it is measured."""
    path = work / "rows" / f"{kind}-{quality:02}.json"
    return Row(**json.loads(path.read_text())[0]) if path.is_file() else Row(kind, str(quality), kind, "-", 0, 0)


def extend(work: Path, kind: str, quality: int, **figures: float) -> None:
    rows.keep(work, [replace(kept(work, kind, quality), **figures)], f"{kind}-{quality:02}")


def photos(config: dict, work: Path, source: Path, net: backbone.Backbone, settings: list[tuple[str, int]]) -> None:
    """Held-out photos: bytes, agreement, divergence."""
    whole = [fitted(config, photo.image()) for photo in data.photos(config, source)[1]] if settings else []
    wanted = [net(tensor(pixels)) for pixels in whole]
    for kind, quality in settings:
        sizes, agree, far = [], [], []
        progress = Progress(f"{kind} {quality} photos", len(whole))
        for number, (pixels, logits) in enumerate(zip(whole, wanted, strict=True)):
            size, seen = coded(pixels, kind, quality)
            found = net(tensor(seen))
            sizes.append(size)
            agree.append(int(found.argmax()) == int(logits.argmax()))
            far.append(loss.divergence(found, logits).item())
            progress.step(number + 1)
        means = (float(np.mean(values)) for values in (sizes, agree, far))
        extend(work, kind, quality, **dict(zip(("bytes", "agreement", "divergence"), means, strict=True)))


def frames(config: dict, work: Path, source: Path, net: backbone.Backbone, settings: list[tuple[str, int]]) -> None:
    """CamVid val: bytes and mIoU through the segmentation tail in WORK, or the bundle's."""
    net_segmenter = segmenter.kept(config, net, work, "segment.pt").eval().to(memory_format=torch.channels_last)
    tar = data.Tar(source / config["data"]["camvid_val"])
    road = [data.frame(tar, name) for name in data.camvid(tar)] if settings else []
    whole = masks(net, net_segmenter, road, lambda pixels: pixels, "unsplit") if settings else 0.0
    for kind, quality in settings:
        sizes: list[int] = []

        def through(pixels: np.ndarray, kind: str = kind, quality: int = quality, sizes: list[int] = sizes) -> np.ndarray:
            size, seen = coded(pixels, kind, quality)
            sizes.append(size)
            return seen

        miou = masks(net, net_segmenter, road, through, f"{kind} {quality} frames")
        extend(work, kind, quality, frame_bytes=float(np.mean(sizes)), miou=miou, miou_unsplit=whole)


def masks(net: backbone.Backbone, net_segmenter: Segmenter, road: list, through, name: str) -> float:
    """mIoU of frames that went `through` a coder."""
    found = Confusion()
    progress = Progress(name, len(road))
    for number, (pixels, classes) in enumerate(road):
        found.add(net_segmenter(net.front(tensor(through(pixels)))).argmax(1)[0], torch.from_numpy(classes))
        progress.step(number + 1)
    return found.mean()
