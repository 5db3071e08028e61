"""Gains that meet a budget: after training, each level's packets on held-out photos are brought to the mean that the config names.

Training steers by the factorised prior on crops; what is sent is smaller, coded by context, and other photos. `settle` reads the
measured packets and moves the gains by the entropy of the symbols. The decoder knows the step, so it needs no further training.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch

from . import data
from .export import BundleParts, load
from .head import entropy
from .measure import SCENES, fitted
from .student import Student


def run(config: dict, work: Path, source: Path) -> None:
    """Move the gains of WORK/student.pt; measure again afterwards."""
    budget = config["levels"].get("packet_bytes")
    if not budget:
        raise SystemExit("the config names no levels.packet_bytes: there is no budget to settle on")
    measured = work / "photos.json"
    if not measured.is_file():
        raise SystemExit(f"{measured} is missing: run `python -m recipe measure --of photos` first")
    near = json.loads(measured.read_text())
    parts = load(config, work)
    if not np.allclose(near["gains"], parts.gains, rtol=1e-6):
        raise SystemExit(f"{measured} was measured at other gains: run `python -m recipe measure --of photos` again")
    scenes = [photo for photo in data.photos(config, source)[1] if photo.kind in SCENES]
    latents = np.stack([parts.head.latent(fitted(config, photo.image())) for photo in scenes])
    factors = [
        factor(parts, latents, gain, wanted / found) for gain, wanted, found in zip(parts.gains, budget, near["bytes_scenes"], strict=True)
    ]
    path = work / "student.pt"
    state = torch.load(path, weights_only=True, map_location="cpu")
    for key in ("student", "average"):
        student = Student(config)
        student.load_state_dict(state[key])
        student.scale_gains(factors)
        state[key] = student.state_dict()
    state["calibrated"] = True
    aside = path.with_suffix(".new")
    torch.save(state, aside)
    os.replace(aside, path)
    print("gains times " + ", ".join(f"{f:.3f}" for f in factors) + f": {path}")


def is_calibrated(work: Path) -> bool:
    """Whether the gains of WORK/student.pt have met their budget since it was trained."""
    return torch.load(work / "student.pt", weights_only=True, map_location="cpu").get("calibrated", False)


def factor(parts: BundleParts, latents: np.ndarray, gain: float, share: float) -> float:
    """What a gain is multiplied by to leave `share` of the entropy of the symbols of latents i32 [N,C,h,w]."""
    wanted = share * spent(parts, latents, gain)
    low, high = 0.3, 3.0
    for _ in range(20):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if spent(parts, latents, gain * middle) > wanted else (middle, high)
    return (low * high) ** 0.5


def spent(parts: BundleParts, latents: np.ndarray, gain: float) -> float:
    """Mean entropy of the channels' symbols, bits."""
    symbols = np.stack([parts.head.level(latent, gain) for latent in latents])
    return float(np.mean([entropy(torch.from_numpy(symbols[:, channel]).flatten()) for channel in range(symbols.shape[1])]))
