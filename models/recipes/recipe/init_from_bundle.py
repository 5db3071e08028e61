"""Initialisation of a student from an exported bundle, to continue training without a checkpoint (`train.init_from`).

The head's weights are those on its int8 grid, the decoder's those stored as f16. A bundle holds no priors: they are fitted
again.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from . import manifest
from .graph import GLOBAL_CONTEXT
from .student import Student


def load(student: Student, folder: Path) -> None:
    """Load head, gains and decoder from the bundle at `folder`; levels that it lacks start at the config's gains.

    Exits with the name of a weight whose size the config does not have.
    """
    entries = manifest.read(folder)
    state = student.state_dict()
    tail = next(task["tail"] for task in entries["task"] if task["kind"] == "classify")
    found = head(stored(folder / entries["head"]["file"])) | decoder(stored(folder / tail), len(student.decoder.before))
    gains = torch.tensor([math.log(level["gain"]) for level in entries["level"][1:]])
    found["levels.log_gain"] = torch.cat([gains, state["levels.log_gain"][len(gains) :]])
    for name, value in found.items():
        if name not in state or state[name].shape != value.shape:
            expected = tuple(state[name].shape) if name in state else "nothing"
            raise SystemExit(
                f"{folder} has {name} of {tuple(value.shape)}, the config makes {expected}: head, decoder and levels must have its sizes"
            )
    missing = [name for name in state if not name.startswith("levels.priors") and name not in found]
    if missing:
        raise SystemExit(f"{folder} has no {missing[0]}, which the config needs")
    student.load_state_dict(state | found)


def stored(path: Path) -> dict[str, np.ndarray]:
    """The stored weights of an ONNX file by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}


def head(found: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The student's weights of the head, dequantised."""
    state, index = {}, 0
    while f"layer{index}.weight" in found:
        x_scale, y_scale, scale, weight, bias = (
            found[f"layer{index}.{key}"] for key in ("x_scale", "y_scale", "w_scale", "weight", "bias")
        )
        last = f"layer{index + 1}.weight" not in found
        name = f"head.layers.{index}"
        state[f"{name}.conv.weight"] = torch.from_numpy(weight.astype(np.float32) * scale[:, None, None, None])
        state[f"{name}.conv.bias"] = torch.from_numpy((bias * x_scale.astype(np.float64) * scale).astype(np.float32))
        state[f"{name}.peak"] = torch.tensor(0.0 if last else y_scale.item() * 255)
        index += 1
    return state


def decoder(found: dict[str, np.ndarray], before: int) -> dict[str, torch.Tensor]:
    """The student's weights of the decoder; graph.py numbers residual blocks from 1, of which `before` precede the sketch."""
    state = {}
    for name, value in found.items():
        parts = name.removesuffix(".f16").split(".")
        if parts[0] == "level" and parts[1].isdigit():
            place = ["decoder", *parts]
        elif parts[0] == "decoder" and parts[1].isdigit():
            number = int(parts[1]) - 1
            rest = ["global_context" if part == GLOBAL_CONTEXT else part for part in parts[2:]]
            place = ["decoder", *(("before", str(number)) if number < before else ("after", str(number - before))), *rest]
        elif parts[0] == "decoder":
            place = parts
        else:
            continue
        state[".".join(place)] = torch.from_numpy(value.astype(np.float32))
    return state
