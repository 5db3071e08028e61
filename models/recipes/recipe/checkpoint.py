"""Checkpoint files: written so that a kill leaves either the old or the new one, and marked with a format number."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from .optim import Average

FORMAT = 2  # number of the layout below; raised whenever a key or the name of a weight changes


def save(path: Path, state: dict) -> None:
    """Write `state` to `path` atomically: to a temporary file in the same folder, which then replaces `path`."""
    temporary = path.with_suffix(".new")
    torch.save(state | {"format": FORMAT}, temporary)
    os.replace(temporary, path)


def load(path: Path, device: torch.device | str = "cpu") -> dict:
    """The state that `save` wrote, tensors on `device`.

    Exits with a message where the file is missing or was written in another format.
    """
    if not path.is_file():
        raise SystemExit(f"{path} is missing: run `python -m recipe train` with this config first")
    state = torch.load(path, weights_only=True, map_location=device)
    if state.get("format") != FORMAT:
        raise SystemExit(
            f"{path} has checkpoint format {state.get('format', 1)}, this version reads {FORMAT}: train again, or start from a bundle "
            "with train.init_from"
        )
    return state


def save_tail(path: Path, step: int, net: nn.Module, optimiser: torch.optim.Optimizer, average: Average) -> None:
    """Write the training state of a tail."""
    state = {"step": step, "net": net.state_dict(), "optimiser": optimiser.state_dict()}
    save(path, state | {"average": average.values, "average_steps": average.steps})


def resume(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, average: Average) -> int:
    """Read what `save_tail` wrote into the three objects; returns the number of steps made."""
    state = load(path)
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    average.values, average.steps = state["average"], state["average_steps"]
    return state["step"]
