"""What a cheap tail is trained on: symbols of crops, and the answers of the bundle's tail and of the unsplit network to them.

Two sources give the same batches: `StoredTargets` reads `WORK/tail-targets`, which `store` fills once, for a processor;
`FreshTargets` cuts new crops for every step and computes everything on the GPU.

Stored arrays, one row per crop and level: symbols i8 [M,C,28,28], level u8 [M], frame bool [M] (crop of a road frame), of the
bundle's tail split f16 [M,48,28,28], stride16 f16 [M,120,14,14], stride32 f16 [M,352,7,7], logits f16 [M,1000], and of the unsplit
network unsplit32 f16 [M,352,7,7], unsplit f16 [M,1000].
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import backbone, data, init_from_bundle, manifest, segmenter, tables
from .backbone import Backbone
from .features import FRONT_BATCH, count_done, image_layout
from .on_the_fly import OnTheFlyCrops
from .progress import Progress
from .student import Student

BATCH = 8  # crops whose targets are computed at once
SPLIT = ("split", "stride16", "stride32", "logits")  # of the bundle's tail
UNSPLIT = ("unsplit32", "unsplit")
KINDS = {"symbols": np.int8, "level": np.uint8, "frame": np.bool_}  # of the arrays that are not f16


class Teachers:
    """The bundle's head and tail, and the unsplit network, on one device; none of them is trained."""

    def __init__(self, config: dict, device: torch.device, mixed: torch.dtype | None):
        folder = Path(config["tail"]["bundle"])
        self.device, self.mixed = device, mixed
        self.student = Student(config)
        init_from_bundle.load(self.student, folder)
        self.net = backbone.load(config["backbone"]["name"])
        entries = manifest.read(folder)
        mask = next((task["tail"] for task in entries["task"] if task["name"] == "segment"), None)
        if mask is None:
            raise SystemExit(f"{folder} has no task segment: [tail] is for bundles with the tasks classify and segment")
        self.segmenter = segmenter.of_bundle(folder / mask, self.net)
        for part in (self.student, self.net, self.segmenter):
            part.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        self.steps = torch.tensor([level["step"] for level in entries["level"]], device=device)

        packed = tables.unpack((folder / entries["codec"]["tables"]).read_bytes())
        group_of = np.zeros(packed.channels, np.int64)
        group_of[packed.order or range(packed.channels)] = np.repeat(np.arange(len(packed.groups) or 1), packed.groups or packed.channels)
        self.group_sizes, self.default = packed.groups, entries["default_level"]
        self.group_of = torch.from_numpy(group_of).to(device)
        medians = [[table.median for table in level] for level in packed.static]
        self.medians = torch.tensor(medians, dtype=torch.float32, device=device)

    def cut(self, symbols: Tensor, level: Tensor, groups: Tensor) -> Tensor:
        """Symbols [N,C,h,w] as a decoder reads them from packets cut behind so many groups of channels, i64 [N]."""
        missing = self.group_of >= groups[:, None]
        return torch.where(missing[:, :, None, None], self.medians[level][:, :, None, None], symbols)

    def autocast(self) -> torch.autocast:
        """Mixed precision of the networks behind the latent, where the config asks for it."""
        return torch.autocast(self.device.type, self.mixed or torch.bfloat16, enabled=self.mixed is not None)

    @torch.no_grad()
    def symbols(self, pixels: Tensor, level: Tensor) -> Tensor:
        """Symbols [N,C,h,w] of pixels [N,3,H,W] at levels i64 [N]."""
        return torch.round(self.student.head(pixels) / self.steps[level][:, None, None, None]).clamp(-128, 127)

    def latent(self, symbols: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of a tail for symbols [N,C,h,w] at levels i64 [N]: latent values and steps."""
        step = self.steps[level]
        return image_layout(symbols * step[:, None, None, None]), step

    @torch.no_grad()
    def answers(self, symbols: Tensor, level: Tensor) -> dict[str, Tensor]:
        """The fields SPLIT for symbols at levels i64 [N]."""
        with self.autocast():
            split = self.student.decoder(*self.latent(symbols, level), self.net)[0]
            return {"split": split, **kept(self.net, split)}

    @torch.no_grad()
    def unsplit(self, pixels: Tensor) -> dict[str, Tensor]:
        """The fields UNSPLIT for pixels [N,3,H,W]."""
        with self.autocast():
            size = FRONT_BATCH if self.device.type == "cpu" else len(pixels)
            split = torch.cat([self.net.front(image_layout(part)) for part in pixels.split(size)])
            taps = self.net.back(split)
        return {"unsplit32": taps.stride32, "unsplit": taps.logits}


def kept(net: Backbone, split: Tensor) -> dict[str, Tensor]:
    """Features at strides 16 and 32, and logits, from split features."""
    taps = net.back(split)
    return {"stride16": taps.stride16, "stride32": taps.stride32, "logits": taps.logits}


def store(config: dict, folder: Path, source: Path, teachers: Teachers) -> None:
    """Fill `folder` with the targets of the config's first `tail.crops` crops; continues where it stopped."""
    plan, jobs = config["tail"], data.crop_jobs(config, source)
    jobs = jobs[: plan["crops"]]
    per_crop, probability = plan["levels_per_crop"], np.array(plan["probability"], np.float64)
    rows = StoredRows(folder, len(jobs) * per_crop, KINDS)
    progress = Progress("targets of the tail", rows.total, rows.count)
    for first in range(rows.count // per_crop, len(jobs), BATCH):
        chosen = jobs[first : first + BATCH]
        pixels = torch.from_numpy(np.stack([cut() for _, cut in chosen])).permute(0, 3, 1, 2).float().to(teachers.device)
        draws = [
            np.random.default_rng([config["seed"], first + at]).choice(len(probability), per_crop, False, probability)
            for at in range(len(chosen))
        ]
        level = torch.from_numpy(np.stack(draws)).to(teachers.device)
        unsplit, parts = teachers.unsplit(pixels), []
        for drawn in level.T:
            symbols = teachers.symbols(image_layout(pixels), drawn)
            parts.append({"symbols": symbols, **teachers.answers(symbols, drawn), **unsplit})
        values = {name: torch.stack([part[name] for part in parts], 1).flatten(0, 1) for name in parts[0]}
        frame = torch.tensor([kind == "frame" for kind, _ in chosen]).repeat_interleave(per_crop)
        rows.write(values | {"level": level.flatten(), "frame": frame})
        progress.step(rows.count)


class StoredRows:
    """Arrays in a folder, written row by row; other types than f16 are listed in `kinds`. `count` rows are complete."""

    def __init__(self, folder: Path, total: int, kinds: dict[str, type]):
        self.folder, self.total, self.kinds = folder, total, kinds
        folder.mkdir(parents=True, exist_ok=True)
        stored = sorted(folder.glob("*.npy"))
        self.count = count_done(folder, stored[0].stem, total) if stored else 0
        self.arrays = {path.stem: np.load(path, mmap_mode="r+") for path in stored} if self.count else {}

    def write(self, values: dict[str, Tensor]) -> None:
        """Append rows."""
        size = len(next(iter(values.values())))
        for name, value in values.items():
            if name not in self.arrays:
                kind, shape = self.kinds.get(name, np.float16), (self.total, *value.shape[1:])
                self.arrays[name] = np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", kind, shape)
            self.arrays[name][self.count : self.count + size] = value.float().cpu().numpy()
        self.count += size
        (self.folder / "done.json").write_text(json.dumps({"count": self.count}))


class StoredTargets:
    """Batches of what `store` wrote."""

    def __init__(self, folder: Path):
        done = folder / "done.json"
        if not done.is_file():
            raise SystemExit(f"{folder} holds no targets: run `python -m recipe tail` with --data DIR first")
        self.count = json.loads(done.read_text())["count"]
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("symbols", "level", "frame", *SPLIT, *UNSPLIT)}

    def rows(self, index: np.ndarray) -> dict[str, Tensor]:
        """The rows `index`, features as f32 in channels-last memory."""
        found = {name: torch.from_numpy(array[np.sort(index)]) for name, array in self.arrays.items()}
        return {
            name: value if name == "frame" else value.long() if name == "level" else image_layout(value.float())
            for name, value in found.items()
        }

    def draw(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        """A batch of random rows."""
        return self.rows(rng.integers(0, self.count, size))

    def batch(self, index: np.ndarray, fields: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Symbols and `fields` of the rows `index`, as `features.FeatureCache` returns them."""
        found = self.rows(index)
        return found["symbols"], {name: found[name] for name in fields}


class FreshTargets:
    """Batches of new crops at levels drawn by `tail.probability`, with all targets computed for them."""

    def __init__(self, config: dict, source: Path, teachers: Teachers):
        self.teachers, self.probability = teachers, config["tail"]["probability"]
        self.crops = OnTheFlyCrops(config, source, teachers.net, teachers.device)
        self.photos = self.crops.count - self.crops.frames

    def draw(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        """A batch of `size` crops."""
        pixels, index = self.crops.pixels(rng, size)
        level = torch.from_numpy(rng.choice(len(self.probability), size, p=self.probability)).to(pixels.device)
        symbols = self.teachers.symbols(pixels, level)
        frame = torch.from_numpy(index >= self.photos).to(pixels.device)
        return {
            "symbols": symbols,
            "level": level,
            "frame": frame,
            **self.teachers.answers(symbols, level),
            **self.teachers.unsplit(pixels),
        }
