"""Calibration of the gains: after training, every level's mean packet on held-out photos is brought to the config's budget.

Training controls the rate with the factorised prior on training crops. Real packets are smaller, because they are coded
with contexts, and real photos differ from crops. Calibration takes the measured packets and scales each gain until the
entropy of the symbols changes by the same factor. The decoder is given the quantiser step, so it needs no more training.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from . import bundle_parts, checkpoint, data
from .bundle_parts import BundleParts
from .head import entropy
from .measure import SCENES
from .student import Student


def run(config: dict, work: Path, source: Path) -> None:
    """Scale the gains in WORK/student.pt to the packet sizes `levels.packet_bytes`.

    Needs the figures of `measure --images photos` at the present gains, and makes them obsolete.
    """
    budget = config["levels"].get("packet_bytes")
    if not budget:
        raise SystemExit("the config has no levels.packet_bytes: there are no packet sizes to calibrate the gains to")
    stored = work / "photos.json"
    if not stored.is_file():
        raise SystemExit(f"{stored} is missing: run `python -m recipe measure --images photos` first")
    figures = json.loads(stored.read_text())
    parts = bundle_parts.load(config, work)
    if not np.allclose(figures["gains"], parts.gains, rtol=1e-6):
        raise SystemExit(f"{stored} was measured at other gains: run `python -m recipe measure --images photos` again")
    scenes = [photo for photo in data.photos(config, source)[1] if photo.kind in SCENES]
    latents = np.stack([parts.head.latent(data.photo_pixels(config, photo.image())) for photo in scenes])
    factors = [
        gain_factor(parts, latents, gain, target / found)
        for gain, target, found in zip(parts.gains, budget, figures["bytes_scenes"], strict=True)
    ]
    path = work / "student.pt"
    state = checkpoint.load(path)
    for key in ("student", "average"):
        student = Student(config)
        student.load_state_dict(state[key])
        student.scale_gains(factors)
        state[key] = student.state_dict()
    checkpoint.save(path, state | {"calibrated": True})
    print("gains times " + ", ".join(f"{f:.3f}" for f in factors) + f": {path}")


def is_calibrated(work: Path) -> bool:
    """Whether the gains of WORK/student.pt were calibrated since it was trained."""
    return checkpoint.load(work / "student.pt").get("calibrated", False)


def gain_factor(parts: BundleParts, latents: np.ndarray, gain: float, share: float) -> float:
    """The factor of a gain that leaves `share` of the entropy of the symbols of latents i32 [N,C,h,w], by bisection."""
    target = share * mean_entropy(parts, latents, gain)
    low, high = 0.3, 3.0
    for _ in range(20):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if mean_entropy(parts, latents, gain * middle) > target else (middle, high)
    return (low * high) ** 0.5


def mean_entropy(parts: BundleParts, latents: np.ndarray, gain: float) -> float:
    """Entropy of a symbol in bits, averaged over the channels."""
    symbols = np.stack([parts.head.level(latent, gain) for latent in latents])
    return float(np.mean([entropy(torch.from_numpy(symbols[:, channel]).flatten()) for channel in range(symbols.shape[1])]))
