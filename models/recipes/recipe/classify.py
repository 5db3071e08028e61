"""The classification tail, fitted to what the decoder delivers, encoder and decoder frozen.

Features of training crops are decoded once, each at a level drawn as in training (`WORK/sent/`: split f16 [M,48,h,w], crop
i64 [M]); then the groups behind the split learn to answer as the teacher does on the crop itself. Depthwise kernels stay as
they are: their gradients would take most of the time.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import backbone, loss
from .backbone import SPLIT_GROUP, Backbone
from .features import FeatureCache, image_layout
from .progress import Progress
from .optim import Average
from .train_segmenter import save
from .student import Student

BATCH = 8  # of decoding
SAVE_EVERY = 50


def run(config: dict, work: Path, resume: bool) -> None:
    """Fit the tail of WORK/student.pt and leave it in WORK/classify.pt."""
    torch.set_num_threads(1)
    cache, net = FeatureCache(work / "features"), backbone.load(config["backbone"]["name"]).to(memory_format=torch.channels_last)
    student = Student(config).to(memory_format=torch.channels_last)
    student.load_state_dict(torch.load(work / "student.pt", weights_only=True, map_location="cpu")["average"])
    decode(config, work / "decoded", cache, student.eval(), net)
    fit(config, work, cache, net, resume)


@torch.inference_mode()
def decode(config: dict, folder: Path, cache: FeatureCache, student: Student, net: Backbone) -> None:
    """Features of `items` crops as they arrive; continues where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    count, done = config["classify"]["items"], folder / "done.json"
    rng = np.random.default_rng([config["seed"], 2])
    crops = rng.permutation(cache.count)[:count]
    levels = rng.choice(len(config["levels"]["gains"]), count, p=config["levels"]["probability"])
    start = json.loads(done.read_text())["count"] if done.is_file() else 0
    shape = (count, *cache.arrays["split"].shape[1:])
    if not start:
        np.save(folder / "crop.npy", crops)
        np.lib.format.open_memmap(folder / "split.npy", "w+", np.float16, shape)
    split = np.load(folder / "split.npy", mmap_mode="r+")
    progress = Progress("sent features", count, start)
    for first in range(start, count, BATCH):
        rows = range(first, min(first + BATCH, count))
        for level in np.unique(levels[rows]):
            chosen = [row for row in rows if levels[row] == level]
            pixels = torch.from_numpy(cache.pixels[crops[chosen]]).permute(0, 3, 1, 2).float()
            split[chosen] = student.sent(image_layout(pixels), int(level), net)[1].numpy()
        done.write_text(json.dumps({"count": rows[-1] + 1}))
        progress.step(rows[-1] + 1)


def tail(net: Backbone) -> tuple[Backbone, list[nn.Parameter]]:
    """The network and those of its parameters behind the split that learn."""
    parts = [*net.groups[SPLIT_GROUP:].modules(), net.top, net.classifier]
    learned = []
    for part in parts:
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            learned.append(part.bias)
            if getattr(part, "groups", 1) == 1:
                learned.append(part.weight)
    for p in learned:
        p.requires_grad_()
    return net, learned


def fit(config: dict, work: Path, cache: FeatureCache, net: Backbone, resume: bool) -> None:
    plan, folder, checkpoint = config["classify"], work / "decoded", work / "classify.pt"
    split, crops = np.load(folder / "split.npy", mmap_mode="r"), np.load(folder / "crop.npy")
    weight = torch.load(work / "sensitivity.pt", weights_only=True)["stride32"]
    net, learned = tail(net)
    optimiser = torch.optim.Adam(learned, plan["lr"], betas=(0.9, 0.99))
    average, start = Average(net, plan["ema_decay"]), 0
    if resume and checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        average.values, average.steps, start = state["average"], state["average_steps"], state["step"]
    progress, smooth = Progress("classify", plan["steps"], start, every=20), 0.0
    for step in range(start, plan["steps"]):
        rows = np.sort(np.random.default_rng([config["seed"], step, 2]).choice(len(crops), plan["batch"], replace=False))
        stride32, logits = (torch.from_numpy(cache.arrays[name][crops[rows]]).float() for name in ("stride32", "logits"))
        taps = net.back(image_layout(torch.from_numpy(split[rows]).float()))
        answer = loss.divergence(taps.logits, logits).mean()
        total = answer + plan["features"] * loss.distance(taps.stride32, image_layout(stride32), weight).mean()
        for group in optimiser.param_groups:
            group["lr"] = plan["lr"] * min(1.0, (step + 1) / 50) * (1 - step / plan["steps"])
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        average.update(net)
        smooth += 0.03 * (answer.item() - smooth) if smooth else answer.item()
        if step % SAVE_EVERY == SAVE_EVERY - 1 or step + 1 == plan["steps"]:
            save(checkpoint, step + 1, net, optimiser, average)
        progress.step(step + 1, f"answer {smooth:.4f}")
