"""Bytes, agreement and mIoU of a trained baseline, as rows of the comparison.

Every setting has two rows: its packet as published, and the same symbols coded with our tables and coder. The class is that
of the second training stage. The segmentation tail uses the first stage's decoder, because stage 2 trains decoder and tail
for classification alone.
"""

from __future__ import annotations

import copy
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import backbone, checkpoint, complexity, data, loss, packet, rows, segmenter, tables, test_set_log, train_segmenter
from ..features import FeatureCache
from ..measure import labelled, tensor
from ..progress import Progress
from ..segmenter import Confusion, Segmenter
from .networks import Transmission, build
from .train import checkpoint_path, restore, stage_settings, total_steps

TABLE_CROPS = 256  # training crops that our tables are counted on


@dataclass
class Baseline:
    """One trained setting of a baseline."""

    setting: float
    student: nn.Module  # encoder and decoder after stage 2
    matched: nn.Module  # the same after stage 1
    tail: backbone.Backbone
    net: backbone.Backbone
    segmenter: Segmenter
    steps: int  # made, with those of the finer setting that it started from
    total: int  # planned, with the same
    hours: float  # of one processor core
    own_segmenter: bool  # whether the segmentation tail was adapted to this setting

    def tables(self, cache: FeatureCache, seed: int) -> tables.Tables:
        """Our static tables for its symbols, counted on training crops."""
        chosen = np.random.default_rng(seed).permutation(cache.count)[:TABLE_CROPS]
        counts = sum(tables.histogram(self.transmit(cache.pixels[i]).symbols[None]) for i in np.sort(chosen))
        precision, static = tables.from_counts([counts], [np.ones(counts.shape)])
        return tables.Tables(static, precision)

    def transmit(self, pixels: np.ndarray, matched: bool = False) -> Transmission:
        """Packet and decoded features of pixels u8 [H,W,3], by the networks after stage 2, or after stage 1 if `matched`."""
        return (self.matched if matched else self.student).transmit(tensor(pixels))


class StudentAdapter:
    """A baseline with the interface that `train_segmenter.features` expects of our student."""

    def __init__(self, student: nn.Module):
        self.student = student

    def transmit(self, pixels: torch.Tensor, level: int, net: backbone.Backbone) -> tuple[np.ndarray, torch.Tensor]:
        transmission = self.student.transmit(pixels)
        return transmission.symbols, transmission.split


def load(config: dict, work: Path, setting: float) -> Baseline:
    """The checkpoint of one setting, with its segmentation tail."""
    state = checkpoint.load(checkpoint_path(config, work, setting))
    net = backbone.load(config["backbone"]["name"])
    student = build(config, setting, net.split_channels)
    restore(student, state["student"])
    matched, tail = copy.deepcopy(student), copy.deepcopy(net)
    if "tail" in state:
        restore(matched, state["matched"])
        tail.load_state_dict(state["tail"])
    for part in (student, matched):
        part.eval()
        if part.has_prior:
            part.prior.update(force=True, update_quantiles=True)
    own = segmenter_path(config, work, setting)
    tail_segmenter = segmenter.load(config, net, work, own.name, "segment.pt")
    steps, total = (state["inherited"] + made for made in (state["step"], total_steps(stage_settings(config, state["inherited"]))))
    return Baseline(setting, student, matched, tail, net, tail_segmenter.eval(), steps, total, state["hours"], own.is_file())


def trained(config: dict, work: Path) -> list[float]:
    """The settings of the sweep that have a checkpoint; names the others."""
    found = [setting for setting in config["baseline"]["settings"] if checkpoint_path(config, work, setting).is_file()]
    for setting in config["baseline"]["settings"]:
        if setting not in found:
            print(f"{config['name']} {setting:g} has no checkpoint in {work}: left out")
    return found


def segmenter_path(config: dict, work: Path, setting: float) -> Path:
    """Where the segmentation tail that was adapted to a setting is kept."""
    return work / f"{config['name']}-{setting:g}-segment.pt"


def adapt(config: dict, work: Path, source: Path, resume: bool) -> None:
    """Adapt the segmentation tail to the decoded features of every setting, as `train_segmenter.adapt` does for ours."""
    for setting in trained(config, work):
        baseline = load(config, work, setting)
        path = segmenter_path(config, work, setting)
        decoded = work / f"camvid-{path.stem}"
        train_segmenter.features(config, work / "camvid", source, config["segment"]["items"], None)
        train_segmenter.features(config, decoded, source, config["segment"]["decoded_items"], StudentAdapter(baseline.matched))
        sets = [train_segmenter.open_arrays(work / "camvid"), train_segmenter.open_arrays(decoded)]
        net = segmenter.load(config, baseline.net, work, "segment-unsplit.pt")
        train_segmenter.fit(config, sets, config["segment"]["adapt"], net, path, resume)


@torch.inference_mode()
def classify(baseline: Baseline, ours: tables.Tables, images: list, name: str) -> dict[str, list]:
    """Lists with one value per (pixels, label or None).

    bytes as published, coded by our coder, agreement with the unsplit network, KL divergence, and whether the class of
    the split and of the unsplit network is the label.
    """
    found: dict[str, list] = {key: [] for key in ("bytes", "coded", "agreement", "divergence", "correct", "unsplit_correct")}
    progress = Progress(f"{name} {baseline.setting:g}", len(images))
    for number, (pixels, label) in enumerate(images):
        teacher = baseline.net(tensor(pixels))
        transmission = baseline.transmit(pixels)
        logits = baseline.tail.back(transmission.split).logits
        found["bytes"].append(transmission.bytes)
        found["coded"].append(packet.expected_bytes(ours, 0, transmission.symbols))
        found["agreement"].append(int(logits.argmax()) == int(teacher.argmax()))
        found["divergence"].append(loss.divergence(logits, teacher).item())
        found["correct"].append(int(logits.argmax()) == label)
        found["unsplit_correct"].append(int(teacher.argmax()) == label)
        progress.step(number + 1)
    return found


@torch.inference_mode()
def segment(baseline: Baseline, ours: tables.Tables, config: dict, source: Path) -> dict[str, float]:
    """Means over CamVid val: bytes as published, bytes by our coder, and mIoU split and unsplit."""
    tar = data.Tar(source / config["data"]["camvid_val"])
    names = data.camvid(tar)
    sizes, coded, found, unsplit = [], [], Confusion(), Confusion()
    progress = Progress(f"frames {baseline.setting:g}", len(names))
    for number, name in enumerate(names):
        pixels, classes = data.frame(tar, name)
        true = torch.from_numpy(classes)
        unsplit.add(baseline.segmenter(baseline.net.front(tensor(pixels))).argmax(1)[0], true)
        transmission = baseline.transmit(pixels, matched=True)
        sizes.append(transmission.bytes)
        coded.append(packet.expected_bytes(ours, 0, transmission.symbols))
        found.add(baseline.segmenter(transmission.split).argmax(1)[0], true)
        progress.step(number + 1)
    return {"bytes": np.mean(sizes), "coded": np.mean(coded), "miou": found.mean(), "miou_unsplit": unsplit.mean()}


def run(config: dict, work: Path, source: Path, images: str) -> None:
    """Measure every setting that has a checkpoint on held-out photos and, unless `images` is photos, CamVid val.

    Leaves its rows in WORK. A setting that stopped in stage 1 is measured with the frozen backbone behind the split; its row
    tells the steps it made.
    """
    torch.set_num_threads(1)
    held_out = [(data.photo_pixels(config, photo.image()), None) for photo in data.photos(config, source)[1]]
    listed = []
    for setting in trained(config, work):
        baseline = load(config, work, setting)
        ours = baseline.tables(FeatureCache(work / "features"), config["seed"])
        on_photos = classify(baseline, ours, held_out, "held-out photos")
        on_frames = segment(baseline, ours, config, source) if images != "photos" else None
        listed += [row(config, baseline, coder, on_photos, on_frames) for coder in ("published", "narrows")]
        rows.save(work, listed, config["name"])


def row(config: dict, baseline: Baseline, coder: str, on_photos: dict[str, list], on_frames: dict[str, float] | None) -> rows.Row:
    """The comparison row of one setting with one coder, `published` or `narrows`."""
    side = config["photo"]["side"]
    device = [baseline.student.encoder]
    size = "bytes" if coder == "published" else "coded"
    tail = "segmentation tail fitted to it" if baseline.own_segmenter else "segmentation tail of lite2"
    return rows.Row(
        config["name"],
        f"{baseline.setting:g}",
        coder,
        "float",
        complexity.macs(device, lambda: baseline.student.encoder(torch.zeros(1, 3, side, side))),
        complexity.parameters(device),
        float(np.mean(on_photos[size])),
        float(np.mean(on_photos["agreement"])),
        float(np.mean(on_photos["divergence"])),
        float(on_frames[size]) if on_frames else None,
        on_frames["miou"] if on_frames else None,
        on_frames["miou_unsplit"] if on_frames else None,
        baseline.steps,
        baseline.steps * config["stage1"]["batch"],
        round(baseline.hours, 2),
        f"{baseline.steps} of {baseline.total} steps; {tail}",
    )


def evaluate(config: dict, work: Path, source: Path, results: Path) -> None:
    """Measure every setting on the labelled test photos; writes NAME-labelled.csv and enters the use in the log."""
    torch.set_num_threads(1)
    test_set_log.note(results / test_set_log.FILE, "recipe evaluate", config["name"], source / config["data"]["imagenet"])
    images = list(labelled(config, source))
    path = results / f"{config['name']}-labelled.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["setting", "bytes", "bytes_narrows_coder", "top1_split", "top1_unsplit", "agreement"])
        for setting in trained(config, work):
            baseline = load(config, work, setting)
            found = classify(baseline, baseline.tables(FeatureCache(work / "features"), config["seed"]), images, "labelled photos")
            means = [np.mean(found[key]) for key in ("bytes", "coded", "correct", "unsplit_correct", "agreement")]
            writer.writerow([f"{setting:g}", *(f"{value:.4f}" for value in means)])
    print(path.read_text())
