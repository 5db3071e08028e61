"""ONNX files of a custom backbone, from PyTorch's exporter; one image size, any batch size, large weights stored as f16."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim

from ..decoder import Decoder
from .partitioned import LARGE, PartitionedBackbone

OPSET = 18


class Tail(nn.Module):
    """Latent [N,C,h,w] and step [N] to logits [N,classes] (models/BUNDLE.md, section 5)."""

    def __init__(self, decoder: Decoder, net: PartitionedBackbone):
        super().__init__()
        self.decoder, self.net = decoder, net

    def forward(self, latent: Tensor, step: Tensor) -> Tensor:
        return self.net.back(self.decoder(latent, step, self.net)[0]).logits


class Reference(nn.Module):
    """Pixels u8 [N,H,W,3] to logits [N,classes] of the unsplit network (models/BUNDLE.md, section 6)."""

    def __init__(self, net: PartitionedBackbone):
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image.permute(0, 3, 1, 2).float())


def write_tail(path: Path, decoder: Decoder, net: PartitionedBackbone, shape: tuple[int, int, int]) -> None:
    """Write tail-classify.onnx for latents [N, *shape]."""
    write(Tail(decoder, net), (torch.zeros(2, *shape), torch.ones(2)), ["latent", "step"], path)


def write_reference(path: Path, net: PartitionedBackbone, side: int) -> None:
    """Write reference-classify.onnx for square images of `side` pixels."""
    write(Reference(net), (torch.zeros(2, side, side, 3, dtype=torch.uint8),), ["image"], path)


def write(net: nn.Module, example: tuple, inputs: list[str], path: Path) -> None:
    """Trace `net` with `example`, whose first dimension becomes free, and write it without the exporter's annotations."""
    free = tuple({0: Dim.DYNAMIC} for _ in example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(),
            example,
            dynamo=True,
            dynamic_shapes=free,
            input_names=inputs,
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    model = program.model_proto
    casts = []
    for stored in model.graph.initializer:
        if stored.data_type == TensorProto.FLOAT and np.prod(stored.dims) >= LARGE:
            half = numpy_helper.to_array(stored).astype(np.float16)
            casts.append(helper.make_node("Cast", [f"{stored.name}.f16"], [stored.name], to=TensorProto.FLOAT))
            stored.CopyFrom(numpy_helper.from_array(half, f"{stored.name}.f16"))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for dims in [t.type.tensor_type.shape.dim for t in (*model.graph.input, *model.graph.output)]:
        dims[0].dim_param = "n"
    del model.graph.value_info[:]
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    model.producer_name = "narrows recipe"
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
