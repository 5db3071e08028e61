"""`python -m recipe custom`: a bundle from the name of any classifier and a folder of images.

Lists the split points of the network, writes the experiment as WORK/config.toml, and runs features, training, measurement
and export. Given again, the command continues where it stopped.
"""

from __future__ import annotations

import csv
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import tomli_w
import torch

from . import data, export, features, manifest, measure, task, train
from .custom import loaders, partitioned, split_points
from .custom.split_points import SplitPoint
from .head import STRIDE

PREFIXES = (0, 1, 2, 5)  # numbers of tokens before the patches: none, class, distillation, registers
LEVEL_BYTES = (7400, 5000, 3700, 2500, 1050)  # target packet sizes of a 224x224 image, finest level first


@dataclass(frozen=True)
class Options:
    """Arguments of the command; see `recipe custom --help`."""

    backbone: str
    data: Path | None
    work: Path
    bundle: Path | None = None
    name: str | None = None
    split: str | None = None  # None: list the split points and stop
    side: int | None = None
    pretrained: bool = False
    weights: Path | None = None
    labels: Path | None = None
    tasks: str = "classify"
    crops: int = 4
    steps: int = 6000
    width: int = 96
    threads: int = 1
    seed: int = 1


def run(options: Options) -> None:
    """From a backbone to a bundle; only prints the split points where none was chosen.

    Exits with a message where the network, the folder or a choice does not suit.
    """
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    path = options.work / "config.toml"
    if options.split is None or not path.is_file():
        prepared = prepare(options)
        if prepared is None:
            return
        options.work.mkdir(parents=True, exist_ok=True)
        path.write_text("# Written by `python -m recipe custom`; edit it and run the command again.\n" + tomli_w.dumps(prepared))
    config = tomllib.loads(path.read_text())
    if config["backbone"]["source"] != options.backbone:
        raise SystemExit(f"{path} is of {config['backbone']['source']}: give another --work for {options.backbone}")
    folder = options.bundle or Path("../bundles") / config["name"]
    features.run(config, options.work / "features", options.data)
    train.run(config, options.work, resume=True)
    measure.photos(config, options.work, options.data)
    export.run(config, options.work, options.data, folder, options.labels)
    for name in config["backbone"]["tasks"][1:]:
        if name not in [entry["name"] for entry in manifest.read(folder)["task"]]:
            task.run(config, options.data, folder, folder, name, folder_labels(config, options), options.work)


def prepare(options: Options) -> dict | None:
    """Trace the network, print its split points and write the traced network to WORK.

    Returns the config, or None where no split point was chosen.
    """
    tasks = options.tasks.split(",")
    if tasks[0] != "classify" or "segment" in tasks:
        raise SystemExit("--tasks: classify first, then tasks whose classes are the folders of --data; segment needs the default backbone")
    loaded = loaders.load(options.backbone, options.pretrained, options.weights, options.side)
    if loaded.side % STRIDE:
        raise SystemExit(f"{loaded.name} takes images of {loaded.side} pixels, no multiple of the head's stride {STRIDE}; give --side")
    program = split_points.trace(loaded.net, loaded.side)
    traced = program.module(check_guards=False)
    found, total = split_points.find(traced, loaded.side)
    show(found, total)
    if options.split is None:
        print("choose one with --split LAYER, or --split auto")
        return None
    if not options.data:
        raise SystemExit("--data DIR is missing: a folder of images to train on")
    split = split_points.choose(found, options.split, total)
    middle, deep = split_points.deeper(found, split, total)
    print(f"split behind {split.name}; the loss also compares features behind {middle.name} and {deep.name}")
    options.work.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, partitioned.path(options.work))
    logits = next(node for node in traced.graph.nodes if node.op == "output").args[0][0]
    backbone = {
        "source": options.backbone,
        "split": split.name,
        "split_node": split.node,
        "middle_node": middle.node,
        "deep_node": deep.node,
        "channels": split.shape[0] if len(split.shape) == 3 else split.shape[1],
        "classes": int(logits.meta["val"].shape[1]),
        "mean": loaded.mean,
        "std": loaded.std,
        "licence": loaded.licence,
        "tasks": tasks,
    }
    if len(split.shape) == 2:
        backbone["grid"] = token_grid(split)
    return config(options, loaded.name, loaded.side, backbone)


def show(found: list[SplitPoint], total: int) -> None:
    """Print the split points as a table; `total` is the work of the entire network."""
    width = max((len(point.name) for point in found), default=5)
    print(f"{'layer':<{width}}  {'tensor':>14}  {'stride':>6}  {'kB, int8':>8}  {'MMAC before':>11}  share")
    for point in found:
        shape = "x".join(map(str, point.shape))
        size = math.prod(point.shape) / 1000
        work = f"{point.macs / 1e6:>11.1f}  {point.macs / max(total, 1):>5.0%}"
        print(f"{point.name:<{width}}  {shape:>14}  {point.stride:>6.0f}  {size:>8.1f}  {work}")


def token_grid(split: SplitPoint) -> dict[str, int]:
    """The layout of a transformer's tokens: a prefix, then a square of patches; exits where they are no square."""
    tokens = split.shape[0]
    for prefix in PREFIXES:
        rows = math.isqrt(tokens - prefix)
        if rows * rows == tokens - prefix and split.side % rows == 0:
            return {"prefix": prefix, "rows": rows, "columns": rows}
    raise SystemExit(f"{split.name} has {tokens} tokens: they are no square of patches behind a prefix of {PREFIXES} tokens")


def config(options: Options, name: str, side: int, backbone: dict) -> dict:
    """The experiment: the default bundle's settings, with packet sizes in proportion to the image area."""
    area = (side / 224) ** 2
    steps = {1: round(options.steps * 0.1), 3: round(options.steps * 0.2)}
    steps[2] = options.steps - steps[1] - steps[3]
    rates = {"adam_lr": 5e-4, "muon_lr": 0.01}
    photos = sum(map(len, data.photos({"data": {"held_out": 0}}, options.data)))
    held_out = min(200, max(1, photos // 10))
    if photos - held_out < 1:
        raise SystemExit(f"{options.data} holds {photos} images: too few to train on")
    return {
        "name": options.name or re.sub(r"[^a-z0-9._-]", "-", name.lower())[:64],
        "seed": options.seed,
        "threads": options.threads,
        "data": {
            "held_out": held_out,
            "crops": options.crops,
            "crop_side": side,
            "crop_short_side": round(side * 8 / 7),
            "crop_zoom": [0.9, 1.1],
            "crop_area": [0.5, 1.0],
        },
        "backbone": backbone,
        "photo": {"short_side": round(side * 8 / 7), "side": side},
        "head": {"width": 80, "latent": 24, "stride": STRIDE},
        "decoder": {"width": options.width, "blocks_before": 2, "blocks_after": 1},
        "levels": {
            "target_bytes": [max(60, round(size * area)) for size in LEVEL_BYTES],
            "gains": [1.0, 0.62, 0.38, 0.22, 0.12],
            "probability": [0.3, 0.3, 0.2, 0.12, 0.08],
            "loss_weight": [1.0, 1.0, 0.7, 0.45, 0.3],
            "default": 1,
        },
        "train": {
            "batch": 8,
            "ema_decay": 0.999,
            "rate_weight": 0.08,
            "stage1": {"steps": steps[1], **rates, "decay_share": 0.0},
            "stage2": {"steps": steps[2], **rates, "decay_share": 0.3},
            "stage3": {"steps": steps[3], **rates, "decay_share": 1.0},
            "loss_weights": {"sketch": 2.0, "split": 0.5, "stride16": 1.0, "stride32": 1.0, "logits": 0.5},
        },
    }


def folder_labels(config: dict, options: Options) -> Path:
    """Write WORK/labels.csv, which labels every image with the first folder of its path; returns its path."""
    names = [photo.name for part in data.photos(config, options.data) for photo in part if "/" in photo.name]
    if not names:
        raise SystemExit(f"{options.data} has no folders: the classes of a further task are the folders that the images lie in")
    path = options.work / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((name, name.split("/")[0]) for name in names)])
    return path
