"""`python -m recipe new`: from a backbone's name and a folder of images to a bundle.

Lists where the network can be cut, writes the experiment as WORK/NAME.toml, and runs features, training and export.
Each part continues where it stopped when the command is given again.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import tomllib
from pathlib import Path

import torch

from .. import data, features, manifest, task, train
from ..head import STRIDE
from . import bundle, loaders, partitioned, split_points
from .split_points import SplitPoint

PREFIXES = (0, 1, 2, 5)  # tokens before the patches: class, distillation, registers


def run(args: argparse.Namespace) -> None:
    if not args.backbone:
        raise SystemExit("which network? --backbone timm:NAME, torchvision:NAME or onnx:FILE")
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    config_path = args.work / "new.toml"
    if args.split is None or not config_path.is_file():
        prepared = prepare(args)
        if prepared is None:
            return
        args.work.mkdir(parents=True, exist_ok=True)
        config_path.write_text("# Written by `python -m recipe new`; edit and run it again.\n" + manifest.document(prepared))
    config = tomllib.loads(config_path.read_text())
    if config["backbone"]["source"] != args.backbone:
        raise SystemExit(f"{config_path} is of {config['backbone']['source']}: give another --work for {args.backbone}")
    folder = args.bundle or Path("../bundles") / config["name"]
    features.run(config, args.work / "features", args.data)
    train.run(config, args.work, resume=True)
    bundle.run(config, args.work, args.data, folder, args.labels)
    for name in config["backbone"]["tasks"][1:]:
        if name not in [t["name"] for t in tomllib.loads((folder / "manifest.toml").read_text())["task"]]:
            task.run(config, args.data, folder, folder, name, folders(config, args), args.work)


def prepare(args: argparse.Namespace) -> dict | None:
    """Trace, list, cut; the config, or None where only the list was asked for."""
    tasks = args.tasks.split(",")
    if tasks[0] != "classify" or "segment" in tasks:
        raise SystemExit("--tasks: classify first, then any that are named by the folders of --data; segment is lite2's alone")
    given = loaders.load(args.backbone, args.pretrained, args.weights, args.side)
    if given.side % STRIDE:
        raise SystemExit(f"{given.name} takes {given.side} pixels a side: not a multiple of the head's stride {STRIDE}; give --side")
    program = split_points.trace(given.net, given.side)
    whole = program.module(check_guards=False)
    found, total = split_points.points(whole, given.side)
    show(found, total)
    if args.split is None:
        print("choose one with --split LAYER, or --split auto")
        return None
    if not args.data:
        raise SystemExit("--data DIR: a folder of images to distil on")
    split = split_points.choose(found, args.split, total)
    middle, deep = split_points.deeper(found, split, total)
    print(f"cut behind {split.name}; features are matched there and behind {middle.name} and {deep.name}")
    args.work.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, partitioned.path(args.work))
    answer = next(node for node in whole.graph.nodes if node.op == "output").args[0][0]
    backbone = {
        "source": args.backbone,
        "split": split.name,
        "split_node": split.node,
        "middle_node": middle.node,
        "deep_node": deep.node,
        "channels": split.shape[0] if len(split.shape) == 3 else split.shape[1],
        "classes": int(answer.meta["val"].shape[1]),
        "mean": given.mean,
        "std": given.std,
        "licence": given.licence,
        "tasks": tasks,
    }
    if len(split.shape) == 2:
        backbone["grid"] = grid(split)
    return config(args, given.name, given.side, backbone)


def show(found: list[SplitPoint], total: int) -> None:
    """The places to cut as a table."""
    width = max((len(point.name) for point in found), default=5)
    print(f"{'layer':<{width}}  {'tensor':>14}  {'stride':>6}  {'kB, int8':>8}  {'MMAC before':>11}  of all")
    for point in found:
        shape = "x".join(map(str, point.shape))
        size = math.prod(point.shape) / 1000
        print(
            f"{point.name:<{width}}  {shape:>14}  {point.stride:>6.0f}  {size:>8.1f}  {point.macs / 1e6:>11.1f}  {point.macs / max(total, 1):>5.0%}"
        )


def grid(split: SplitPoint) -> dict[str, int]:
    """How the tokens lie: some before, then a square of patches."""
    tokens = split.shape[0]
    for prefix in PREFIXES:
        rows = math.isqrt(tokens - prefix)
        if rows * rows == tokens - prefix and split.side % rows == 0:
            return {"prefix": prefix, "rows": rows, "columns": rows}
    raise SystemExit(f"{split.name} has {tokens} tokens: no square of patches behind {PREFIXES} others")


def config(args: argparse.Namespace, name: str, side: int, backbone: dict) -> dict:
    """The experiment, with the default bundle's settings scaled to this network's image."""
    area = (side / 224) ** 2
    steps = {1: round(args.steps * 0.1), 3: round(args.steps * 0.2)}
    steps[2] = args.steps - steps[1] - steps[3]
    rate = {"adam_lr": 5e-4, "muon_lr": 0.01}
    photos = sum(map(len, data.photos({"data": {"held_out": 0}}, args.data)))
    held = min(200, max(1, photos // 10))
    if photos - held < 1:
        raise SystemExit(f"{args.data} holds {photos} images: too few")
    return {
        "name": args.name or re.sub(r"[^a-z0-9._-]", "-", name.lower())[:64],
        "seed": args.seed,
        "threads": args.threads,
        "data": {
            "held_out": held,
            "crops": args.crops,
            "crop_side": side,
            "crop_short_side": round(side * 8 / 7),
            "crop_zoom": [0.9, 1.1],
            "crop_area": [0.5, 1.0],
        },
        "backbone": backbone,
        "photo": {"short_side": round(side * 8 / 7), "side": side},
        "head": {"width": 80, "latent": 24, "stride": STRIDE},
        "decoder": {"width": args.width, "blocks_before": 2, "blocks_after": 1},
        "levels": {
            "target_bytes": [max(60, round(size * area)) for size in (7400, 5000, 3700, 2500, 1050)],
            "gains": [1.0, 0.62, 0.38, 0.22, 0.12],
            "probability": [0.3, 0.3, 0.2, 0.12, 0.08],
            "loss_weight": [1.0, 1.0, 0.7, 0.45, 0.3],
            "default": 1,
        },
        "train": {
            "batch": 8,
            "ema_decay": 0.999,
            "rate_weight": 0.08,
            "stage1": {"steps": steps[1], **rate, "decay_share": 0.0},
            "stage2": {"steps": steps[2], **rate, "decay_share": 0.3},
            "stage3": {"steps": steps[3], **rate, "decay_share": 1.0},
            "loss_weights": {"sketch": 2.0, "split": 0.5, "stride16": 1.0, "stride32": 1.0, "logits": 0.5},
        },
    }


def folders(config: dict, args: argparse.Namespace) -> Path:
    """Labels out of the first folder of every image, as the CSV that `task` reads."""
    names = [photo.name for part in data.photos(config, args.data) for photo in part if "/" in photo.name]
    if not names:
        raise SystemExit(f"{args.data} has no folders: a second task is named by the folder an image lies in")
    path = args.work / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((name, name.split("/")[0]) for name in names)])
    return path
