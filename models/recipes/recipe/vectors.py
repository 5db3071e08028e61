"""Test vectors of a bundle: images, exact symbols, packets and PyTorch's outputs (models/BUNDLE.md, section 8)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from . import data, packet

if TYPE_CHECKING:
    from .export import BundleParts

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
GEOMETRIES = ("photo", "frame")
MASK_STRIDE = 8


@dataclass(frozen=True)
class Vector:
    name: str
    geometry: str
    level: int
    image: str
    outputs: list[tuple[str, str, int]]  # task, file, stride

    def entry(self) -> str:
        rows = [
            f'\n[[vector]]\nname = "{self.name}"\ngeometry = "{self.geometry}"\nlevel = {self.level}\nimage = "{self.image}"',
            f'symbols = "vectors/{self.name}.symbols"\npacket = "vectors/{self.name}.packet"',
        ]
        rows += [f'[[vector.output]]\ntask = "{task}"\nfile = "{file}"\nstride = {stride}' for task, file, stride in self.outputs]
        return "\n".join(rows)


def pattern(width: int, height: int, seed: int) -> np.ndarray:
    """Ramps, a checkerboard and noise, u8 [H,W,3]: every value and every edge case of the first layer."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) % 256], 2)
    checks = np.where(((x // 8 + y // 8) % 2)[..., None], 255, 0)
    noise = rng.integers(0, 256, (height, width, 3))
    third = (x * 3 // width)[..., None]
    return np.choose(third, [ramp, checks, noise]).astype(np.uint8)


def images(parts: BundleParts) -> list[tuple[str, str, np.ndarray]]:
    """Name, geometry and pixels of every image."""
    side, frame = parts.config["photo"]["side"], parts.config["frame"]
    found = []
    for path in sorted(SAMPLES.glob("*.png")):
        image, geometry = Image.open(path).convert("RGB"), path.stem.split("-")[0]
        fitted = data.fit_photo(image, side, side) if geometry == "photo" else image
        found.append((path.stem, geometry, np.asarray(fitted, np.uint8)))
    found.append(("pattern-photo", "photo", pattern(side, side, 1)))
    found.append(("pattern-frame", "frame", pattern(frame["width"], frame["height"], 2)))
    return found


def plan(parts: BundleParts) -> list[tuple[str, str, np.ndarray, list[int]]]:
    """Every image at the default level, the first also at all others."""
    default, every = parts.config["levels"]["default"], range(len(parts.gains))
    return [
        (name, geometry, pixels, [*every] if index == 0 else [default])
        for index, (name, geometry, pixels) in enumerate(sorted(images(parts), key=lambda row: row[0] != "photo-0"))
    ]


def answers(parts: BundleParts, symbols: np.ndarray, level: int) -> dict[str, np.ndarray]:
    """PyTorch's outputs f32 of both tasks for one packet's symbols i8 [C,h,w]."""
    step = torch.tensor([parts.steps()[level]])
    with torch.inference_mode():
        latent = torch.from_numpy(symbols.astype(np.float32))[None] * step
        split, _ = parts.student.decoder(latent, step, parts.net)
        return {"classify": parts.tail.back(split).logits.numpy(), "segment": parts.segmenter(split).numpy()}


def write(parts: BundleParts, packed: bytes, bundle: Path) -> list[Vector]:
    """Writes the folder `vectors` of a bundle whose tables file is `packed`."""
    folder = bundle / "vectors"
    folder.mkdir(parents=True)
    shutil.copy(SAMPLES / "SOURCES.md", folder / "SOURCES.md")
    listed = []
    for image, geometry, pixels, levels in plan(parts):
        Image.fromarray(pixels).save(folder / f"{image}.png", optimize=True)
        latent = parts.head.latent(pixels)
        for level in levels:
            name = f"{image}-level{level}"
            symbols = parts.head.level(latent, parts.gains[level])
            (folder / f"{name}.symbols").write_bytes(symbols.tobytes())
            coded = packet.encode(packed, GEOMETRIES.index(geometry), level, symbols)
            (folder / f"{name}.packet").write_bytes(coded)
            outputs = []
            for task, output in answers(parts, symbols, level).items():
                if task == "classify" and geometry == "frame":
                    continue
                stride = MASK_STRIDE if task == "segment" else 1
                thinned = output[..., stride // 2 :: stride, stride // 2 :: stride] if task == "segment" else output
                file = f"vectors/{name}.{task}"
                (bundle / file).write_bytes(np.ascontiguousarray(thinned, "<f4").tobytes())
                outputs.append((task, file, stride))
            listed.append(Vector(name, geometry, level, f"vectors/{image}.png", outputs))
    return listed
