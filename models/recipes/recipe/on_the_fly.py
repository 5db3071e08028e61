"""On-the-fly crops: training crops cut anew for every step, with the teacher's features; for a GPU, where the teacher is fast.

All photos are kept in memory at full resolution. A crop is a window of a photo, sampled bicubically, mirrored, changed in
colour, and rounded to integers like a camera's pixels. A share of the crops keeps about the photo's own scale, which is the
scale of the images that a device encodes.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .backbone import Backbone
from .data import Photo, Tar, crops_of, photos
from .features import image_layout
from .progress import Progress
from .student import autocast


class OnTheFlyCrops:
    """A source of batches of crops f32 [N,3,side,side] and the teacher's features on `device`."""

    def __init__(self, config: dict, source: Path | None, net: Backbone, device: torch.device):
        if source is None:
            raise SystemExit("the config trains on on-the-fly crops: give the folder with the photos, --data DIR")
        self.plan, self.side, self.net, self.device = config["on_the_fly"], config["photo"]["side"], net, device
        listed = [(photo, crops_of(config, photo)) for photo in photos(config, source)[0]]
        camvid = Tar(source / config["data"]["camvid_train"]) if "camvid_train" in config["data"] else None
        if camvid:
            listed += [(Photo(camvid, name), config["data"]["camvid_crops"]) for name in camvid.names(".jpg")]
        self.count = len(listed)
        self.frames = sum(1 for photo, _ in listed if camvid and photo.tar is camvid)  # road frames, which come last
        weight = np.array([weight for _, weight in listed], np.float64)
        self.probability = weight / weight.sum()
        self.decode([photo for photo, _ in listed])

    def decode(self, everything: list[Photo]) -> None:
        """Decode all photos into one array u8 [M,3,H,W]; smaller photos are padded by repeating their edges."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self.sizes = np.array(list(pool.map(lambda photo: photo.image().size, everything)))  # width, height
            width, height = self.sizes.max(0)
            store = np.empty((self.count, 3, height, width), np.uint8)

            def fill(index: int) -> None:
                pixels = np.asarray(everything[index].image(), np.uint8).transpose(2, 0, 1)
                edges = ((0, 0), (0, height - pixels.shape[1]), (0, width - pixels.shape[2]))
                store[index] = np.pad(pixels, edges, mode="edge")

            progress = Progress("photos", self.count)
            for done, _ in enumerate(pool.map(fill, range(self.count)), 1):
                progress.step(done)
        self.store = torch.from_numpy(store).to(self.device)

    def draw(self, rng: np.random.Generator, size: int, fields: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of `size` crops with integer values 0..255, and the teacher's `fields`."""
        pixels, _ = self.pixels(rng, size)
        return pixels, self.teacher_features(pixels, fields)

    def pixels(self, rng: np.random.Generator, size: int) -> tuple[Tensor, np.ndarray]:
        """A batch of `size` crops with integer values 0..255, and the index of the photo that each was cut from."""
        index = rng.choice(self.count, size, p=self.probability)
        return image_layout(self.jitter(self.cut(index, self.windows(rng, self.sizes[index])), rng)), index

    def first(self, size: int) -> Tensor:
        """The same batch of `size` crops on every call."""
        return self.draw(np.random.default_rng(0), size, ())[0]

    def windows(self, rng: np.random.Generator, sizes: np.ndarray) -> np.ndarray:
        """Random left, top, width and height f32 [N,4] inside photos of `sizes` (width, height) [N,2]; a negative width mirrors."""
        count, short = len(sizes), sizes.min(1)
        zoom = np.where(rng.random(count) < 0.5, rng.uniform(*self.plan["zoom"], count), 1.0)
        side = np.minimum(self.side / zoom, short)[:, None]
        area = sizes.prod(1) * rng.uniform(*self.plan["area"], count)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
        other = np.minimum(sizes, np.stack([(area * ratio) ** 0.5, (area / ratio) ** 0.5], 1))
        native = (rng.random(count) < self.plan["native_share"])[:, None]
        size = np.where(native, side, other)
        start = rng.random((count, 2)) * (sizes - size)
        start = np.where(native, np.floor(start), start)
        mirrored = rng.random(count) < 0.5
        start[mirrored, 0] += size[mirrored, 0]
        size[mirrored, 0] *= -1
        return np.concatenate([start, size], 1).astype(np.float32)

    def cut(self, index: np.ndarray, windows: np.ndarray) -> Tensor:
        """The windows [N,4] of the photos at `index` [N], resampled to [N,3,side,side]."""
        store = self.store[torch.from_numpy(index).to(self.device)].float()
        height, width = store.shape[2:]
        left, top, w, h = torch.from_numpy(windows).to(self.device).T
        at = (torch.arange(self.side, device=self.device) + 0.5) / self.side
        x = 2 * (left[:, None] + at * w[:, None]) / width - 1
        y = 2 * (top[:, None] + at * h[:, None]) / height - 1
        shape = (len(index), self.side, self.side)
        grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], 3)
        return F.grid_sample(store, grid, "bicubic", "border", align_corners=False)

    def jitter(self, pixels: Tensor, rng: np.random.Generator) -> Tensor:
        """Scale brightness, contrast and saturation of half of the crops by 1 ± `colour_jitter`; rounded to integers."""
        factors = 1 + rng.uniform(-1, 1, (3, len(pixels))) * self.plan["colour_jitter"] * (rng.random(len(pixels)) < 0.5)
        brightness, contrast, saturation = torch.from_numpy(factors.astype(np.float32)).to(self.device)[:, :, None, None, None]
        grey = (pixels * torch.tensor([0.299, 0.587, 0.114], device=self.device)[:, None, None]).sum(1, keepdim=True)
        pixels = grey + (pixels - grey) * saturation
        mean = grey.mean((2, 3), keepdim=True)
        return ((mean + (pixels - mean) * contrast) * brightness).round().clamp(0, 255)

    @torch.no_grad()
    def teacher_features(self, pixels: Tensor, fields: tuple[str, ...]) -> dict[str, Tensor]:
        """The teacher's `fields` for a batch of pixels."""
        if not fields:
            return {}
        with autocast(self.device):
            found = {"split": self.net.front(pixels)}
            if fields != ("split",):
                found |= vars(self.net.back(found["split"]))
        return {name: found[name] for name in fields}
