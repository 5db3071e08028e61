"""Test vectors of a bundle: images, exact symbols, packets and PyTorch's outputs (models/BUNDLE.md, section 8)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import data, packet
from .bundle_parts import BundleParts

SAMPLES = Path(__file__).resolve().parent.parent / "samples"  # free images, named GEOMETRY-NUMBER.png
GEOMETRIES = ("photo", "frame")  # in the manifest's order; their index travels in a packet
MASK_STRIDE = 8  # of a stored segmentation output, every eighth row and column is kept


def pattern(width: int, height: int, seed: int) -> np.ndarray:
    """Ramps, a checkerboard and noise, u8 [H,W,3]: all 256 values and the extremes that the first layer can reach."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) % 256], 2)
    checks = np.where(((x // 8 + y // 8) % 2)[..., None], 255, 0)
    noise = rng.integers(0, 256, (height, width, 3))
    third = (x * 3 // width)[..., None]
    return np.choose(third, [ramp, checks, noise]).astype(np.uint8)


def images(parts: BundleParts) -> list[tuple[str, str, np.ndarray]]:
    """Name, geometry and pixels u8 [H,W,3] of every image: the samples of each geometry that the bundle has, and a pattern."""
    side, frame = parts.config["photo"]["side"], parts.config.get("frame")
    found = []
    for path in sorted(SAMPLES.glob("*.png")):
        image, geometry = Image.open(path).convert("RGB"), path.stem.split("-")[0]
        if geometry == "photo":
            found.append((path.stem, geometry, np.asarray(data.fit_photo(image, side, side), np.uint8)))
        elif frame:
            found.append((path.stem, geometry, np.asarray(image, np.uint8)))
    found.append(("pattern-photo", "photo", pattern(side, side, 1)))
    if frame:
        found.append(("pattern-frame", "frame", pattern(frame["width"], frame["height"], 2)))
    return found


def plan(parts: BundleParts) -> list[tuple[str, str, np.ndarray, list[int]]]:
    """Name, geometry, pixels and levels of every image: all levels for photo-0, which comes first, else the default level."""
    default, every = parts.config["levels"]["default"], range(len(parts.gains))
    return [
        (name, geometry, pixels, [*every] if index == 0 else [default])
        for index, (name, geometry, pixels) in enumerate(sorted(images(parts), key=lambda row: row[0] != "photo-0"))
    ]


@torch.inference_mode()
def outputs(parts: BundleParts, symbols: np.ndarray, level: int) -> dict[str, np.ndarray]:
    """PyTorch's output f32 of every task for one packet's symbols i8 [C,h,w]."""
    return parts.outputs(parts.decode(symbols, level))


def thinned(output: np.ndarray, stride: int) -> np.ndarray:
    """Every `stride`-th row and column of a segmentation output [N,C,H,W], from the middle of the first cell."""
    return output[..., stride // 2 :: stride, stride // 2 :: stride] if stride > 1 else output


def write(parts: BundleParts, packed: bytes, bundle: Path) -> list[dict]:
    """Write the folder `vectors` of a bundle whose tables file is `packed`; returns the entries of the manifest."""
    folder = bundle / "vectors"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(SAMPLES / "SOURCES.md", folder / "SOURCES.md")
    entries = []
    for image, geometry, pixels, levels in plan(parts):
        Image.fromarray(pixels).save(folder / f"{image}.png", optimize=True)
        latent = parts.head.latent(pixels)
        for level in levels:
            name = f"{image}-level{level}"
            symbols = parts.head.level(latent, parts.gains[level])
            (folder / f"{name}.symbols").write_bytes(symbols.tobytes())
            (folder / f"{name}.packet").write_bytes(packet.encode(packed, GEOMETRIES.index(geometry), level, symbols))
            listed = []
            for task, output in outputs(parts, symbols, level).items():
                if task == "classify" and geometry == "frame":
                    continue  # classification of a road frame is no task of the bundle
                stride = MASK_STRIDE if task == "segment" else 1
                file = f"vectors/{name}.{task}"
                (bundle / file).write_bytes(np.ascontiguousarray(thinned(output, stride), "<f4").tobytes())
                listed.append({"task": task, "file": file, "stride": stride})
            files = {key: f"vectors/{name}.{key}" for key in ("symbols", "packet")}
            entries.append({"name": name, "geometry": geometry, "level": level, "image": f"vectors/{image}.png", **files, "output": listed})
    return entries
