"""The alternative of transmitting the image: JPEG and WebP by Pillow, classified and segmented by the unsplit networks.

The image is coded at the network's input size, after the resize. The row of each quality is stored when it is measured; a
second call measures only what is missing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import backbone, data, loss, rows, segmenter
from .measure import tensor
from .progress import Progress
from .rows import Row
from .segmenter import Confusion, Segmenter

QUALITIES = {"jpeg": (5, 10, 25, 50, 80), "webp": (1, 10, 30, 60, 85)}
OPTIONS = {"jpeg": {"optimize": True}, "webp": {"method": 6}}


def transcode(pixels: np.ndarray, codec: str, quality: int) -> tuple[int, np.ndarray]:
    """Size of the coded file in bytes, and the decoded pixels u8 [H,W,3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, codec, quality=quality, **OPTIONS[codec])
    size = file.tell()
    file.seek(0)
    return size, np.asarray(Image.open(file).convert("RGB"), np.uint8)


@torch.inference_mode()
def run(config: dict, work: Path, source: Path, images: str) -> None:
    """Measure every quality that has no row in WORK yet, on `photos`, `frames` or `both`."""
    torch.set_num_threads(1)
    net = backbone.load(config["backbone"]["name"]).to(memory_format=torch.channels_last)
    settings = [(codec, quality) for codec, qualities in QUALITIES.items() for quality in qualities]
    if images != "frames":
        photos(config, work, source, net, [pair for pair in settings if stored_row(work, *pair).bytes is None])
    if images != "photos":
        frames(config, work, source, net, [pair for pair in settings if stored_row(work, *pair).frame_bytes is None])


def stored_row(work: Path, codec: str, quality: int) -> Row:
    """The row of one quality with what has been measured so far."""
    path = work / "rows" / f"{codec}-{quality:02}.json"
    return Row(**json.loads(path.read_text())[0]) if path.is_file() else Row(codec, str(quality), codec, "-", 0, 0)


def extend(work: Path, codec: str, quality: int, **figures: float) -> None:
    """Add figures to the row of one quality."""
    rows.save(work, [replace(stored_row(work, codec, quality), **figures)], f"{codec}-{quality:02}")


def photos(config: dict, work: Path, source: Path, net: backbone.Backbone, settings: list[tuple[str, int]]) -> None:
    """Measure bytes, agreement and divergence on the held-out photos."""
    originals = [data.photo_pixels(config, photo.image()) for photo in data.photos(config, source)[1]] if settings else []
    teachers = [net(tensor(pixels)) for pixels in originals]
    for codec, quality in settings:
        sizes, agreement, divergence = [], [], []
        progress = Progress(f"{codec} {quality} photos", len(originals))
        for number, (pixels, teacher) in enumerate(zip(originals, teachers, strict=True)):
            size, decoded = transcode(pixels, codec, quality)
            logits = net(tensor(decoded))
            sizes.append(size)
            agreement.append(int(logits.argmax()) == int(teacher.argmax()))
            divergence.append(loss.divergence(logits, teacher).item())
            progress.step(number + 1)
        means = (float(np.mean(values)) for values in (sizes, agreement, divergence))
        extend(work, codec, quality, **dict(zip(("bytes", "agreement", "divergence"), means, strict=True)))


def frames(config: dict, work: Path, source: Path, net: backbone.Backbone, settings: list[tuple[str, int]]) -> None:
    """Measure bytes and mIoU on CamVid val, with the segmentation tail in WORK or that of the bundle."""
    tail = segmenter.load(config, net, work, "segment.pt").eval().to(memory_format=torch.channels_last)
    tar = data.Tar(source / config["data"]["camvid_val"])
    originals = [data.frame(tar, name) for name in data.camvid(tar)] if settings else []
    unsplit = miou_of(net, tail, originals, lambda pixels: pixels, "unsplit") if settings else 0.0
    for codec, quality in settings:
        sizes: list[int] = []

        def through_codec(pixels: np.ndarray, codec: str = codec, quality: int = quality, sizes: list[int] = sizes) -> np.ndarray:
            size, decoded = transcode(pixels, codec, quality)
            sizes.append(size)
            return decoded

        miou = miou_of(net, tail, originals, through_codec, f"{codec} {quality} frames")
        extend(work, codec, quality, frame_bytes=float(np.mean(sizes)), miou=miou, miou_unsplit=unsplit)


def miou_of(
    net: backbone.Backbone,
    tail: Segmenter,
    frames: list[tuple[np.ndarray, np.ndarray]],
    transform: Callable[[np.ndarray], np.ndarray],
    name: str,
) -> float:
    """mIoU of frames (pixels, classes) whose pixels are transformed first."""
    found = Confusion()
    progress = Progress(name, len(frames))
    for number, (pixels, classes) in enumerate(frames):
        found.add(tail(net.front(tensor(transform(pixels)))).argmax(1)[0], torch.from_numpy(classes))
        progress.step(number + 1)
    return found.mean()
