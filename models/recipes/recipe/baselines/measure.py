"""Bytes, agreement and mIoU of a baseline, as rows beside ours.

Two rows a setting: its packet as published, and the same symbols through our tables and coder for information. The answer
is the second stage's; the mask reads the first stage's decoder, because stage 2 bends decoder and tail to one task.
"""

from __future__ import annotations

import copy
import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import backbone, complexity, data, loss, packet, test_set_log, train_segmenter, rows, tables
from ..features import FeatureCache
from ..progress import Progress
from ..measure import fitted, tensor
from ..segmenter import Confusion, Segmenter, kept
from .networks import Sent, build
from .train import checkpoint, planned, restore, total_steps

TABLE_CROPS = 256


@dataclass
class Baseline:
    """One trained setting."""

    setting: float
    student: nn.Module  # after stage 2
    matched: nn.Module  # after stage 1
    tail: backbone.Backbone
    net: backbone.Backbone
    segmenter: Segmenter
    steps: int  # those of finer settings that it started from included
    total: int
    hours: float
    fitted_mask: bool

    def tables(self, cache: FeatureCache, seed: int) -> tables.Tables:
        """Our integer tables for its symbols, counted on training crops."""
        chosen = np.random.default_rng(seed).permutation(cache.count)[:TABLE_CROPS]
        counts = sum(tables.histogram(self.sent(cache.pixels[i]).symbols[None]) for i in np.sort(chosen))
        precision, static = tables.counted([counts], [np.ones(counts.shape)])
        return tables.Tables(static, precision)

    def sent(self, pixels: np.ndarray, matched: bool = False) -> Sent:
        return (self.matched if matched else self.student).send(tensor(pixels))


class SegmenterInput:
    """A baseline system where `train_segmenter.features` expects our student."""

    def __init__(self, student: nn.Module):
        self.student = student

    def sent(self, pixels: torch.Tensor, level: int, net: backbone.Backbone) -> tuple[np.ndarray, torch.Tensor]:
        found = self.student.send(pixels)
        return found.symbols, found.split


def load(config: dict, work: Path, setting: float) -> Baseline:
    path = checkpoint(config, work, setting)
    if not path.is_file():
        raise SystemExit(f"{path} is missing: run `python -m recipe train` with this config first")
    state = torch.load(path, weights_only=True)
    net = backbone.load(config["backbone"]["name"])
    student = build(config, setting, net.split_channels)
    restore(student, state["student"])
    matched, tail = copy.deepcopy(student), copy.deepcopy(net)
    if "tail" in state:
        restore(matched, state["matched"])
        tail.load_state_dict(state["tail"])
    for part in (student, matched):
        part.eval()
        if part.rated:
            part.prior.update(force=True, update_quantiles=True)
    mask_path = mask(config, work, setting)
    segmenter = kept(config, net, work, mask_path.name, "segment.pt")
    steps, total = (state["inherited"] + made for made in (state["step"], total_steps(planned(config, state["inherited"]))))
    return Baseline(setting, student, matched, tail, net, segmenter.eval(), steps, total, state["hours"], mask_path.is_file())


def trained(config: dict, work: Path) -> list[float]:
    """The settings that have a checkpoint."""
    found = [setting for setting in config["baseline"]["settings"] if checkpoint(config, work, setting).is_file()]
    for setting in config["baseline"]["settings"]:
        if setting not in found:
            print(f"{config['name']} {setting:g} has no checkpoint in {work}: left out")
    return found


def mask(config: dict, work: Path, setting: float) -> Path:
    return work / f"{config['name']}-{setting:g}-segment.pt"


def adapt(config: dict, work: Path, source: Path, resume: bool) -> None:
    """Fit the mask's fusion to what each setting decodes, encoder and prior frozen, as `train_segmenter.adapt` does for ours."""
    for setting in trained(config, work):
        baseline = load(config, work, setting)
        mask_path = mask(config, work, setting)
        sent = work / f"camvid-{mask_path.stem}"
        train_segmenter.features(config, work / "camvid", source, config["segment"]["items"], None)
        train_segmenter.features(config, sent, source, config["segment"]["decoded_items"], SegmenterInput(baseline.matched))
        sets = [train_segmenter.opened(work / "camvid"), train_segmenter.opened(sent)]
        net = kept(config, baseline.net, work, "segment-unsplit.pt")
        train_segmenter.fit(config, sets, config["segment"]["adapt"], net, mask_path, resume)


@torch.inference_mode()
def classify(baseline: Baseline, ours: tables.Tables, images: list, name: str) -> dict[str, list]:
    """Per image: bytes as published and through our coder, agreement, divergence, whether both answers were right."""
    found: dict[str, list] = {key: [] for key in ("bytes", "coded", "agree", "divergence", "right", "whole")}
    progress = Progress(f"{name} {baseline.setting:g}", len(images))
    for number, (pixels, label) in enumerate(images):
        wanted = baseline.net(tensor(pixels))
        sent = baseline.sent(pixels)
        logits = baseline.tail.back(sent.split).logits
        found["bytes"].append(sent.bytes)
        found["coded"].append(packet.size(ours, 0, sent.symbols))
        found["agree"].append(int(logits.argmax()) == int(wanted.argmax()))
        found["divergence"].append(loss.divergence(logits, wanted).item())
        found["right"].append(int(logits.argmax()) == label)
        found["whole"].append(int(wanted.argmax()) == label)
        progress.step(number + 1)
    return found


@torch.inference_mode()
def segment(baseline: Baseline, ours: tables.Tables, config: dict, source: Path) -> dict[str, float]:
    """CamVid val through the first stage's decoder."""
    tar = data.Tar(source / config["data"]["camvid_val"])
    names = data.camvid(tar)
    sizes, coded, found, whole = [], [], Confusion(), Confusion()
    progress = Progress(f"frames {baseline.setting:g}", len(names))
    for number, name in enumerate(names):
        pixels, classes = data.frame(tar, name)
        true = torch.from_numpy(classes)
        whole.add(baseline.segmenter(baseline.net.front(tensor(pixels))).argmax(1)[0], true)
        sent = baseline.sent(pixels, matched=True)
        sizes.append(sent.bytes)
        coded.append(packet.size(ours, 0, sent.symbols))
        found.add(baseline.segmenter(sent.split).argmax(1)[0], true)
        progress.step(number + 1)
    return {"bytes": np.mean(sizes), "coded": np.mean(coded), "miou": found.mean(), "whole": whole.mean()}


def run(config: dict, work: Path, source: Path, of: str) -> None:
    """Held-out photos and CamVid val, every setting that has a checkpoint; leaves its rows in WORK.

    One that stopped in stage 1 is measured with the frozen tail, and its row says so.
    """
    torch.set_num_threads(1)
    held = [(fitted(config, photo.image()), None) for photo in data.photos(config, source)[1]]
    listed = []
    for setting in trained(config, work):
        baseline = load(config, work, setting)
        ours = baseline.tables(FeatureCache(work / "features"), config["seed"])
        near = classify(baseline, ours, held, "held-out photos")
        road = segment(baseline, ours, config, source) if of == "both" else None
        listed += [row(config, baseline, coder, near, road) for coder in ("published", "narrows")]
        rows.keep(work, listed, config["name"])


def row(config: dict, baseline: Baseline, coder: str, near: dict[str, list], road: dict[str, float] | None) -> rows.Row:
    side = config["photo"]["side"]
    device = [baseline.student.encoder]
    size = "bytes" if coder == "published" else "coded"
    mask = "segmentation tail fitted to it" if baseline.fitted_mask else "segmentation tail of lite2"
    return rows.Row(
        config["name"],
        f"{baseline.setting:g}",
        coder,
        "float",
        complexity.macs(device, lambda: baseline.student.encoder(torch.zeros(1, 3, side, side))),
        complexity.parameters(device),
        float(np.mean(near[size])),
        float(np.mean(near["agree"])),
        float(np.mean(near["divergence"])),
        float(road[size]) if road else None,
        road["miou"] if road else None,
        road["whole"] if road else None,
        baseline.steps,
        baseline.steps * config["stage1"]["batch"],
        round(baseline.hours, 2),
        f"{baseline.steps} of {baseline.total} steps; {mask}",
    )


def evaluate(config: dict, work: Path, source: Path, results: Path) -> None:
    """The labelled photos, read once: a CSV of their own under `results`."""
    torch.set_num_threads(1)
    test_set_log.note(results / "test-set-log.csv", "recipe evaluate", config["name"], source / config["data"]["imagenet"])
    tar = data.Tar(source / config["data"]["imagenet"])
    listed = list(csv.DictReader(io.StringIO((source / config["data"]["imagenet_labels"]).read_text())))
    inside = {Path(name).name: name for name in tar.names(".jpg")}
    images = [(fitted(config, tar.image(inside[Path(line["file"]).name])), int(line["class"])) for line in listed]
    path = results / f"{config['name']}-labelled.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["setting", "bytes", "bytes_narrows_coder", "top1_split", "top1_unsplit", "agreement"])
        for setting in trained(config, work):
            baseline = load(config, work, setting)
            found = classify(baseline, baseline.tables(FeatureCache(work / "features"), config["seed"]), images, "labelled photos")
            means = [np.mean(found[key]) for key in ("bytes", "coded", "right", "whole", "agree")]
            writer.writerow([f"{setting:g}", *(f"{value:.4f}" for value in means)])
    print(path.read_text())
