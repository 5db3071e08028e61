"""Agreement, divergence and mIoU of every level behind a new tail, beside the same packets behind the bundle's tail.

Symbols, the unsplit network's answers and those of the bundle's tail are computed once and stored in WORK/tail-held-out; a
checkpoint is then measured in a fraction of the time.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import data, loss, tail
from .progress import Progress
from .segmenter import Confusion, Segmenter
from .tail_targets import StoredRows, Teachers

BATCH = 8
RESAMPLES = 2000  # of the bootstrap that the intervals come from


def run(config: dict, work: Path, source: Path, photos: int | None = None, frame_every: int = 1) -> dict:
    """Measure WORK/tail.pt on the first `photos` held-out photos and every so many frames of CamVid val; writes WORK/tail.json."""
    teachers = Teachers(config, tail.device_of(), None)
    new = tail.load(config, work, teachers)
    result = measure_photos(config, work, source, teachers, new, photos) | measure_frames(config, work, source, teachers, new, frame_every)
    result["cuts"] = measure_cuts(config, work, source, teachers, new, photos)
    result["step"] = tail.step_of(work)
    (work / "tail.json").write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    return result


@torch.inference_mode()
def photo_rows(config: dict, work: Path, source: Path, teachers: Teachers, photos: int | None) -> StoredRows:
    """Symbols i8 [M,L,C,h,w], old f16 [M,L,classes] and unsplit f32 [M,classes] of held-out photos, at least the first `photos`."""
    held_out = data.photos(config, source)[1]
    rows = StoredRows(work / "tail-held-out/photos", len(held_out), {"symbols": np.int8, "unsplit": np.float32})
    wanted = min(photos or len(held_out), len(held_out))
    progress = Progress("held-out photos", wanted, rows.count)
    for first in range(rows.count, wanted, BATCH):
        pixels = np.stack([data.photo_pixels(config, photo.image()) for photo in held_out[first : first + BATCH]])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().to(teachers.device)
        found = {"symbols": [], "old": []}
        for level in range(len(teachers.steps)):
            index = torch.full((len(images),), level, device=teachers.device)
            symbols = teachers.symbols(images, index)
            found["symbols"].append(symbols)
            found["old"].append(teachers.answers(symbols, index)["logits"])
        rows.write({name: torch.stack(parts, 1) for name, parts in found.items()} | {"unsplit": teachers.unsplit(images)["unsplit"]})
        progress.step(rows.count)
    return rows


@torch.inference_mode()
def frame_rows(config: dict, work: Path, source: Path, teachers: Teachers) -> StoredRows:
    """Symbols i8 [M,L,C,h,w], old u8 [M,L,H,W], unsplit u8 [M,H,W] and true u8 [M,H,W] classes of CamVid val."""
    tar = data.Tar(source / config["data"]["camvid_val"])
    names = data.camvid(tar)
    rows = StoredRows(
        work / "tail-held-out/frames", len(names), {"symbols": np.int8, "old": np.uint8, "unsplit": np.uint8, "true": np.uint8}
    )
    progress = Progress("validation frames", len(names), rows.count)
    for name in names[rows.count :]:
        pixels, true = data.frame(tar, name)
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().to(teachers.device)
        found = {"symbols": [], "old": []}
        for level in range(len(teachers.steps)):
            index = torch.tensor([level], device=teachers.device)
            symbols = teachers.symbols(image, index)
            found["symbols"].append(symbols)
            found["old"].append(mask(teachers.segmenter, teachers.student.decoder(*teachers.latent(symbols, index), teachers.net)[0]))
        unsplit = mask(teachers.segmenter, teachers.net.front(image))
        rows.write(
            {key: torch.stack(parts, 1) for key, parts in found.items()} | {"unsplit": unsplit, "true": torch.from_numpy(true)[None]}
        )
        progress.step(rows.count)
    return rows


@torch.inference_mode()
def cut_rows(config: dict, work: Path, source: Path, teachers: Teachers, photos: int | None) -> StoredRows:
    """Old f16 [M,G,classes]: the answers of the bundle's tail to packets of the default level cut behind each group but the last."""
    packets, groups = photo_rows(config, work, source, teachers, photos), range(1, len(teachers.group_sizes))
    rows = StoredRows(work / "tail-held-out/cuts", packets.total, {})
    wanted = min(photos or packets.count, packets.count) if groups else 0
    progress = Progress("cut packets", wanted, rows.count)
    for first in range(rows.count, wanted, BATCH):
        found = [
            teachers.answers(*cut_batch(packets, teachers, slice(first, min(first + BATCH, wanted)), group))["logits"] for group in groups
        ]
        rows.write({"old": torch.stack(found, 1)})
        progress.step(rows.count)
    return rows


def cut_batch(packets: StoredRows, teachers: Teachers, rows: slice, group: int) -> tuple[Tensor, Tensor]:
    """Symbols and levels of packets of the default level, cut behind `group` groups."""
    symbols = torch.from_numpy(packets.arrays["symbols"][rows, teachers.default]).float().to(teachers.device)
    level = torch.full((len(symbols),), teachers.default, device=teachers.device)
    return teachers.cut(symbols, level, torch.full_like(level, group)), level


@torch.inference_mode()
def measure_cuts(config: dict, work: Path, source: Path, teachers: Teachers, new: tail.CheapTail, photos: int | None) -> list[dict]:
    """Agreement with the unsplit network of both tails on packets of the default level, cut behind each group but the last."""
    packets, rows = photo_rows(config, work, source, teachers, photos), cut_rows(config, work, source, teachers, photos)
    count = min(photos or rows.count, rows.count)
    right, found = packets.arrays["unsplit"][:count].argmax(1), []
    for group in range(1, len(teachers.group_sizes)):
        answers = []
        for first in range(0, count, BATCH):
            symbols, level = cut_batch(packets, teachers, slice(first, min(first + BATCH, count)), group)
            answers.append(new(*teachers.latent(symbols, level))[1].logits.argmax(1).cpu().numpy())
        same = {"old": rows.arrays["old"][:count, group - 1].argmax(1) == right, "new": np.concatenate(answers) == right}
        channels = int(sum(teachers.group_sizes[:group]))
        found.append({"channels": channels} | {f"agreement_{name}": float(value.mean()) for name, value in same.items()})
    return found


def mask(segmenter: Segmenter, split: Tensor) -> Tensor:
    """Class of every pixel u8 [N,H,W] from split features."""
    return segmenter(split).argmax(1).to(torch.uint8)


@torch.inference_mode()
def measure_photos(config: dict, work: Path, source: Path, teachers: Teachers, new: tail.CheapTail, photos: int | None) -> dict:
    """For each level: agreement and divergence of both tails, and the difference in agreement with its paired interval."""
    rows = photo_rows(config, work, source, teachers, photos)
    count = min(photos or rows.count, rows.count)
    unsplit = torch.from_numpy(rows.arrays["unsplit"][:count])
    right, levels = unsplit.argmax(1), []
    for level in range(len(teachers.steps)):
        logits = []
        for first in range(0, count, BATCH):
            symbols = torch.from_numpy(rows.arrays["symbols"][first : min(first + BATCH, count), level]).float().to(teachers.device)
            index = torch.full((len(symbols),), level, device=teachers.device)
            logits.append(new(*teachers.latent(symbols, index))[1].logits.cpu())
        answers = {"old": torch.from_numpy(rows.arrays["old"][:count, level]).float(), "new": torch.cat(logits)}
        same = {name: (value.argmax(1) == right).numpy() for name, value in answers.items()}
        row = {"level": level}
        for name, value in answers.items():
            row |= {f"agreement_{name}": float(same[name].mean()), f"divergence_{name}": loss.divergence(value, unsplit).mean().item()}
        row |= {"difference": float(same["new"].mean() - same["old"].mean()), "interval": interval(same["new"], same["old"])}
        never = min(200, count)  # photos that the bundle's own training did not see either
        row |= {f"agreement_{name}_unseen": float(same[name][:never].mean()) for name in same}
        row |= {
            f"divergence_{name}_unseen": loss.divergence(value[:never], unsplit[:never]).mean().item() for name, value in answers.items()
        }
        levels.append(row)
    return {"photos": count, "levels": levels}


@torch.inference_mode()
def measure_frames(config: dict, work: Path, source: Path, teachers: Teachers, new: tail.CheapTail, every: int) -> dict:
    """mIoU of the unsplit network and of both tails at each level."""
    rows = frame_rows(config, work, source, teachers)
    chosen, unsplit, levels, segmenter = range(0, rows.count, every), Confusion(), [], new.segmenter()
    for at in chosen:
        unsplit.add(torch.from_numpy(rows.arrays["unsplit"][at]), torch.from_numpy(rows.arrays["true"][at]))
    for level in range(len(teachers.steps)):
        found = {"old": Confusion(), "new": Confusion()}
        for at in chosen:
            true = torch.from_numpy(rows.arrays["true"][at])
            symbols = torch.from_numpy(rows.arrays["symbols"][at : at + 1, level]).float().to(teachers.device)
            split = new.decoder(*teachers.latent(symbols, torch.tensor([level], device=teachers.device)))
            found["new"].add(mask(segmenter, split)[0].cpu(), true)
            found["old"].add(torch.from_numpy(rows.arrays["old"][at, level]), true)
        levels.append({f"miou_{name}": confusion.mean() for name, confusion in found.items()})
    return {"frames": len(chosen), "miou_unsplit": unsplit.mean(), "masks": levels}


def interval(new: np.ndarray, old: np.ndarray) -> list[float]:
    """The paired bootstrap's 95 % interval of the difference of two means."""
    difference = new.astype(float) - old
    drawn = np.random.default_rng(1).integers(0, len(difference), (RESAMPLES, len(difference)))
    return [float(bound) for bound in np.percentile(difference[drawn].mean(1), (2.5, 97.5))]


def show(result: dict) -> None:
    """Print the figures as a table."""
    print(
        f"step {result['step']}: {result['photos']} held-out photos, {result['frames']} frames, unsplit mIoU {result['miou_unsplit']:.4f}"
    )
    print("level  agreement old   new   difference, 95 % interval   KL old    new   mIoU old    new")
    for row, masks in zip(result["levels"], result["masks"], strict=True):
        low, high = row["interval"]
        print(
            f"{row['level']:5}  {row['agreement_old']:13.3f} {row['agreement_new']:5.3f}   {row['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
            f"        {row['divergence_old']:.4f} {row['divergence_new']:.4f}   {masks['miou_old']:.4f} {masks['miou_new']:.4f}"
        )
    for row in result["cuts"]:
        print(f"cut behind {row['channels']:2} channels: agreement old {row['agreement_old']:.3f} new {row['agreement_new']:.3f}")
