"""Rate and accuracy of every level, through the exact integer head and the real tables.

`photos` and `frames` use data for model selection (held-out photos, CamVid val) and leave their figures in WORK for the
exporter; `evaluate` uses the labelled test photos and enters every use in a log.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from . import bundle_parts, data, fit_tables, loss, packet, test_set_log
from .bundle_parts import BundleParts
from .progress import Progress
from .segmenter import Confusion
from .tables import Tables

SCENES = ("imagen", "bsds")  # file prefixes of the everyday photos


@dataclass
class LevelSamples:
    """One value per image of one level."""

    bytes: list[float] = field(default_factory=list)
    agreement: list[bool] = field(default_factory=list)  # same top-1 class as the unsplit network
    correct: list[bool] = field(default_factory=list)  # top-1 class is the label
    divergence: list[float] = field(default_factory=list)  # KL, from the unsplit network's classes


def tensor(pixels: np.ndarray) -> torch.Tensor:
    """Pixels u8 [H,W,3] as f32 [1,3,H,W]."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()


@torch.inference_mode()
def classify(
    parts: BundleParts, tables: Tables, pairs: Iterable[tuple[np.ndarray, int | None]], levels: list[int], name: str
) -> tuple[dict[int, LevelSamples], list[bool]]:
    """Classify (pixels, label or None) at every level; also returns whether the unsplit network's class is the label."""
    found, unsplit = {level: LevelSamples() for level in levels}, []
    images = list(pairs)
    progress = Progress(name, len(images))
    for number, (pixels, label) in enumerate(images):
        teacher = parts.net(tensor(pixels))
        unsplit.append(int(teacher.argmax()) == label)
        latent = parts.head.latent(pixels)
        for level in levels:
            symbols = parts.head.level(latent, parts.gains[level])
            logits = parts.tail.back(parts.decode(symbols, level)).logits
            samples = found[level]
            samples.bytes.append(packet.expected_bytes(tables, level, symbols))
            samples.agreement.append(int(logits.argmax()) == int(teacher.argmax()))
            samples.correct.append(int(logits.argmax()) == label)
            samples.divergence.append(loss.divergence(logits, teacher).item())
        progress.step(number + 1)
    return found, unsplit


@torch.inference_mode()
def segment(
    parts: BundleParts, tables: Tables, config: dict, source: Path, levels: list[int]
) -> tuple[dict[int, list[float]], dict[int, Confusion], Confusion]:
    """Packet bytes and confusion of every level on CamVid val, and the unsplit network's confusion."""
    tar = data.Tar(source / config["data"]["camvid_val"])
    names = data.camvid(tar)
    sizes, found, unsplit = {level: [] for level in levels}, {level: Confusion() for level in levels}, Confusion()
    progress = Progress("segment", len(names))
    for number, name in enumerate(names):
        pixels, classes = data.frame(tar, name)
        true = torch.from_numpy(classes)
        unsplit.add(parts.segmenter(parts.net.front(tensor(pixels))).argmax(1)[0], true)
        latent = parts.head.latent(pixels)
        for level in levels:
            symbols = parts.head.level(latent, parts.gains[level])
            sizes[level].append(packet.expected_bytes(tables, level, symbols))
            found[level].add(parts.segmenter(parts.decode(symbols, level)).argmax(1)[0], true)
        progress.step(number + 1)
    return sizes, found, unsplit


def load(config: dict, work: Path) -> tuple[BundleParts, Tables]:
    """Networks and tables of WORK's checkpoint, on one processor thread so that the figures are reproducible."""
    torch.set_num_threads(1)
    parts = bundle_parts.load(config, work)
    return parts, fit_tables.cached(parts, work)


def photos(config: dict, work: Path, source: Path) -> None:
    """Measure bytes, agreement and divergence of every level on the held-out photos; writes WORK/photos.json."""
    parts, tables = load(config, work)
    levels = list(range(len(parts.gains)))
    held_out = data.photos(config, source)[1]
    found, _ = classify(parts, tables, ((data.photo_pixels(config, p.image()), None) for p in held_out), levels, "held-out photos")
    scenes = np.isin([photo.kind for photo in held_out], SCENES)
    result = {
        "gains": parts.gains,
        "bytes": [float(np.mean(found[level].bytes)) for level in levels],
        "agreement": [float(np.mean(found[level].agreement)) for level in levels],
        "divergence": [float(np.mean(found[level].divergence)) for level in levels],
    }
    if scenes.any():
        result["bytes_scenes"] = [float(np.mean(np.array(found[level].bytes)[scenes])) for level in levels]
        result["agreement_scenes"] = [float(np.mean(np.array(found[level].agreement)[scenes])) for level in levels]
    save(work / "photos.json", result)


def frames(config: dict, work: Path, source: Path) -> None:
    """Measure bytes and mIoU of every level on CamVid val; writes WORK/frames.json."""
    parts, tables = load(config, work)
    levels = list(range(len(parts.gains)))
    sizes, masks, unsplit = segment(parts, tables, config, source, levels)
    result = {
        "frame_bytes": [float(np.mean(sizes[level])) for level in levels],
        "miou": [masks[level].mean() for level in levels],
        "miou_unsplit": unsplit.mean(),
    }
    save(work / "frames.json", result)


def save(path: Path, result: dict) -> None:
    """Write figures as JSON and print them."""
    path.write_text(json.dumps(result, indent=1))
    print(path.read_text())


def figures(work: Path, levels: int) -> dict:
    """The figures that `photos` and `frames` left in WORK, None where they were not measured."""
    found = dict.fromkeys(("bytes", "agreement", "divergence", "frame_bytes", "miou"), [None] * levels) | {"miou_unsplit": None}
    for name in ("photos.json", "frames.json"):
        if (work / name).is_file():
            found |= json.loads((work / name).read_text())
    return found


def evaluate(config: dict, work: Path, source: Path, results: Path) -> None:
    """Measure every level on the labelled test photos; writes NAME-labelled.{json,csv,png} with the frames' figures.

    Appends one line to the log of test set uses. Needs the figures of `frames`.
    """
    stored = work / "frames.json"
    if not stored.is_file():
        raise SystemExit(f"{stored} is missing: run `python -m recipe measure` first")
    on_frames = json.loads(stored.read_text())
    parts, tables = load(config, work)
    levels = list(range(len(parts.gains)))
    test_set_log.note(results / test_set_log.FILE, "recipe evaluate", config["name"], source / config["data"]["imagenet"])
    found, unsplit = classify(parts, tables, labelled(config, source), levels, "labelled photos")
    table = [
        {
            "level": level,
            "gain": round(parts.gains[level], 4),
            "bytes": round(float(np.mean(found[level].bytes)), 1),
            "top1_split": round(float(np.mean(found[level].correct)), 4),
            "top1_unsplit": round(float(np.mean(unsplit)), 4),
            "agreement": round(float(np.mean(found[level].agreement)), 4),
            "frame_bytes": round(on_frames["frame_bytes"][level], 1),
            "miou_split": round(on_frames["miou"][level], 4),
            "miou_unsplit": round(on_frames["miou_unsplit"], 4),
        }
        for level in levels
    ]
    drops = [100 * (row["top1_unsplit"] - row["top1_split"]) for row in table]
    write(table, drops, "top-1 accuracy lost, points", results / f"{config['name']}-labelled")


def labelled(config: dict, source: Path) -> Iterable[tuple[np.ndarray, int]]:
    """Pixels u8 [side,side,3] and ImageNet class of every labelled test photo."""
    tar = data.Tar(source / config["data"]["imagenet"])
    inside = {Path(name).name: name for name in tar.names(".jpg")}
    for row in csv.DictReader(io.StringIO((source / config["data"]["imagenet_labels"]).read_text())):
        yield data.photo_pixels(config, tar.image(inside[Path(row["file"]).name])), int(row["class"])


def curve(config: dict, work: Path, results: Path) -> None:
    """Publish the figures of `photos` and `frames` as NAME.{json,csv,png}."""
    on_photos, on_frames = (json.loads((work / name).read_text()) for name in ("photos.json", "frames.json"))
    table = [
        {
            "level": level,
            "gain": round(gain, 4),
            "bytes": round(on_photos["bytes"][level], 1),
            "agreement": round(on_photos["agreement"][level], 4),
            "divergence": round(on_photos["divergence"][level], 4),
            "frame_bytes": round(on_frames["frame_bytes"][level], 1),
            "miou_split": round(on_frames["miou"][level], 4),
            "miou_unsplit": round(on_frames["miou_unsplit"], 4),
        }
        for level, gain in enumerate(on_photos["gains"])
    ]
    publish(table, results / config["name"])


def redraw(config: dict, results: Path) -> None:
    """Write NAME.csv and NAME.png again from NAME.json."""
    stored = results / f"{config['name']}.json"
    if not stored.is_file():
        raise SystemExit(f"{stored} is missing: run `python -m recipe curve` without --redraw")
    publish(json.loads(stored.read_text()), results / config["name"])


def publish(table: list[dict], stem: Path) -> None:
    """Write figures of held-out photos as `stem`.json, .csv and .png."""
    write(table, [100 * (1 - row["agreement"]) for row in table], "top-1 class changed, % of held-out photos", stem)


def write(table: list[dict], losses: list[float], label: str, stem: Path) -> None:
    """Write `stem`.json, .csv and .png; `losses` and `label` are the ordinate of the classification plot."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    plot(table, losses, label, stem.with_suffix(".png"))
    print(stem.with_suffix(".json").read_text())


def plot(table: list[dict], losses: list[float], label: str, path: Path) -> None:
    """Draw mean packet size against the loss of accuracy, one plot per task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    left.plot([row["bytes"] / 1000 for row in table], losses, "o-")
    left.set(xlabel="mean packet of a photo, kB", ylabel=label, title="classification")
    lost = [100 * (row["miou_unsplit"] - row["miou_split"]) for row in table]
    right.plot([row["frame_bytes"] / 1000 for row in table], lost, "o-", color="C1")
    right.set(xlabel="mean packet of a frame, kB", ylabel="mIoU lost, points, CamVid val", title="segmentation")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    figure.savefig(path, dpi=130)
