"""Fine-tuning of the classification tail on decoded features, with encoder and decoder frozen.

Features of training crops are decoded once, each at a level drawn as in training (`WORK/decoded/`: split f16 [M,48,h,w], crop
i64 [M]). Then the block groups behind the split are trained to the teacher's answer for the crop. Depthwise kernels stay
fixed, because their gradients would take most of the time.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import backbone, checkpoint, loss
from .backbone import SPLIT_GROUP, Backbone
from .features import FeatureCache, image_layout
from .optim import Average
from .progress import Progress
from .student import Student

BATCH = 8  # of decoding
SAVE_EVERY = 50


def run(config: dict, work: Path, resume: bool) -> None:
    """Fine-tune the tail to the decoder of WORK/student.pt and write WORK/classify.pt."""
    torch.set_num_threads(1)
    cache, net = FeatureCache(work / "features"), backbone.load(config["backbone"]["name"]).to(memory_format=torch.channels_last)
    student = Student(config).to(memory_format=torch.channels_last)
    student.load_state_dict(checkpoint.load(work / "student.pt")["average"])
    decode(config, work / "decoded", cache, student.eval(), net)
    fit(config, work, cache, net, resume)


@torch.inference_mode()
def decode(config: dict, folder: Path, cache: FeatureCache, student: Student, net: Backbone) -> None:
    """Decode the features of `items` crops; continues where it stopped."""
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
    progress = Progress("decoded features", count, start)
    for first in range(start, count, BATCH):
        rows = range(first, min(first + BATCH, count))
        for level in np.unique(levels[rows]):
            chosen = [row for row in rows if levels[row] == level]
            pixels = torch.from_numpy(cache.pixels[crops[chosen]]).permute(0, 3, 1, 2).float()
            split[chosen] = student.transmit(image_layout(pixels), int(level), net)[1].numpy()
        done.write_text(json.dumps({"count": rows[-1] + 1}))
        progress.step(rows[-1] + 1)


def trainable(net: Backbone) -> list[nn.Parameter]:
    """The parameters behind the split except depthwise kernels, with gradients enabled."""
    parts = [*net.groups[SPLIT_GROUP:].modules(), net.top, net.classifier]
    learned = []
    for part in parts:
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            learned.append(part.bias)
            if getattr(part, "groups", 1) == 1:
                learned.append(part.weight)
    for p in learned:
        p.requires_grad_()
    return learned


def fit(config: dict, work: Path, cache: FeatureCache, net: Backbone, resume: bool) -> None:
    """Train the tail of `net` on the decoded features; writes WORK/classify.pt."""
    plan, folder, path = config["classify"], work / "decoded", work / "classify.pt"
    split, crops = np.load(folder / "split.npy", mmap_mode="r"), np.load(folder / "crop.npy")
    weight = torch.load(work / "sensitivity.pt", weights_only=True)["stride32"]
    learned = trainable(net)
    optimiser = torch.optim.Adam(learned, plan["lr"], betas=(0.9, 0.99))
    average, start = Average(net, plan["ema_decay"]), 0
    if resume and path.is_file():
        start = checkpoint.resume(path, net, optimiser, average)
    progress, smooth = Progress("classify", plan["steps"], start, every=20), 0.0
    for step in range(start, plan["steps"]):
        rows = np.sort(np.random.default_rng([config["seed"], step, 2]).choice(len(crops), plan["batch"], replace=False))
        stride32, logits = (torch.from_numpy(cache.arrays[name][crops[rows]]).float() for name in ("stride32", "logits"))
        taps = net.back(image_layout(torch.from_numpy(split[rows]).float()))
        divergence = loss.divergence(taps.logits, logits).mean()
        total = divergence + plan["feature_weight"] * loss.distance(taps.stride32, image_layout(stride32), weight).mean()
        for group in optimiser.param_groups:
            group["lr"] = plan["lr"] * min(1.0, (step + 1) / 50) * (1 - step / plan["steps"])
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        average.update(net)
        smooth += 0.03 * (divergence.item() - smooth) if smooth else divergence.item()
        if step % SAVE_EVERY == SAVE_EVERY - 1 or step + 1 == plan["steps"]:
            checkpoint.save_tail(path, step + 1, net, optimiser, average)
        progress.step(step + 1, f"KL {smooth:.4f}")
