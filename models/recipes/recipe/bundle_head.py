"""The head of an exported bundle, at a level's gain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from .check import as_signed, session


def session_at(path: Path, gain: float) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session of head.onnx whose last requantisation includes `gain`; its image is pixels minus 128 as i8."""
    model = onnx.load_model_from_string(as_signed(path))
    last = next(node for node in reversed(model.graph.node) if node.op_type == "QLinearConv")
    for stored in model.graph.initializer:
        if stored.name == last.input[6]:  # y_scale
            scale = numpy_helper.to_array(stored) / np.float32(gain)
            stored.CopyFrom(numpy_helper.from_array(scale.astype(np.float32), stored.name))
    return session(model.SerializeToString())
