"""A student with the weights of a finished bundle, to go on training where no checkpoint is left (`train.init_from` in a config).

The head comes back on its int8 grid, the decoder as f16 stored it. Priors are not in a bundle: they are fitted again.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from .graph import GLOBAL_CONTEXT
from .student import Student


def load(student: Student, folder: Path) -> None:
    """Fill head, gains and decoder from `folder`; levels coarser than the bundle's start at the config's gains."""
    file = folder / "manifest.toml"
    if not file.is_file():
        raise SystemExit(f"{file} is missing: train.init_from names the folder of a bundle")
    manifest = tomllib.loads(file.read_text())
    state = student.state_dict()
    tail = next(task["tail"] for task in manifest["task"] if task["kind"] == "classify")
    found = head(stored(folder / manifest["head"]["file"])) | decoder(stored(folder / tail), len(student.decoder.before))
    known = torch.tensor([math.log(level["gain"]) for level in manifest["level"][1:]])
    found["levels.log_gain"] = torch.cat([known, state["levels.log_gain"][len(known) :]])
    for name, value in found.items():
        if name not in state or state[name].shape != value.shape:
            wanted = tuple(state[name].shape) if name in state else "nothing"
            raise SystemExit(
                f"{folder} has {name} of {tuple(value.shape)}, the config makes {wanted}: give head, decoder and levels its sizes"
            )
    missing = [name for name in state if not name.startswith("levels.priors") and name not in found]
    if missing:
        raise SystemExit(f"{folder} has no {missing[0]}, which the config asks for")
    student.load_state_dict(state | found)


def stored(path: Path) -> dict[str, np.ndarray]:
    """Initialisers of an ONNX file by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}


def head(found: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
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
    """Weights by the names that graph.py gives them; residual blocks are numbered from 1, `before` of them before the sketch."""
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
