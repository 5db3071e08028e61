"""Ablations: short trainings from the same initial weights, with and without one part, compared at equal bytes.

The config's [change] applies to all trials, [trial.NAME] to one. Every trial has a folder in WORK and continues where it
stopped. Before measuring, the gain of each level is set so that the symbols of the held-out photos have the entropy of the
level's packet size: two trials differ in accuracy at the same rate.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from . import checkpoint, data, loss, teacher, train
from .experiment import merged
from .head import entropy
from .progress import Progress
from .student import Student

BATCH = 8
COLUMNS = ("bytes", "agreement", "divergence")


def run(config: dict, work: Path, source: Path, results: Path) -> None:
    """Train and measure every trial of the config, then write its rows to ablations.csv."""
    trials = config["trial"]
    if "base" not in trials:
        raise SystemExit(f"{config['name']} has no trial named base: there is nothing to compare with")
    measured = {}
    for name, trial in trials.items():
        plan = planned(config, trial)
        folder = work / config["name"] / name
        folder.mkdir(parents=True, exist_ok=True)
        link(folder / "features", work / "features")
        train.run(plan, folder, True, source)
        measured[name] = measure(plan, folder, source, name)
    write(results / "ablations.csv", trials, measured)


def planned(config: dict, trial: dict) -> dict:
    """The experiment of one trial: what the config inherits, with its common changes and the trial's."""
    base = {key: value for key, value in config.items() if key not in ("trial", "change", "cached_crops")}
    plan = merged(merged(base, config.get("change", {})), {k: v for k, v in trial.items() if k not in ("removes", "adds", "cached_crops")})
    if trial.get("cached_crops", config.get("cached_crops", False)):
        plan.pop("on_the_fly", None)
    return plan


def link(place: Path, target: Path) -> None:
    """Make `place` a symbolic link to `target` unless it exists."""
    if not place.exists():
        place.symlink_to(target.resolve())


@torch.inference_mode()
def measure(config: dict, work: Path, source: Path, name: str) -> list[tuple[float, float, float]]:
    """Bytes, agreement and divergence of each level on the held-out photos, at the config's packet sizes."""
    student, net = Student(config).eval(), teacher.load(config, work)
    student.load_state_dict(checkpoint.load(work / "student.pt")["average"])
    images = np.stack([data.photo_pixels(config, photo.image()) for photo in data.photos(config, source)[1]])
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last).split(BATCH)
    for part in (student, net):
        part.to(memory_format=torch.channels_last)
    latents = torch.cat([student.head(pixels) for pixels in batches])
    teachers = [net(pixels) for pixels in batches]
    found, progress = [], Progress(f"{name}: levels", len(config["levels"]["gains"]))
    for level, budget in enumerate(config["levels"]["packet_bytes"]):
        ratio = student.levels.channel_gains(level, torch.ones(()))
        scaled = latents * ratio
        gain = gain_for_bytes(scaled, budget)
        agree, divergence = [], []
        for latent, target in zip(scaled.split(BATCH), teachers, strict=True):
            symbols = torch.round(latent * gain).clamp(-128, 127)
            split = student.decoder(symbols / gain / ratio, torch.full((len(latent),), 1 / gain), net)[0]
            logits = net.back(split).logits
            agree.append((logits.argmax(1) == target.argmax(1)).float())
            divergence.append(loss.divergence(logits, target))
        found.append((entropy_bytes(scaled, gain), torch.cat(agree).mean().item(), torch.cat(divergence).mean().item()))
        progress.step(level + 1)
    return found


def gain_for_bytes(latents: torch.Tensor, budget: float) -> float:
    """The gain at which the symbols of latents [N,C,h,w] have an entropy of `budget` bytes per image, by bisection."""
    low, high = 1e-3, 1e2
    for _ in range(30):
        gain = (low * high) ** 0.5
        low, high = (low, gain) if entropy_bytes(latents, gain) > budget else (gain, high)
    return gain


def entropy_bytes(latents: torch.Tensor, gain: float) -> float:
    """Bytes per image if every channel's symbols were coded at their entropy."""
    symbols = torch.round(latents * gain).clamp(-128, 127).to(torch.int16)
    return sum(entropy(symbols[:, channel]) for channel in range(symbols.shape[1])) * symbols[0, 0].numel() / 8


def write(path: Path, trials: dict, measured: dict[str, list[tuple[float, float, float]]]) -> None:
    """Write the trials' rows into the table at `path`, replacing their earlier rows."""
    rows = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
    header = ["part", "level", *(f"{name}_{side}" for side in ("without", "with") for name in COLUMNS)]
    rows = [row for row in rows if row["part"] not in trials]
    for name, trial in trials.items():
        if name == "base":
            continue
        sides = (measured[name], measured["base"]) if "removes" in trial else (measured["base"], measured[name])
        for level, (without, with_) in enumerate(zip(*sides, strict=True)):
            values = [round(value, 1 if i % 3 == 0 else 4) for i, value in enumerate((*without, *with_))]
            rows.append(dict(zip(header, [name, level, *values], strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path.read_text())
