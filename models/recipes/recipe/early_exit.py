"""Calibration of the early exit (models/BUNDLE.md, section 10): `python -m recipe exit`.

The local network's confidence in its answer is the softmax probability of its first class. A photo with at least the threshold
stays on the device, the others are sent. The threshold is chosen on the held-out photos. They have no labels, so the classes of a judge
stand for them: `local.judge` of the config, a network that gives neither of the two answers. The unsplit network would be partial,
since the split imitates it; it judges where the config names no other one. Only the bundle folder is needed, and only its manifest is
written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import backbone, bundle_head, data, manifest, packet, tables
from .check import as_signed, session, signed_image
from .progress import Progress

GRID = np.linspace(0, 1, 21)  # thresholds of the curve
Z = 1.959963984540054  # 97.5th percentile of the standard normal distribution


@dataclass
class Answers:
    """One value per photo."""

    confidence: np.ndarray  # f64, of the local network
    local: np.ndarray  # bool: its class is the judge's
    split: np.ndarray  # bool: the class of the split is the judge's
    bytes: np.ndarray  # f64, of the packet at the default level

    def combined(self, threshold: float) -> np.ndarray:
        """Whether the answer is right: the local network's from the threshold on, else that of the split."""
        return np.where(self.confidence >= threshold, self.local, self.split)


@dataclass
class Networks:
    """The networks that answer the local network's task, at the default level."""

    folder: Path
    entries: dict
    judge: Callable[[Image.Image], int]  # the class of a photo

    def __post_init__(self):
        self.local, self.task = self.entries["local"], local_task(self.folder, self.entries)
        self.level = self.entries["default_level"]
        level, head = self.entries["level"][self.level], self.entries["head"]
        self.step = np.float32(level["step"])
        self.tables = tables.unpack((self.folder / self.entries["codec"]["tables"]).read_bytes())
        self.head = bundle_head.session_at(self.folder / head["file"], level["gain"])
        self.tail = session(self.folder / self.task["tail"])
        # ONNX Runtime rounds scales differently; the logits' error is far below the spread of confidences between photos.
        self.alone = session(as_signed(self.folder / self.local["file"]))
        self.geometry = geometry_of(self.entries, self.task)

    def answer(self, photo: data.Photo) -> tuple[float, bool, bool, float]:
        """The values of one photo, in the order of `Answers`."""
        image = photo.image()
        symbols = self.head.run(None, {self.entries["head"]["input"]: signed_image(fitted(image, self.geometry))[None]})[0]
        inputs = {self.task["latent"]: symbols.astype(np.float32) * self.step, self.task["step"]: self.step[None]}
        split = self.tail.run([self.task["output"]], inputs)[0][0].argmax()
        logits = self.alone.run([self.local["output"]], {self.local["input"]: signed_image(fitted(image, self.local))[None]})[0][0]
        label, size = self.judge(image), packet.expected_bytes(self.tables, self.level, symbols[0])
        return confidence(logits), bool(logits.argmax() == label), bool(split == label), size


def local_task(folder: Path, entries: dict) -> dict:
    """The manifest's entry of the task that the local network answers; exits where there is no local network."""
    if "local" not in entries:
        raise SystemExit(f"{folder} has no local network: add one with `python -m recipe local`")
    return next(task for task in entries["task"] if task["name"] == entries["local"]["task"])


def geometry_of(entries: dict, task: dict) -> dict:
    """The manifest's entry of a task's geometry."""
    return next(geometry for geometry in entries["geometry"] if geometry["name"] == task["geometry"])


def open_judge(config: dict, folder: Path, entries: dict) -> tuple[str, Callable[[Image.Image], int]]:
    """The judge's name, and a function from a photo to its class."""
    if "judge" in config["local"]:
        settings = config["local"]["judge"]
        net = backbone.load(settings["name"])

        def judged(image: Image.Image) -> int:
            pixels = np.array(data.fit_photo(image, settings["short_side"], settings["side"]), np.float32)
            with torch.inference_mode():
                return int(net(torch.from_numpy(pixels).permute(2, 0, 1)[None]).argmax())

        return f"EfficientNet-{settings['name'].capitalize()}", judged
    task = local_task(folder, entries)
    if "reference" not in task:
        raise SystemExit(f"{folder}: task {task['name']} has no reference to judge by: name a network as local.judge in the config")
    reference, geometry = task["reference"], geometry_of(entries, task)
    unsplit = session(folder / reference["file"])
    return entries["backbone"], lambda image: int(
        unsplit.run([reference["output"]], {reference["input"]: fitted(image, geometry)[None]})[0][0].argmax()
    )


def fitted(image: Image.Image, geometry: dict) -> np.ndarray:
    """Pixels u8 [side,side,3] of an image in a geometry of the bundle, which must be a central square."""
    if geometry["width"] != geometry["height"] or "short_side" not in geometry:
        raise SystemExit("the exit is calibrated for networks that see a central square of the photo, and these do not")
    return np.asarray(data.fit_photo(image, geometry["short_side"], geometry["width"]), np.uint8)


def confidence(logits: np.ndarray) -> float:
    """The softmax probability of the first class."""
    exponents = logits.astype(np.float64)
    return float(1 / np.exp(exponents - exponents.max()).sum())


def run(config: dict, source: Path, folder: Path) -> None:
    """Measure the held-out photos, choose the threshold and write it with its curve into the manifest at `folder`."""
    entries = manifest.read(folder)
    judge, judged = open_judge(config, folder, entries)
    networks, found = Networks(folder, entries, judged), []
    photos = data.photos(config, source)[1]
    progress = Progress("exit", len(photos))
    for number, photo in enumerate(photos):
        found.append(networks.answer(photo))
        progress.step(number + 1)
    answers = Answers(*(np.array(column) for column in zip(*found, strict=True)))
    points = curve(answers)
    threshold = choose(points)
    write(folder, {"threshold": threshold, "photos": len(photos), "judge": judge, "curve": points})
    print(f"classes of {judge}; difference to the better of sending all and keeping all in points, with its paired 95 % interval")
    print("threshold    kept  agreement  bytes per photo  difference")
    better = max(answers.split, answers.local, key=np.mean)
    for point in points:
        low, high = (100 * bound for bound in paired_difference(answers.combined(point["threshold"]), better))
        difference = 100 * (point["agreement"] - better.mean())
        print(
            f"{point['threshold']:9.2f}  {point['kept']:6.1%}  {point['agreement']:9.1%}  {point['bytes']:15.1f}  "
            f"{difference:+.1f} ({low:+.1f} to {high:+.1f}){'  chosen' if point['threshold'] == threshold else ''}"
        )


def curve(answers: Answers) -> list[dict]:
    """Share of photos kept, agreement with the judge, and mean bytes of all photos, at each threshold of the grid."""
    points = []
    for threshold in GRID:
        kept = answers.confidence >= threshold
        points.append(
            {
                "threshold": round(float(threshold), 4),
                "kept": round(float(kept.mean()), 4),
                "agreement": round(float(answers.combined(threshold).mean()), 4),
                "bytes": round(float(np.where(kept, 0.0, answers.bytes).mean()), 1),
            }
        )
    return points


def choose(points: list[dict]) -> float:
    """The smallest threshold at which agreement is no lower than that of sending all and that of keeping all."""
    better = max(points[0]["agreement"], points[-1]["agreement"])
    return next(point["threshold"] for point in points if point["agreement"] >= better)


def paired_difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the difference of two shares of the same items: Wald's with half an item added to each of the four counts
    (Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", 2005)."""
    count = len(first) + 2
    only_first, only_second = (first & ~second).sum() + 0.5, (second & ~first).sum() + 0.5
    difference = (only_first - only_second) / count
    half = Z * (((only_first + only_second) / count - difference**2) / count) ** 0.5
    return difference - half, difference + half


def write(folder: Path, entry: dict) -> None:
    """Write the exit into the manifest; every other file stays as it is."""
    entries = manifest.read(folder)
    entries["local"]["exit"] = entry
    manifest.write(folder, entries)
