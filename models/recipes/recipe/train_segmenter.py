"""Training of the segmentation tail on CamVid's road frames, which are augmented once and whose features are stored.

It is trained on the backbone's own features (`WORK/camvid/`) first. Once the decoder is trained, it is adapted to half
unsplit and half decoded features (`WORK/camvid-decoded/`, default level), which costs less accuracy behind the bottleneck.
Each folder holds classes u8 [M,360,480], split f16 [M,48,45,60], stride16 f16 [M,120,23,30], stride32 f16 [M,352,12,15].
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.nn import functional as F

from . import backbone, checkpoint, data, segmenter
from .backbone import Backbone
from .features import count_done, image_layout
from .optim import Average
from .progress import Progress
from .segmenter import CLASSES, UNLABELLED, Segmenter
from .student import Student

FIELDS = ("classes", "split", "stride16", "stride32")


class Transmitter(Protocol):
    """A system that encodes pixels and decodes split features."""

    def transmit(self, pixels: torch.Tensor, level: int, net: Backbone) -> tuple[object, torch.Tensor]:
        """Symbols, and the split features [N,48,h,w] decoded from them."""


def augmented(pixels: np.ndarray, classes: np.ndarray, index: int, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Variant `index` of a frame at its own size: 0 is the frame itself, others are scaled, shifted, mirrored and recoloured."""
    if index == 0:
        return pixels, classes
    height, width = classes.shape
    zoom = rng.uniform(0.8, 1.8)
    w, h = max(width, round(width * zoom)), max(height, round(height * zoom))
    left, top = rng.randint(0, w - width), rng.randint(0, h - height)
    box = (left, top, left + width, top + height)
    image = Image.fromarray(pixels).resize((w, h), Image.BICUBIC).crop(box)
    labels = Image.fromarray(classes).resize((w, h), Image.NEAREST).crop(box)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = kind(image).enhance(rng.uniform(0.7, 1.3))
    if rng.random() < 0.5:
        image, labels = (part.transpose(Image.FLIP_LEFT_RIGHT) for part in (image, labels))
    return np.asarray(image, np.uint8), np.asarray(labels, np.uint8)


def frames(config: dict, source: Path) -> list[tuple[str, int]]:
    """Frame name and variant of every training item, in a fixed shuffled order."""
    names = data.camvid(data.Tar(source / config["data"]["camvid_train"]))
    items = [(name, index) for name in names for index in range(config["segment"]["variants"])]
    random.Random(config["seed"]).shuffle(items)
    return items


def features(config: dict, folder: Path, source: Path, count: int, student: Transmitter | None) -> None:
    """Compute the features of the first `count` items, decoded by `student` if given; continues where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    items = frames(config, source)[:count]
    tar = data.Tar(source / config["data"]["camvid_train"])
    net = backbone.load(config["backbone"]["name"]).to(memory_format=torch.channels_last)
    done = folder / "done.json"
    start = count_done(folder, "classes", len(items))
    arrays: dict[str, np.ndarray] = {}
    progress = Progress(f"{folder.name} features", len(items), start)
    for at in range(start, len(items)):
        name, index = items[at]
        pixels, classes = augmented(*data.frame(tar, name), index, random.Random(f"{config['seed']}/{name}/{index}"))
        image = image_layout(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
        with torch.inference_mode():
            split = student.transmit(image, config["levels"]["default"], net)[1] if student else net.front(image)
            stride16 = net.middle(split)
            stride32 = net.deep(stride16)
        row = {"classes": classes[None], "split": split.numpy(), "stride16": stride16.numpy(), "stride32": stride32.numpy()}
        for key, value in row.items():
            if key not in arrays:
                path, kind = folder / f"{key}.npy", np.uint8 if key == "classes" else np.float16
                shape = (len(items), *value.shape[1:])
                arrays[key] = np.load(path, mmap_mode="r+") if start else np.lib.format.open_memmap(path, "w+", kind, shape)
            arrays[key][at] = value[0]
        if at % 32 == 31 or at + 1 == len(items):
            done.write_text(json.dumps({"count": at + 1}))
        progress.step(at + 1)


def open_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays that `features` wrote, up to the last computed item."""
    count = json.loads((folder / "done.json").read_text())["count"]
    return {key: np.load(folder / f"{key}.npy", mmap_mode="r")[:count] for key in FIELDS}


def class_weights(classes: np.ndarray) -> torch.Tensor:
    """Weights of the classes f32 [11] by their frequency: 1 / log(1.1 + share), ENet (arXiv 1606.02147)."""
    share = np.bincount(classes[::7, ::4, ::4].reshape(-1), minlength=CLASSES + 1)[:CLASSES]
    return torch.from_numpy(1 / np.log(1.1 + share / share.sum())).float()


def train(config: dict, work: Path, source: Path, resume: bool) -> None:
    """Train the fusion on the features of the frozen backbone; writes WORK/segment-unsplit.pt."""
    torch.set_num_threads(1)
    torch.manual_seed(config["seed"])  # for the fusion's initial weights
    features(config, work / "camvid", source, config["segment"]["items"], None)
    net = Segmenter(backbone.load(config["backbone"]["name"]))
    fit(config, [open_arrays(work / "camvid")], config["segment"]["fit"], net, work / "segment-unsplit.pt", resume)


def adapt(config: dict, work: Path, source: Path, resume: bool) -> None:
    """Continue training on half unsplit and half decoded features; writes WORK/segment.pt."""
    torch.set_num_threads(1)
    student = Student(config)
    student.load_state_dict(checkpoint.load(work / "student.pt")["average"])
    features(config, work / "camvid-decoded", source, config["segment"]["decoded_items"], student.eval())
    sets = [open_arrays(work / "camvid"), open_arrays(work / "camvid-decoded")]
    net = segmenter.load(config, backbone.load(config["backbone"]["name"]), work, "segment-unsplit.pt")
    fit(config, sets, config["segment"]["adapt"], net, work / "segment.pt", resume)


def fit(config: dict, sets: list[dict[str, np.ndarray]], plan: dict, net: Segmenter, path: Path, resume: bool) -> None:
    """Train the fusion of `net` and write it to `path`; every batch holds an equal part of each set of features."""
    net.to(memory_format=torch.channels_last)
    average = Average(net, plan["ema_decay"])
    optimiser = torch.optim.AdamW(net.fusion.parameters(), plan["lr"], weight_decay=plan["weight_decay"])
    weights = class_weights(sets[0]["classes"])
    start = checkpoint.resume(path, net, optimiser, average) if resume and path.is_file() else 0
    progress = Progress("segment", plan["steps"], start, every=30)
    loss_mean = 0.0
    for step in range(start, plan["steps"]):
        batch = draw(sets, plan["batch"], np.random.default_rng([config["seed"], step]))
        classes = torch.from_numpy(batch.pop("classes")).long()
        taps = [image_layout(torch.from_numpy(value).float()) for value in batch.values()]
        scores = F.interpolate(net.fusion(*taps), scale_factor=2, mode="bilinear", align_corners=False)
        loss = F.cross_entropy(scores, classes[:, 1::2, 1::2], weights, ignore_index=UNLABELLED)
        for group in optimiser.param_groups:
            group["lr"] = plan["lr"] * min(1, (step + 1) / 50) * max(0.01, (1 - step / plan["steps"])) ** 0.9
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average.update(net)
        loss_mean += 0.03 * (loss.item() - loss_mean) if loss_mean else loss.item()
        if step % 50 == 49 or step + 1 == plan["steps"]:
            checkpoint.save_tail(path, step + 1, net, optimiser, average)
        progress.step(step + 1, f"loss {loss_mean:.4f}")


def draw(sets: list[dict[str, np.ndarray]], size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A batch of `size` items, an equal part from every set."""
    parts = []
    for arrays in sets:
        index = np.sort(rng.choice(len(arrays["classes"]), size // len(sets), replace=False))
        parts.append({key: arrays[key][index] for key in FIELDS})
    return {key: np.concatenate([part[key] for part in parts]) for key in FIELDS}
