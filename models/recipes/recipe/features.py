"""Teacher features of every training crop, computed once and stored as memory-mapped arrays.

`WORK/features/`: pixels u8 [M,256,256,3], split f16 [M,48,32,32], stride16 f16 [M,120,16,16],
stride32 f16 [M,352,8,8], pooled f16 [M,1280], logits f32 [M,1000], and `done.json`.
"""

from __future__ import annotations

import json
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from . import data, teacher
from .backbone import Backbone
from .custom.partitioned import PartitionedBackbone
from .progress import Progress

FRONT_BATCH = 1  # the early layers' activations then fit the processor's caches
BACK_BATCH = 16
FIELDS = ("split", "stride16", "stride32", "pooled", "logits")


class FeatureCache:
    """Read access to the arrays of WORK/features, up to the last crop that has been computed."""

    def __init__(self, folder: Path):
        done = folder / "done.json"
        if not done.is_file():
            raise SystemExit(f"{folder} holds no features: run `python -m recipe features` first")
        self.count = json.loads(done.read_text())["count"]
        self.pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FIELDS}

    def batch(self, index: np.ndarray, fields: tuple[str, ...]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Pixels f32 [N,3,H,W] and the teacher's `fields` as f32, of the crops at `index`; features in channels-last memory."""
        index = np.sort(index)
        pixels = torch.from_numpy(self.pixels[index]).permute(0, 3, 1, 2).float()
        return pixels, {name: image_layout(torch.from_numpy(self.arrays[name][index]).float()) for name in fields}

    def draw(self, rng: np.random.Generator, size: int, fields: tuple[str, ...]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """A batch of random crops."""
        pixels, targets = self.batch(rng.integers(0, self.count, size), fields)
        return image_layout(pixels), targets

    def first(self, size: int) -> torch.Tensor:
        """Pixels of the first `size` crops."""
        return self.batch(np.arange(min(size, self.count)), ())[0]


def image_layout(x: torch.Tensor) -> torch.Tensor:
    """Images and feature maps [N,C,H,W] in channels-last memory; other tensors as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


@torch.inference_mode()
def teacher_features(net: Backbone | PartitionedBackbone, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """All fields for a batch of pixels f32 [N,3,H,W]."""
    split = torch.cat([net.front(image_layout(part)) for part in pixels.split(FRONT_BATCH)])
    return {"split": split, **vars(net.back(split))}


def count_done(folder: Path, name: str, total: int) -> int:
    """Items that are already computed in `folder`; exits if the arrays were created for another number than `total`."""
    done = folder / "done.json"
    if not done.is_file():
        return 0
    held = len(np.load(folder / f"{name}.npy", mmap_mode="r"))
    if held != total:
        raise SystemExit(f"{folder} was created for {held} items, the config has {total}: remove it, or give another --work")
    return json.loads(done.read_text())["count"]


def run(config: dict, folder: Path, source: Path) -> None:
    """Compute the features that are missing.

    Each worker process has one thread and writes straight into the shared files, so that the workers never wait for each
    other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "done.json"
    total = len(data.training_crops(config, source))
    start = count_done(folder, "pixels", total)
    if not start:
        for name, (kind, shape) in shapes(teacher.load(config, folder.parent), config["data"]["crop_side"]).items():
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (total, *shape))
    progress = Progress("features", total, start)
    with get_context("spawn").Pool(config["threads"], prepare, (config, folder, source)) as pool:
        for last in pool.imap(fill, range(start, total, BACK_BATCH)):
            done.write_text(json.dumps({"count": last, "of": total}))
            progress.step(last)


def shapes(net: Backbone | PartitionedBackbone, side: int) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and shape of one crop in each array."""
    with torch.inference_mode():
        targets = teacher_features(net, torch.zeros(1, 3, side, side))
    shape = {name: (np.float32 if name == "logits" else np.float16, tuple(t.shape[1:])) for name, t in targets.items()}
    return {"pixels": (np.uint8, (side, side, 3)), **shape}


def prepare(config: dict, folder: Path, source: Path) -> None:
    """Set up a worker process: its network, the crops and the open arrays."""
    torch.set_num_threads(1)
    worker["net"] = teacher.load(config, folder.parent).to(memory_format=torch.channels_last)
    worker["crops"] = data.training_crops(config, source)
    worker["arrays"] = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("pixels", *FIELDS)}


def fill(first: int) -> int:
    """Compute one batch of crops from index `first` on; returns the index behind it."""
    pixels = np.stack([cut() for cut in worker["crops"][first : first + BACK_BATCH]])
    targets = {name: t.numpy() for name, t in teacher_features(worker["net"], torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).items()}
    for name, value in {"pixels": pixels, **targets}.items():
        worker["arrays"][name][first : first + len(pixels)] = value
    return first + len(pixels)


worker: dict = {}  # state of a worker process, set by `prepare`
