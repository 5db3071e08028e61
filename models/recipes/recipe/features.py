"""Teacher targets of every training crop, computed once and kept as memory-mapped arrays.

`WORK/features/`: pixels u8 [M,256,256,3], split f16 [M,48,32,32], stride16 f16 [M,120,16,16],
stride32 f16 [M,352,8,8], pooled f16 [M,1280], logits f32 [M,1000], and `done.json`.
"""

from __future__ import annotations

import json
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from . import backbone, data
from .progress import Progress

FRONT_BATCH = 1  # fits the caches
BACK_BATCH = 16
FIELDS = ("split", "stride16", "stride32", "pooled", "logits")


class FeatureCache:
    """Read access to the arrays, as far as they have been computed."""

    def __init__(self, folder: Path):
        done = folder / "done.json"
        if not done.is_file():
            raise SystemExit(f"{folder} holds no features: run `python -m recipe features` first")
        self.count = json.loads(done.read_text())["count"]
        self.pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FIELDS}

    def batch(self, index: np.ndarray, fields: tuple[str, ...]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Pixels f32 [N,3,H,W] and the asked fields as f32, NCHW in channels-last memory."""
        index = np.sort(index)
        pixels = torch.from_numpy(self.pixels[index]).permute(0, 3, 1, 2).float()
        return pixels, {name: image_layout(torch.from_numpy(self.arrays[name][index]).float()) for name in fields}

    def draw(self, rng: np.random.Generator, size: int, fields: tuple[str, ...]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """A batch of random crops."""
        pixels, wanted = self.batch(rng.integers(0, self.count, size), fields)
        return image_layout(pixels), wanted

    def first(self, size: int) -> torch.Tensor:
        return self.batch(np.arange(min(size, self.count)), ())[0]


def image_layout(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


@torch.inference_mode()
def teacher_features(net: backbone.Backbone, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """All targets of a batch of pixels f32 [N,3,H,W]."""
    split = torch.cat([net.front(image_layout(part)) for part in pixels.split(FRONT_BATCH)])
    return {"split": split, **vars(net.back(split))}


def begun(folder: Path, name: str, total: int) -> int:
    """How many of `total` items lie in FOLDER; refused if it was begun for another number."""
    done = folder / "done.json"
    if not done.is_file():
        return 0
    held = len(np.load(folder / f"{name}.npy", mmap_mode="r"))
    if held != total:
        raise SystemExit(f"{folder} was begun for {held} items, the config makes {total}: remove it, or give another --work")
    return json.loads(done.read_text())["count"]


def run(config: dict, folder: Path, source: Path) -> None:
    """Compute what is missing; a second call continues where the first stopped.

    One single-threaded worker per core writes straight into the shared files: no barrier
    between cores, so a busy machine slows the work no more than its share.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "done.json"
    total = len(data.training_crops(config, source))
    start = begun(folder, "pixels", total)
    if not start:
        for name, (kind, shape) in shapes(backbone.of(config, folder.parent), config["data"]["crop_side"]).items():
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (total, *shape))
    progress = Progress("features", total, start)
    with get_context("spawn").Pool(config["threads"], prepare, (config, folder, source)) as pool:
        for last in pool.imap(fill, range(start, total, BACK_BATCH)):
            done.write_text(json.dumps({"count": last, "of": total}))
            progress.step(last)


def shapes(net: backbone.Backbone, side: int) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and shape of one crop's entry in each array."""
    with torch.inference_mode():
        targets = teacher_features(net, torch.zeros(1, 3, side, side))
    shape = {name: (np.float32 if name == "logits" else np.float16, tuple(t.shape[1:])) for name, t in targets.items()}
    return {"pixels": (np.uint8, (side, side, 3)), **shape}


def prepare(config: dict, folder: Path, source: Path) -> None:
    """What one worker keeps: its network, the crops and the open arrays."""
    torch.set_num_threads(1)
    worker["net"] = backbone.of(config, folder.parent).to(memory_format=torch.channels_last)
    worker["crops"] = data.training_crops(config, source)
    worker["arrays"] = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("pixels", *FIELDS)}


def fill(first: int) -> int:
    """Compute one batch of crops; returns where it ends."""
    pixels = np.stack([cut() for cut in worker["crops"][first : first + BACK_BATCH]])
    targets = {name: t.numpy() for name, t in teacher_features(worker["net"], torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).items()}
    for name, value in {"pixels": pixels, **targets}.items():
        worker["arrays"][name][first : first + len(pixels)] = value
    return first + len(pixels)


worker: dict = {}
