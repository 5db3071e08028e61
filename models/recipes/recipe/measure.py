"""What a trained pair costs and keeps, level by level, through the exact integer head and the real tables.

`photos` and `frames` are for choosing (photos never trained on, CamVid val) and leave their figures in WORK, where
the exporter finds them; `evaluate` reads the labelled test photos once.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from . import data, loss, packet, test_set_log
from .export import BundleParts, cached_tables, load
from .progress import Progress
from .segmenter import Confusion
from .tables import Tables

SCENES = ("imagen", "bsds")  # the everyday and BSDS photos, by file prefix


@dataclass
class Level:
    """Sums over the images of one level."""

    bytes: list[float] = field(default_factory=list)
    agree: list[bool] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    divergence: list[float] = field(default_factory=list)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    """u8 [H,W,3] to f32 [1,3,H,W]."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()


def received(parts: BundleParts, symbols: np.ndarray, level: int) -> torch.Tensor:
    """Split features [1,48,h,w] that the server makes of a packet's symbols."""
    step = torch.tensor([parts.steps()[level]])
    return parts.student.decoder(torch.from_numpy(symbols.astype(np.float32))[None] * step, step, parts.net)[0]


@torch.inference_mode()
def classify(parts: BundleParts, tables: Tables, pairs, levels: list[int], name: str) -> tuple[dict[int, Level], list[bool]]:
    """Run (pixels, label or None) pairs; returns the levels and whether the unsplit answer was right."""
    found, whole = {level: Level() for level in levels}, []
    images = list(pairs)
    progress = Progress(name, len(images))
    for number, (pixels, label) in enumerate(images):
        wanted = parts.net(tensor(pixels))
        whole.append(int(wanted.argmax()) == label)
        latent = parts.head.latent(pixels)
        for level in levels:
            symbols = parts.head.level(latent, parts.gains[level])
            logits = parts.tail.back(received(parts, symbols, level)).logits
            row = found[level]
            row.bytes.append(packet.size(tables, level, symbols))
            row.agree.append(int(logits.argmax()) == int(wanted.argmax()))
            row.right.append(int(logits.argmax()) == label)
            row.divergence.append(loss.divergence(logits, wanted).item())
        progress.step(number + 1)
    return found, whole


@torch.inference_mode()
def segment(parts: BundleParts, tables: Tables, config: dict, source: Path, levels: list[int]) -> tuple[dict, dict, Confusion]:
    """CamVid val: bytes and confusion per level, and the unsplit confusion."""
    tar = data.Tar(source / config["data"]["camvid_val"])
    names = data.camvid(tar)
    sizes, found, whole = {k: [] for k in levels}, {k: Confusion() for k in levels}, Confusion()
    progress = Progress("segment", len(names))
    for number, name in enumerate(names):
        pixels, classes = data.frame(tar, name)
        true = torch.from_numpy(classes)
        whole.add(parts.segmenter(parts.net.front(tensor(pixels))).argmax(1)[0], true)
        latent = parts.head.latent(pixels)
        for level in levels:
            symbols = parts.head.level(latent, parts.gains[level])
            sizes[level].append(packet.size(tables, level, symbols))
            found[level].add(parts.segmenter(received(parts, symbols, level)).argmax(1)[0], true)
        progress.step(number + 1)
    return sizes, found, whole


def fitted(config: dict, image) -> np.ndarray:
    return np.asarray(data.fit_photo(image, config["photo"]["short_side"], config["photo"]["side"]), np.uint8)


def ready(config: dict, work: Path) -> tuple[BundleParts, Tables]:
    torch.set_num_threads(1)
    parts = load(config, work)
    return parts, cached_tables(parts, work)


def photos(config: dict, work: Path, source: Path) -> None:
    """Bytes, agreement and divergence per level on held-out photos; scenes are the everyday and BSDS photos."""
    parts, tables = ready(config, work)
    levels = list(range(len(parts.gains)))
    held = data.photos(config, source)[1]
    found, _ = classify(parts, tables, ((fitted(config, p.image()), None) for p in held), levels, "held-out photos")
    scenes = np.isin([photo.kind for photo in held], SCENES)
    result = {
        "gains": parts.gains,
        "bytes": [float(np.mean(found[k].bytes)) for k in levels],
        "bytes_scenes": [float(np.mean(np.array(found[k].bytes)[scenes])) for k in levels],
        "agreement": [float(np.mean(found[k].agree)) for k in levels],
        "agreement_scenes": [float(np.mean(np.array(found[k].agree)[scenes])) for k in levels],
        "divergence": [float(np.mean(found[k].divergence)) for k in levels],
    }
    keep(work / "photos.json", result)


def frames(config: dict, work: Path, source: Path) -> None:
    """Bytes and mIoU per level on CamVid val."""
    parts, tables = ready(config, work)
    levels = list(range(len(parts.gains)))
    sizes, masks, whole = segment(parts, tables, config, source, levels)
    result = {
        "frame_bytes": [float(np.mean(sizes[k])) for k in levels],
        "miou": [masks[k].mean() for k in levels],
        "miou_unsplit": whole.mean(),
    }
    keep(work / "frames.json", result)


def keep(path: Path, result: dict) -> None:
    path.write_text(json.dumps(result, indent=1))
    print(path.read_text())


def evaluate(config: dict, work: Path, source: Path, results: Path) -> None:
    """The labelled photos, all levels, beside the frames' figures: JSON, CSV and plot under `results`."""
    kept = work / "frames.json"
    if not kept.is_file():
        raise SystemExit(f"{kept} is missing: run `python -m recipe measure` first")
    road = json.loads(kept.read_text())
    parts, tables = ready(config, work)
    levels = list(range(len(parts.gains)))
    test_set_log.note(results / "test-set-log.csv", "recipe evaluate", config["name"], source / config["data"]["imagenet"])
    tar = data.Tar(source / config["data"]["imagenet"])
    rows = list(csv.DictReader(io.StringIO((source / config["data"]["imagenet_labels"]).read_text())))
    inside = {Path(name).name: name for name in tar.names(".jpg")}
    images = ((fitted(config, tar.image(inside[Path(row["file"]).name])), int(row["class"])) for row in rows)
    found, whole = classify(parts, tables, images, levels, "labelled photos")
    table = [
        {
            "level": k,
            "gain": round(parts.gains[k], 4),
            "bytes": round(float(np.mean(found[k].bytes)), 1),
            "top1_split": round(float(np.mean(found[k].right)), 4),
            "top1_unsplit": round(float(np.mean(whole)), 4),
            "agreement": round(float(np.mean(found[k].agree)), 4),
            "frame_bytes": round(road["frame_bytes"][k], 1),
            "miou_split": round(road["miou"][k], 4),
            "miou_unsplit": round(road["miou_unsplit"], 4),
        }
        for k in levels
    ]
    drops = [100 * (row["top1_unsplit"] - row["top1_split"]) for row in table]
    write(table, drops, "top-1 drop, points", results / f"{config['name']}-labelled")


def curve(config: dict, work: Path, results: Path) -> None:
    """The held-out figures of `photos` and `frames` as CSV, JSON and plot."""
    near, road = (json.loads((work / name).read_text()) for name in ("photos.json", "frames.json"))
    table = [
        {
            "level": k,
            "gain": round(gain, 4),
            "bytes": round(near["bytes"][k], 1),
            "agreement": round(near["agreement"][k], 4),
            "divergence": round(near["divergence"][k], 4),
            "frame_bytes": round(road["frame_bytes"][k], 1),
            "miou_split": round(road["miou"][k], 4),
            "miou_unsplit": round(road["miou_unsplit"], 4),
        }
        for k, gain in enumerate(near["gains"])
    ]
    publish(table, results / config["name"])


def publish(table: list[dict], stem: Path) -> None:
    """Held-out figures: `stem`.json, .csv and .png."""
    write(table, [100 * (1 - row["agreement"]) for row in table], "answers that change, %, held-out photos", stem)


def write(table: list[dict], losses: list[float], label: str, stem: Path) -> None:
    """`stem`.json, .csv and .png."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    plot(table, losses, label, stem.with_suffix(".png"))
    print(stem.with_suffix(".json").read_text())


def plot(table: list[dict], losses: list[float], label: str, path: Path) -> None:
    """Bytes against what both tasks lose."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    left.plot([r["bytes"] / 1000 for r in table], losses, "o-")
    left.set(xlabel="kB per photo", ylabel=label, title="classification")
    right.plot([r["frame_bytes"] / 1000 for r in table], [100 * (r["miou_unsplit"] - r["miou_split"]) for r in table], "o-", color="C1")
    right.set(xlabel="kB per frame", ylabel="mIoU drop, points", title="segmentation")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    figure.savefig(path, dpi=130)
